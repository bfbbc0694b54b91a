"""SIGINT and SIGTERM: the first asks for a drain, the second ends the process at once. SIGHUP
asks for a reload, and ends nothing."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

__all__ = ["GRACE_S", "Hangups", "StopSignals"]

#: Seconds past the drain's deadline that a handler which swallows its kill, or never yields,
#: can hold the process up.
GRACE_S: Final = 3.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Handles them from the moment it is made, so that none is lost during start-up.

    Python's own handlers, not the loop's: they run even while a handler that never yields holds
    the loop.

    After the first signal both have their default action again: the kernel then ends the process
    at the second one, even inside C code that never returns to the interpreter, and whoever
    waits for us sees the signal. Only where such code holds the interpreter already when the
    first one comes, that one is not seen, and SIGKILL is what is left.

    :param drain_timeout: seconds the drain may take. :data:`GRACE_S` later a watchdog thread of
        the interpreter, which needs neither the loop nor the interpreter's lock, prints where
        every thread is and ends the process with status 1. Where even that print blocks (standard
        error is a pipe nobody reads), SIGALRM ends it a second after.
    """

    def __init__(self, drain_timeout: float) -> None:
        self._deadline = drain_timeout + GRACE_S
        self._received: signal.Signals | None = None
        self._notify: Callable[[], object] | None = None
        for signum in _SIGNALS:
            signal.signal(signum, self._handle)

    @property
    def received(self) -> signal.Signals | None:
        """The first signal, once it has come."""
        return self._received

    def notify(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` on the first signal: at once, if it has come already. It runs inside
        the signal handler and must only wake somebody."""
        self._notify = callback
        if self._received is not None:
            callback()

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self._received is not None:  # both had come before Python looked
            os.kill(os.getpid(), signum)
            return
        self._received = signal.Signals(signum)
        for known in (*_SIGNALS, signal.SIGALRM):
            signal.signal(known, signal.SIG_DFL)
        # The number, not sys.stderr: a handler's module may have put something else there.
        faulthandler.dump_traceback_later(self._deadline, exit=True, file=2)
        signal.setitimer(signal.ITIMER_REAL, self._deadline + 1.0)
        if self._notify is not None:
            self._notify()


class Hangups:
    """Handles SIGHUP from the moment it is made: by its default it would end the process, and
    every client, without a drain; and what is renewed during start-up may have been read before.
    """

    def __init__(self) -> None:
        self._came = False
        self._notify: Callable[[], object] | None = None
        signal.signal(signal.SIGHUP, self._handle)

    def notify(self, callback: Callable[[], object], *, take_over: bool = False) -> None:
        """Call ``callback`` on each SIGHUP: at once, if one has come already. It runs inside the
        signal handler and must only wake somebody.

        :param take_over: whether also where the handler's module has put a handler of its own
            in our place.
        """
        self._notify = callback
        if take_over:
            signal.signal(signal.SIGHUP, self._handle)
        if self._came:
            callback()

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        if self._notify is None:
            self._came = True
        else:
            self._notify()
