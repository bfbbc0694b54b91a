"""One run: its time limit, Ctrl-C, and progress on standard error."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import gevent
from gevent import get_hub
from gevent.event import Event

__all__ = ["Run", "Stopped", "collector_off"]

_STEP_S = 0.002
_USUAL_COLUMNS = 80

T = TypeVar("T")


class Stopped(Exception):
    """The run was stopped, and nothing more can be said than what the result holds already."""


class Run:
    """What a command needs from the outside: how long it may go on, and whom to tell.

    :param limit_s: seconds after which every wait ends and the result is partial.
    :param stream: where progress goes; None: nowhere.

    Use as a context manager: SIGINT and SIGTERM then end the waits, and the command returns
    what it has, marked partial. A second SIGINT is an ordinary KeyboardInterrupt.
    """

    def __init__(self, limit_s: float, *, stream: IO[str] | None = sys.stderr) -> None:
        self.began = time.monotonic()
        self.ends = self.began + limit_s
        self.partial = ""  # why, when it is
        self._stop = Event()
        self._stream = stream
        self._rewrites = stream is not None and stream.isatty()
        self._told = 0.0
        self._shown = ""
        self._watchers: list[Any] = []
        self._handlers: list[tuple[int, Any]] = []

    def __enter__(self) -> Run:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers.append((number, signal.getsignal(number)))
            watcher = get_hub().loop.signal(number)
            watcher.start(self._interrupt, number)
            self._watchers.append(watcher)
        return self

    def __exit__(self, *exc: object) -> None:
        self._forget_signals()
        if self._rewrites and self._shown:
            self._write("\r\033[K")

    def _forget_signals(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        for number, handler in self._handlers:  # libev leaves the default action behind
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupt(self, number: int) -> None:
        self.stop(f"interrupted by {signal.Signals(number).name}")
        self._forget_signals()

    def stop(self, why: str) -> None:
        """End every wait; the result is partial because of *why*."""
        if not self.partial:
            self.partial = why
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether the run is to end now: interrupted, or its time is over."""
        if not self._stop.is_set() and time.monotonic() >= self.ends:
            self.stop("its time was over")
        return self._stop.is_set()

    def pause(self, seconds: float) -> bool:
        """Let *seconds* pass; False when the run was stopped before they had."""
        left = self.ends - time.monotonic()
        if seconds < left:
            return not self._stop.wait(seconds)
        self._stop.wait(max(left, 0))
        return not self.stopped

    def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait for *condition*, at most *seconds*; whether it held (False when stopped)."""
        deadline = time.monotonic() + seconds
        while not self.stopped:
            if condition():
                return True
            if time.monotonic() >= deadline:
                return False
            gevent.sleep(_STEP_S)
        return False

    def go_on(self) -> None:
        """Raise :class:`Stopped` when the run was stopped."""
        if self.stopped:
            raise Stopped(self.partial)

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait for *event*, at most *seconds*; whether it was set (False when stopped)."""
        left = min(seconds, self.ends - time.monotonic())
        if left > 0 and not self._stop.is_set():
            gevent.wait((event, self._stop), timeout=left, count=1)
        return event.is_set() and not self.stopped

    def result_of(self, work: Callable[[], T]) -> T:
        """What *work*, which waits by gevent's means and in no other, returns or raises.

        :raises Stopped: the run was stopped before; *work* was ended by GreenletExit.
        """

        def kept() -> T | Exception:  # one that a greenlet raises is printed with a traceback
            try:
                return work()
            except Exception as error:
                return error

        greenlet = gevent.spawn(kept)
        try:
            self.until(greenlet.ready, max(0.0, self.ends - time.monotonic()))
            self.go_on()
            value = greenlet.get()
        finally:
            greenlet.kill()
        if isinstance(value, Exception):
            raise value
        return value

    def announce(self, text: str) -> None:
        """Say *text* in a line that stays."""
        self._write(f"\r\033[K{text}\n" if self._rewrites else f"{text}\n")

    def tell(self, text: str) -> None:
        """Show where the run is. On a terminal one line, rewritten; else a line a second."""
        if self._stream is None or text == self._shown:
            return
        now = time.monotonic()
        if now - self._told < (0.1 if self._rewrites else 1.0):
            return
        self._told, self._shown = now, text
        line = f"[{now - self.began:5.1f} s] {text}"
        self._write(f"\r\033[K{line[: self._width()]}" if self._rewrites else line + "\n")

    def _width(self) -> int:
        """What fits into one line of the terminal: a line that wraps could not be rewritten."""
        assert self._stream is not None
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return (columns or _USUAL_COLUMNS) - 1  # the last column would wrap in some

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # whoever read it has gone; the run goes on
            self._stream = None


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection while measuring; what is there already is never looked at again."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
