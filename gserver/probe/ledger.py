"""The ledger: was a rejection false? Pure: time is an argument.

A client cannot see the server's count. It knows two bounds: at least those are being served that
were proven served and have not ended, and at most those, the other attempts under way, and those
that ended so recently that word of it may not have reached the server.
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
    :param grace_ns: how long after its end a connection may still count as taken: as long as the
        network may need to tell the server, not as long as the server may need to notice, which is
        what is being judged. 0 on one host, where ``close`` returns when the FIN has arrived.
    """

    def __init__(self, cap: int, grace_ns: int) -> None:
        self.held = 0
        self.peak = 0
        self._cap = cap
        self._grace_ns = grace_ns
        self._ended: deque[int] = deque()
        self._under_way: dict[object, list[int]] = {}  # highest upper, highest lower bound

    def begin(self, attempt: object, now: int) -> None:
        """An attempt starts. Without effect when it has begun already."""
        if attempt not in self._under_way:
            self._under_way[attempt] = [0, 0]
            self._raise(now)

    def ended(self, now: int) -> None:
        """A connection that was held has ended, from whichever side."""
        self._raise(now)
        self.held -= 1
        self._ended.append(now)
        self._raise(now)

    def admitted(self, attempt: object, now: int) -> None:
        """The attempt is held now."""
        self._under_way.pop(attempt, None)
        self.held += 1
        self.peak = max(self.peak, self.held)
        self._raise(now)

    def rejected(self, attempt: object, now: int) -> Falsehood:
        """The attempt was turned away: falsely? Raises KeyError when it had not begun."""
        self._raise(now)
        upper, lower = self._under_way.pop(attempt)
        if upper < self._cap:
            return Falsehood.CERTAIN
        return Falsehood.POSSIBLE if lower < self._cap else Falsehood.NO

    def given_up(self, attempt: object, now: int) -> None:
        """We have ended an attempt that had no verdict: the server may have taken it in."""
        self._raise(now)
        if self._under_way.pop(attempt, None) is not None:
            self._ended.append(now)

    def never_left(self, attempt: object) -> None:
        """The attempt failed on this machine: the server has not seen it."""
        self._under_way.pop(attempt, None)

    def _raise(self, now: int) -> None:
        recent = self._ended
        while recent and recent[0] < now - self._grace_ns:
            recent.popleft()
        others = len(self._under_way) - 1
        upper = self.held + others + len(recent)
        for bounds in self._under_way.values():
            bounds[0] = max(bounds[0], upper)
            bounds[1] = max(bounds[1], self.held)
