"""Standard input that stops nobody while the program waits for it.

A server's main thread often waits for what its operator types. gevent leaves standard input as
it is, and a blocking read of it keeps every other greenlet from running: so under a cap no client
would be served, or turned away, before the next line.

The interpreter's buffered reader holds a lock as long as it reads. So nobody waits inside it: it
reads what is there, and where that is not enough its caller waits in ours, one at a time.
"""

from __future__ import annotations

import builtins
import io
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.lock import RLock
from gevent.monkey import get_original

__all__ = ["cooperate"]

_READ: Final = 1  # of a libev watcher


class _Descriptor(io.FileIO):
    """The descriptor, read when there is something to read.

    :ivar patient: whether :meth:`readinto` waits for that.
    :ivar dry: whether it has found nothing since this was set to False.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "rb", closefd=False)
        self.name = "<stdin>"  # as the interpreter makes it: create_stdio in Python/pylifecycle.c
        self.patient = True
        self.dry = False
        self._watchers: set[Any] = set()

    def readinto(self, buffer: Any, /) -> int | None:
        if self.patient:
            self.wait()
        elif not self._is_ready():
            self.dry = True
            return None
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        if size is None or size < 0:
            return self.readall()
        self.wait()
        return super().read(size)

    def readall(self) -> bytes | None:  # type: ignore[override]
        if not os.get_blocking(self.fileno()):
            return super().readall()
        read = self.read
        return b"".join(iter(lambda: read(io.DEFAULT_BUFFER_SIZE) or b"", b""))

    def wait(self) -> None:
        """Wait until there is something, if the program would."""
        if self._is_ready():
            return
        hub: Any = gevent.get_hub()
        watcher = hub.loop.io(self.fileno(), _READ)
        self._watchers.add(watcher)
        try:
            hub.wait(watcher)
        finally:
            self._watchers.discard(watcher)
            watcher.close()

    def _is_ready(self) -> bool:
        """Whether a read returns at once: with data, with an error, or since it never waits."""
        fd = self.fileno()
        now = get_original("select", "poll")()
        now.register(fd, select.POLLIN)  # a file, and a descriptor that is closed, are ready
        return bool(now.poll(0)) or not os.get_blocking(fd)

    def forked(self) -> None:
        """In a forked child: who waits here is the parent's, and goes on there alone."""
        for watcher in self._watchers:
            watcher.stop()


class _Buffered(io.BufferedReader):
    """Its data, ahead of the program. Of several who read, each has its turn.

    Of a descriptor that does not block everything is as the interpreter's reader gives it.
    """

    def __init__(self, descriptor: _Descriptor) -> None:
        super().__init__(descriptor)  # type: ignore[arg-type]  # read() may be None: not in the stubs
        self._descriptor = descriptor
        self._turn = RLock()

    def __repr__(self) -> str:
        return f"<_io.BufferedReader name={self._descriptor.name!r}>"

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return self._in_turn(super().read, size)
        if not os.get_blocking(self.fileno()):
            return super().read()
        with self._turn:
            return b"".join(iter(self.read1, b""))

    def read1(self, size: int = -1, /) -> bytes:
        return self._in_turn(super().read1, size)

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._in_turn(super().readline, -1 if size is None else size)

    def peek(self, size: int = 0, /) -> bytes:
        return self._in_turn(super().peek, size)

    def readinto(self, buffer: Any, /) -> int:
        return _into(buffer, self.read)

    def readinto1(self, buffer: Any, /) -> int:
        return _into(buffer, self.read1)

    def _in_turn(self, read: Callable[[int], bytes], size: int) -> bytes:
        """``read(size)``; where it would wait with the reader's lock, we do without it."""
        descriptor = self._descriptor
        parts: list[bytes] = []
        with self._turn:
            while True:
                descriptor.patient = descriptor.dry = False
                try:
                    part = read(size)
                finally:
                    descriptor.patient = True
                if not descriptor.dry:
                    break
                if part:  # the beginning of it
                    parts.append(part)
                    size -= len(part) if size > 0 else 0
                descriptor.wait()
        return b"".join([*parts, part or b""]) if parts else part

    def forked(self) -> None:
        """In a forked child: whose turn it was goes on in the parent."""
        self._turn = RLock()
        self._descriptor.forked()


def _into(buffer: Any, read: Callable[[int], bytes | None]) -> int:
    with memoryview(buffer).cast("B") as view:
        data = read(len(view))
        if data is None:  # of a descriptor that does not block
            return None  # type: ignore[return-value]
        view[: len(data)] = data
        return len(data)


def cooperate() -> None:
    """Make ``sys.stdin`` and ``input()`` wait in gevent's way. Once in a process, for good.

    At a terminal ``input()`` then reads plain lines, without the editing of ``readline``.
    """
    stream = sys.__stdin__  # what the command itself may have put in its place goes
    if not isinstance(stream, io.TextIOWrapper):  # closed
        return
    buffered = _Buffered(_Descriptor(stream.fileno()))
    text = io.TextIOWrapper(buffered, encoding=stream.encoding, errors=stream.errors, newline="\n")
    text.mode = "r"  # type: ignore[misc]
    sys.stdin = sys.__stdin__ = text  # type: ignore[misc]
    os.register_at_fork(after_in_child=buffered.forked)
    plain_input = builtins.input

    def capped_input(prompt: object = "", /) -> str:
        if sys.stdin is not text or not (buffered.isatty() and _is_terminal(sys.stdout)):
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
