"""Processes of the cost scripts: servers and clients that are told and asked line by line."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

__all__ = ["GSERVER", "ROOT", "ask", "module", "start", "tell"]

#: The repository: ``bench`` and ``gserver`` import from here.
ROOT = Path(__file__).resolve().parent.parent


def module(name: str, *arguments: object) -> list[str]:
    """Return the command line that runs a module by this interpreter."""
    return [sys.executable, "-m", name, *map(str, arguments)]


#: Our server as it is measured; ``--max-connections`` and whatever else follow.
GSERVER = module("gserver", "serve", "echo", "--listen", "127.0.0.1:0")


def start(
    command: list[str], stack: ExitStack, *, cpu: int | None = None, speaks: bool = True
) -> tuple[subprocess.Popen[str], str]:
    """Start a process, and read its first line if it ``speaks``; the stack ends it.

    ``cpu``: the processor that it is bound to. It dies with this process, whatever ends that, and
    hears nothing of a Ctrl-C. Exits when it ends without its line.
    """
    bound = [] if cpu is None else ["taskset", "-c", str(cpu)]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", *bound, *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Not a session of its own: the scheduler would weigh those against each other.
        process_group=0,
    )
    stack.callback(process.__exit__, None, None, None)
    stack.callback(process.kill)
    assert process.stdout is not None
    line = process.stdout.readline() if speaks else ""
    if speaks and not line:
        sys.exit(f"did not start: {' '.join(command)}")
    return process, line


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Send a line."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def ask(process: subprocess.Popen[str], line: str) -> str:
    """Send a line and return the answer, a line too."""
    tell(process, line)
    assert process.stdout is not None
    return process.stdout.readline()
