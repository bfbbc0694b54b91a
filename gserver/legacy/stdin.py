"""Standard input that stops nobody while the program waits for it.

A server's main thread often waits for what its operator types. gevent leaves standard input as
it is, and a blocking read of it keeps every other greenlet from running: so under a cap no client
would be served, or turned away, before the next line.
"""

from __future__ import annotations

import builtins
import io
import sys
from typing import Any

import gevent
from gevent.monkey import get_original

__all__ = ["cooperate"]

_READ = 1


class _Stdin(io.FileIO):
    """The descriptor, read when there is something to read."""

    def readinto(self, buffer: Any, /) -> int:
        self._wait()
        return super().readinto(buffer) or 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        self._wait()
        return super().read(size) or b""

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(io.DEFAULT_BUFFER_SIZE), b""))

    def _wait(self) -> None:
        fd = self.fileno()
        now = get_original("select", "poll")()
        now.register(fd, 1)  # POLLIN; a file, and a descriptor that is closed, are ready
        if not now.poll(0):
            hub: Any = gevent.get_hub()
            watcher = hub.loop.io(fd, _READ)
            try:
                hub.wait(watcher)
            finally:
                watcher.close()


def cooperate() -> None:
    """Make ``sys.stdin`` and ``input()`` wait in gevent's way. Once in a process, for good.

    At a terminal ``input()`` then reads plain lines, without the editing of ``readline``.
    """
    stream = sys.__stdin__  # what the command itself may have put in its place goes
    if not isinstance(stream, io.TextIOWrapper):  # closed
        return
    raw = _Stdin(stream.fileno(), "rb", closefd=False)
    raw.name = "<stdin>"  # as the interpreter makes it: create_stdio in Python/pylifecycle.c
    text = io.TextIOWrapper(
        io.BufferedReader(raw), encoding=stream.encoding, errors=stream.errors, newline="\n"
    )
    text.mode = "r"  # type: ignore[misc]
    sys.stdin = sys.__stdin__ = text  # type: ignore[misc]
    plain_input = builtins.input

    def capped_input(prompt: object = "", /) -> str:
        if sys.stdin is not text or not (raw.isatty() and _is_terminal(sys.stdout)):
            return plain_input(prompt)
        sys.stdout.write(str(prompt))
        sys.stdout.flush()
        line = text.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    builtins.input = capped_input


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # None, or closed: input() says so itself
        return False
