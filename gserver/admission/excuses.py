"""Who may be in a hurry for what others did: turned away for the slots, the total rate, early drop.

An honest client that finds the server full tries again, and so may exceed its rate. That is no
offence of its source's; another's, which the server had room for, is.
"""

from __future__ import annotations

from typing import Final

from gserver.admission.recovering import Recovering

__all__ = ["Excuses"]

_SLOTS: Final = 64


class Excuses:
    """Each lasts until the source's rate has recovered from a whole burst.

    Bounded: while the table is full of others, whoever is not in it is excused. A flood of
    distinct sources gets nobody shut out.

    :param seconds: how long one lasts.
    :param bound: the most sources remembered.
    """

    __slots__ = ("_everybody_until", "_seconds", "_table")

    def __init__(self, seconds: float, bound: int) -> None:
        self._seconds = seconds
        self._table = Recovering(bound, seconds / _SLOTS)
        self._everybody_until = float("-inf")

    def note(self, source: str, now: float) -> None:
        """The source has been turned away for what others did."""
        if not self._table.put(source, now + self._seconds, now):
            self.note_somebody(now)

    def note_somebody(self, now: float) -> None:
        """So has a client that nobody knows the source of."""
        self._everybody_until = now + self._seconds

    def cover(self, source: str, now: float) -> bool:
        """Whether the source is excused."""
        until = self._table.until(source)
        return now <= self._everybody_until or (until is not None and now <= until)
