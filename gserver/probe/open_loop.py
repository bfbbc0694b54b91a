"""The open loop: arrivals at their intended times, whatever became of the earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final

from gevent import get_hub
from gevent.event import Event

from gserver.probe.pacing import ConstantRate
from gserver.probe.timerfd import TimerFd

__all__ = ["OpenLoop"]

_BURST: Final = 16  # arrivals a callback, when late: answers that have come are read in between


class OpenLoop:
    """Calls *arrive* for each arrival, by the timer, from the hub.

    :param start_ns: monotonic time of the first arrival's zero.
    :param arrive: given the arrival's intended time; False: there was no room for it, which is
        counted in :attr:`dropped`, never skipped silently.

    :attr:`started` and :attr:`dropped` count arrivals; :meth:`close` stops and frees the timer.
    """

    def __init__(self, pace: ConstantRate, start_ns: int, arrive: Callable[[int], bool]) -> None:
        self.started = 0
        self.dropped = 0
        self.all_started = Event()
        self.failure: Exception | None = None
        self._pace = pace
        self._start_ns = start_ns
        self._arrive = arrive
        self._next = 0
        self._timer = TimerFd()
        self._watcher: Any = get_hub().loop.io(self._timer.fileno(), 1)
        self._watcher.start(self._tick)
        self._timer.arm(start_ns + pace.at(0))

    def close(self) -> None:
        """Start nothing more. May be called again."""
        self._watcher.stop()
        self._watcher.close()
        self._timer.close()

    def _tick(self) -> None:
        self._timer.clear()
        pace, arrive, start = self._pace, self._arrive, self._start_ns
        k = self._next
        until = min(pace.due(monotonic_ns() - start), k + _BURST)
        try:
            while k < until:
                if arrive(start + pace.at(k)):
                    self.started += 1
                else:
                    self.dropped += 1
                k += 1
        except Exception as error:
            self.failure = error
            self.all_started.set()
            return
        self._next = k
        if k < pace.planned:
            self._timer.arm(start + pace.at(k))
        else:
            self.all_started.set()
