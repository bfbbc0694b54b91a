"""``probe slow``: what keeps a slow client from connecting is put at the right door."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.long

#: The command, on a machine where no slow client's connect succeeds.
COMMAND = """
import os, sys
from gevent import socket
from gserver.probe.cli import probe

class Failing(socket.socket):
    def connect(self, address):
        number = int(sys.argv.pop())
        raise OSError(number, os.strerror(number))

socket.socket = Failing
probe(sys.argv[1:-1])
"""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (
            errno.EADDRNOTAVAIL,
            3,
            "INVALID: this machine could not make a connection: Cannot assign",
        ),
        (errno.ECONNREFUSED, 1, "a silent client could not connect: "),
    ],
)
def test_connect_that_fails_here_is_not_the_targets_fault(
    start_server: Callable[..., int], number: int, status: int, said: str
) -> None:
    target = f"127.0.0.1:{start_server('limited_server', 3, 'fin')}"
    words = ["slow", target, "--cap", "3", "--duration", "1s", "--profile", "echo"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, str(number)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
