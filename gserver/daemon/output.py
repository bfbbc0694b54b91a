"""Output that never stalls the server: a bounded queue and a native thread behind it.

A terminal that was stopped, a pipe nobody reads or a full disk blocks whoever writes to it. Here
that is a thread of its own; what does not fit in the queue meanwhile is dropped and counted.
"""

from __future__ import annotations

import logging
import os

# From the C modules: a handler's module may monkey-patch the Python ones when it is imported.
from _queue import SimpleQueue
from typing import Any, Final

from gevent.monkey import get_original

from gserver.handlers.console import escape

__all__ = ["MAX_CHARACTERS", "MAX_LINES", "BackgroundWriter", "log_to"]

#: Lines that may wait, and what they may have together (G8); further ones are dropped and
#: counted.
MAX_LINES: Final = 10_000
MAX_CHARACTERS: Final = 1 << 23
_BATCH: Final = 256
_start_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")
_select = get_original("select", "select")


class BackgroundWriter:
    """Writes lines to a descriptor from a thread. Never blocks, never raises.

    :param fd: stays the caller's. When writing to it fails (its reader is gone, the disk is
        full), further lines are dropped until it works again.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # Each is counted up by one thread alone, so that no count is lost or taken twice.
        self._queued = 0  # characters, by the writing threads
        self._taken = 0  # characters, by ours
        self._dropped = 0  # lines, by the writing threads
        self._told = 0  # of those dropped, by ours
        self._finished = _allocate_lock()
        self._finished.acquire()
        _start_thread(self._run, ())

    def write(self, line: str) -> None:
        """Queue one line, its newline included."""
        if self._lines.qsize() >= MAX_LINES or self._queued - self._taken >= MAX_CHARACTERS:
            self._dropped += 1
        else:
            self._queued += len(line)
            self._lines.put(line)

    def close(self, timeout: float = 0.5) -> None:
        """Wait up to ``timeout`` seconds for what is queued to be written, and end the thread."""
        self._lines.put(None)
        self._finished.acquire(timeout=timeout)

    def _run(self) -> None:
        try:
            while self._write_batch():
                pass
        finally:
            self._finished.release()

    def _write_batch(self) -> bool:
        line = self._lines.get()
        batch: list[str] = []
        while line is not None:
            batch.append(line)
            if len(batch) == _BATCH or self._lines.empty():
                break
            line = self._lines.get()
        text = "".join(batch)
        self._taken += len(text)
        dropped = self._dropped - self._told
        if dropped:
            self._told += dropped
            what = "1 line" if dropped == 1 else f"{dropped:,} lines"
            text += f"[{what} dropped: they came faster than they were written]\n"
        self._write_all(text.encode("utf-8", "backslashreplace"))
        return line is not None

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except InterruptedError:
                continue
            except BlockingIOError:  # somebody made a shared terminal or pipe non-blocking
                _select([], [self._fd], [])
            except OSError:  # EPIPE, ENOSPC, EIO: what cannot be written now is dropped
                return


class _Formatter(logging.Formatter):
    """No peer can steer the terminal or forge a line: what it may have put into a message (the
    name of a unix client's socket, a value in an exception's text) is escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = escape(record.message, leave="\\")
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return escape(super().formatException(ei), leave="\\\n")


class _WriterHandler(logging.Handler):
    def __init__(self, writer: BackgroundWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def log_to(writer: BackgroundWriter) -> None:
    """Send the program's log through ``writer``: one line an event, INFO and above."""
    handler = _WriterHandler(writer)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
