"""The open loop: attempts at their intended times, whatever became of the earlier ones."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any, Final

from gevent import get_hub
from gevent.event import Event

from gserver.probe.engine import Engine
from gserver.probe.pacing import ConstantRate
from gserver.probe.timerfd import TimerFd

__all__ = ["OpenLoop"]

_BURST: Final = 16  # attempts a callback, when late: answers that have arrived are read in between


class OpenLoop:
    """Starts attempts of *engine* by the timer, from the hub.

    :param start_ns: monotonic time of the first arrival's zero.
    :param max_in_flight: an arrival that would exceed it is counted in :attr:`dropped`, never
        skipped silently.

    :attr:`started` and :attr:`dropped` count arrivals; :meth:`close` stops and frees the timer.
    """

    def __init__(
        self, engine: Engine, pace: ConstantRate, start_ns: int, max_in_flight: int
    ) -> None:
        self.started = 0
        self.dropped = 0
        self.all_started = Event()
        self._engine = engine
        self._pace = pace
        self._start_ns = start_ns
        self._max_in_flight = max_in_flight
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
        pace, engine, start = self._pace, self._engine, self._start_ns
        k = self._next
        until = min(pace.due(monotonic_ns() - start), k + _BURST)
        while k < until:
            if engine.in_flight < self._max_in_flight:
                engine.start(start + pace.at(k))
                self.started += 1
            else:
                self.dropped += 1
            k += 1
        self._next = k
        if k < pace.planned:
            self._timer.arm(start + pace.at(k))
        else:
            self.all_started.set()
