"""Eviction: at the cap, of all that servers sharing it serve, the longest idle makes room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["Evictor", "evict_longest"]


class Evictor(Protocol):
    """Knows one server's idle connections: ``gserver.reaper.Reaper``."""

    def longest_idle(self) -> float | None:
        """Seconds for which the one that :meth:`evict_one` would end has been idle; None: there
        is none."""
        ...

    def evict_one(self) -> bool:
        """End it. True: its slot is back, or on its way."""
        ...


def evict_longest(evictors: Iterable[Evictor]) -> bool:
    """End the connection that has been idle longest, whichever server's. False: none is idle for
    long enough."""
    longest: tuple[float, Evictor] | None = None
    for evictor in evictors:
        idle = evictor.longest_idle()
        if idle is not None and (longest is None or idle > longest[0]):
            longest = idle, evictor
    return longest is not None and longest[1].evict_one()
