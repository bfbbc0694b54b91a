"""The ledger: was a rejection false? Pure: time is an argument.

A client cannot see the server's count. It knows two bounds: at least those are being served that
were proven served and have not been closed, and at most those, the other attempts under way, and
those closed so recently that the server may not have noticed.
"""

from __future__ import annotations

import enum
from collections import deque

__all__ = ["Falsehood", "Ledger"]


class Falsehood(enum.StrEnum):
    """How sure it is that a rejection was false."""

    CERTAIN = "certain"  # even the upper bound stayed below the cap for the whole attempt
    POSSIBLE = "possible"  # only the lower bound did
    NO = "no"


class Ledger:
    """Bounds on the server's count, and their highest during each attempt.

    :param cap: the server's limit.
    :param grace_ns: how long after our close a connection may still count as taken.
    """

    def __init__(self, cap: int, grace_ns: int) -> None:
        self.held = 0
        self.peak = 0
        self._cap = cap
        self._grace_ns = grace_ns
        self._closed: deque[int] = deque()
        self._under_way: dict[object, list[int]] = {}  # highest upper, highest lower bound

    def begin(self, attempt: object, now: int) -> None:
        """An attempt starts."""
        self._under_way[attempt] = [0, 0]
        self._raise(now)

    def closed(self, now: int) -> None:
        """We have closed a connection that was held."""
        self._raise(now)
        self.held -= 1
        self._closed.append(now)
        self._raise(now)

    def lost(self) -> None:
        """The server has ended a connection that was held."""
        self.held -= 1

    def admitted(self, attempt: object, now: int) -> None:
        """The attempt is held now."""
        self._under_way.pop(attempt, None)
        self.held += 1
        self.peak = max(self.peak, self.held)
        self._raise(now)

    def rejected(self, attempt: object, now: int) -> Falsehood:
        """The attempt was turned away: falsely?"""
        self._raise(now)
        upper, lower = self._under_way.pop(attempt)
        if upper < self._cap:
            return Falsehood.CERTAIN
        return Falsehood.POSSIBLE if lower < self._cap else Falsehood.NO

    def _raise(self, now: int) -> None:
        closed = self._closed
        while closed and closed[0] < now - self._grace_ns:
            closed.popleft()
        others = len(self._under_way) - 1
        upper = self.held + others + len(closed)
        for bounds in self._under_way.values():
            bounds[0] = max(bounds[0], upper)
            bounds[1] = max(bounds[1], self.held)
