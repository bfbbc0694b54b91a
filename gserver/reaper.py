"""The reaper: sweeps over a server's connections and ends those whose time is over.

One timer of the loop for all of them, no greenlet, and nothing on the path of the data: the
kernel keeps the clocks (``gserver/net/tcp_info.py``). A sweep is done in slices with turns of the
loop between them, so that ten thousand connections never hold it (bench/sweep_cost.py).
"""

from __future__ import annotations

import logging
from heapq import heappush, heappushpop
from itertools import count
from time import monotonic
from typing import Any, Final, Protocol

import gevent

from gserver.idleness import BUDGET_S, Watched, idle_seconds, look
from gserver.net.deadlines import Deadlines
from gserver.net.listeners import describe_peer
from gserver.stats import Ending
from gserver.timeouts import Timeouts, check_seconds, sweep_every

__all__ = ["Reaped", "Reaper"]

log = logging.getLogger("gserver")

#: Connections ended in one slice: each wakes a handler, some 50 µs before it does anything.
_MAX_ENDED: Final = 16
#: The longest idle that a sweep remembers for eviction: also the most evictions per sweep.
_MAX_REMEMBERED: Final = 1024
#: Connections that one eviction may look at: those remembered may be busy or gone by now.
_MAX_LOOKS: Final = 16
#: Eviction wants to know the longest idle more often than a tenth of its age.
_EVICTION_SWEEP_S: Final = 1.0


class Reaped(Watched, Protocol):
    """What can be ended: ``gserver.connection.Connection``, or a slot of an unmodified program's
    (``gserver/legacy/timed.py``).

    :ivar on_end: to be called with it once its slot is back, if set.
    """

    on_end: Any

    @property
    def address(self) -> Any: ...
    @property
    def ended(self) -> bool: ...
    def nudge(self, cause: Ending | None = None) -> None: ...
    def kill(self) -> None: ...
    def cut(self) -> None: ...


class Reaper:
    """Of one server's connections; :meth:`watch` each. It runs while there are any, also after
    its server has closed, and needs no closing.

    :param evict_idle: idle seconds from which a connection may be evicted for a newcomer at the
        cap; None: never.
    :raises SettingError: ``evict_idle`` is not a time above 0.
    """

    def __init__(self, timeouts: Timeouts, evict_idle: float | None = None) -> None:
        if evict_idle is not None:
            check_seconds(evict_idle, "evict_idle")
        self._timeouts = timeouts
        self.evict_idle: Final = evict_idle
        periods = []
        if timeouts.shortest is not None:
            periods.append(sweep_every(timeouts.shortest))
        if evict_idle is not None:
            periods.append(min(_EVICTION_SWEEP_S, sweep_every(evict_idle)))
        self._period: Final = min(periods, default=None)
        # Nobody younger can be over any of them, and costs no look.
        ages = [seconds for seconds in (timeouts.shortest, evict_idle) if seconds is not None]
        self._youngest: Final = min(ages, default=0.0)
        self._watched: set[Reaped] = set()
        # Still to be looked at in this sweep. Taken out one by one: those that have ended since
        # may live only here, and to free ten thousand at once takes 8 ms.
        self._round: list[Reaped] = []
        self._timer: Any = None
        self._told: Deadlines[Reaped] | None = None  # nudged, until their grace is over
        # (when it became idle, a number against ties, which) of the longest idle: as a heap
        # while a sweep collects them, the one idle last on top; then sorted, the longest last.
        self._collecting: list[tuple[float, int, Reaped]] = []
        self._longest: list[tuple[float, int, Reaped]] = []
        self._ties = count()

    @property
    def wanted(self) -> bool:
        """Whether there is anything to watch connections for."""
        return self._period is not None

    @property
    def evicts(self) -> bool:
        """Whether :meth:`evict_one` ever does anything."""
        return self.evict_idle is not None

    def watch(self, connection: Reaped) -> None:
        """Watch a connection until its end."""
        connection.on_end = self._forget
        self._watched.add(connection)
        if self._timer is None:
            self._set_timer(self._period)

    def _forget(self, connection: Reaped) -> None:
        self._watched.discard(connection)
        if self._told is not None:
            self._told.discard(connection)
        if not self._watched:
            self._set_timer(None)
            self._round.clear()
            self._collecting = []
            self._longest = []

    # ---- the sweep -------------------------------------------------------------------------

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        if seconds is not None:
            self._timer = gevent.get_hub().loop.timer(seconds)
            self._timer.start(self._begin_sweep if seconds else self._go_on)

    def _begin_sweep(self) -> None:
        self._round = list(self._watched)
        self._go_on()

    def _go_on(self) -> None:
        try:
            self._slice()
        except BaseException:
            self._set_timer(self._period)  # go on with the next sweep, whatever that one was
            raise

    def _slice(self) -> None:
        """As much of a sweep as fits in one turn of the loop."""
        now = monotonic()
        until = now + BUDGET_S
        ended = 0
        while self._round:
            connection = self._round.pop()
            if not connection.ended and now - connection.admitted_at >= self._youngest:
                ended += self._judge(connection, now)
            now = monotonic()
            if now >= until or ended >= _MAX_ENDED:
                self._set_timer(0.0)
                return
        self._collecting.sort()
        self._longest = self._collecting
        self._collecting = []
        self._set_timer(self._period if self._watched else None)

    def _judge(self, connection: Reaped, now: float) -> bool:
        """End a connection whose time is over: True."""
        age = now - connection.admitted_at
        heard, idle = look(connection, age)
        ending = self._timeouts.verdict(age, heard, idle)
        if ending is not None:
            return self._end(connection, ending)
        if self.evict_idle is not None and idle is not None and idle >= self.evict_idle:
            # Negative: a heap's top is its smallest, here the one that became idle last.
            entry = (idle - now, next(self._ties), connection)
            if len(self._collecting) < _MAX_REMEMBERED:
                heappush(self._collecting, entry)
            else:
                heappushpop(self._collecting, entry)
        return False

    def _end(self, connection: Reaped, ending: Ending) -> bool:
        """Nudge it, and see after the grace whether it has gone. False: it was told already."""
        if self._told is None:
            loop = gevent.get_hub().loop
            self._told = Deadlines(loop, self._timeouts.grace, self._grace_is_over)
        if connection in self._told:
            return False
        log.debug("%s: %s", describe_peer(connection.address), ending)
        self._told.add(connection)
        connection.nudge(ending)
        return True

    def _grace_is_over(self, connection: Reaped) -> None:
        connection.kill()
        connection.cut()  # a handler that survives its kill serves nobody any more

    # ---- eviction --------------------------------------------------------------------------

    def longest_idle(self) -> float | None:
        """Seconds for which the connection has been idle that has been so longest, if they are
        over the age; None: there is none.

        Takes what the last sweep found, and looks again, at some: constant cost.
        """
        for _ in range(min(_MAX_LOOKS, len(self._longest))):
            _, _, connection = self._longest[-1]
            told = self._told is not None and connection in self._told
            idle = None if connection.ended or told else idle_seconds(connection)
            if idle is not None and self.evict_idle is not None and idle >= self.evict_idle:
                return idle
            self._longest.pop()
        return None

    def evict_one(self) -> bool:
        """End the one that :meth:`longest_idle` told of. True: its slot is on its way back."""
        if self.longest_idle() is None:
            return False
        _, _, connection = self._longest.pop()
        return self._end(connection, Ending.EVICTED)
