"""The command line of the Python servers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """The port to listen on, the cap (0: none), and the length of the listener's queue."""

    port: int
    max_connections: int
    backlog: int


def parse() -> Options:
    """Read the command line; exits with status 2 on anything else."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-connections", type=int, default=0)
    parser.add_argument("--backlog", type=int, required=True)
    arguments = parser.parse_args()
    return Options(arguments.port, arguments.max_connections, arguments.backlog)
