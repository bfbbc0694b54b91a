"""Attempts per second: the generic cell rate algorithm (GCRA, ITU-T I.371), as virtual scheduling.

One number is kept: the moment at which all that was admitted would have come in evenly spaced.
An attempt may be early by up to ``burst - 1`` intervals. One that is within the rate is consumed,
whatever later rules say, and never given back; one that exceeds it consumes nothing, so that a
client that goes on trying is let in at the rate, not shut out.
"""

from __future__ import annotations

from typing import Final

from gserver.admission.recovering import Recovering

__all__ = ["Bucket", "SourceRates"]

#: Part of an interval by which an attempt may be early, so that attempts exactly at the rate are
#: not refused for the rounding of a clock's seconds (1e-10 at an uptime of 12 days).
_ROUNDING: Final = 1e-3
#: Into how many slots of :class:`Recovering` the time to recover from a whole burst is cut.
_SLOTS: Final = 64


class Bucket:
    """One rate for all that ask it.

    :param rate: attempts per second, more than 0.
    :param burst: how many attempts may come at once after a rest, 1 or more.
    """

    __slots__ = ("_interval", "_tolerance", "_until")

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1 + _ROUNDING) * self._interval
        self._until = float("-inf")

    def take(self, now: float) -> bool:
        """Consume an attempt, or answer False and consume nothing: the rate is exceeded."""
        until = self._until
        if until <= now:
            self._until = now + self._interval
            return True
        if until - now > self._tolerance:
            return False
        self._until = until + self._interval
        return True


class SourceRates:
    """The same rate for each source.

    Bounded: a source whose burst is whole again is forgotten first. While the table is full of
    others, sources that are not in it share one bucket with the rate of a single source, and
    :attr:`overflowed` counts their attempts: sources in the table stay held to their rate, and a
    flood of distinct sources gets no more than one of them.

    :param bound: the most sources remembered.
    """

    __slots__ = ("_interval", "_overflow", "_table", "_tolerance", "overflowed", "recovery")

    def __init__(self, rate: float, burst: int, bound: int) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1 + _ROUNDING) * self._interval
        #: Seconds after which a source that used its whole burst has it again.
        self.recovery: Final = burst * self._interval
        self._table = Recovering(bound, self.recovery / _SLOTS)
        self._overflow = Bucket(rate, burst)
        #: Attempts that were counted in the shared bucket.
        self.overflowed = 0

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._table)

    def __contains__(self, source: str) -> bool:
        """Whether the source has a bucket of its own at present."""
        return source in self._table

    def take(self, source: str, now: float) -> bool:
        """Consume an attempt of the source's, or answer False and consume nothing."""
        table = self._table
        until = table.until(source)
        if until is None:
            if table.add(source, now + self._interval, now):
                return True
        elif until - now > self._tolerance:
            return False
        else:
            return table.put(source, max(until, now) + self._interval, now)
        self.overflowed += 1
        return self._overflow.take(now)
