"""Child processes: in a session of their own, ended by the pid we kept, and with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import IO, Any, Final

from gevent import subprocess

from gserver.probe.errors import TargetError

__all__ = ["Child", "die_with_parent"]

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """In a child: be killed when *parent* is. Exits at once if it has gone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


class Child:
    """A Python module of this package run as a process, with pipes that give way to the hub.

    The module is given the parent's pid as its first argument.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        self.pid: int = self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """What it writes."""
        return self._process.stdout  # type: ignore[no-any-return]

    def line(self) -> str:
        """Its next line. Raises TargetError when it has ended instead."""
        text: bytes = self._process.stdout.readline()
        if not text:
            raise TargetError(f"a child process ended early, with status {self.status()}")
        return text.decode().strip()

    def send(self, text: str) -> None:
        """Write a line to it."""
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def status(self) -> int:
        """Wait for its end; what it ended with, as ``subprocess`` says it."""
        return int(self._process.wait())

    def stop_early(self) -> None:
        """Ask it to finish with what it has."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Kill it if it is still there, wait for it, close the pipes. May be called again."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):  # what was sent when it had died; it is closed all the same
            self._process.stdin.close()
        self._process.stdout.close()
