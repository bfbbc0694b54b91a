"""The gate: the only place that compares the count with the cap."""

from __future__ import annotations

from typing import Final

from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected

__all__ = ["Gate"]

_NOTHING_TAKEN: Final = Receipt()
_FULL: Final = REJECTED[Reason.CAPACITY]


class Gate:
    """Decides on one client at a time.

    :param max_connections: the cap, 1 or more. May be changed at any time: raising admits at
        once, lowering admits nobody until enough have left and ends nobody.
    """

    __slots__ = ("max_connections",)

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections

    def decide(self, source: str, now: float, *, in_use: int) -> Receipt | Rejected:
        """Admit or reject one client.

        :param source: the client as the rules count it.
        :param now: seconds on any clock that does not go back.
        :param in_use: slots taken at this instant, by the pool's own count.
        :return: a receipt to be handed to :meth:`give_back` when the connection ends, or the
            verdict that turns the client away, in which case nothing is held.
        """
        if in_use < self.max_connections:
            return _NOTHING_TAKEN
        return _FULL

    def full(self, in_use: int) -> bool:
        """Whether a client that counts against the whole cap would be turned away now."""
        return in_use >= self.max_connections

    def give_back(self, receipt: Receipt, now: float) -> None:
        """Hand back, once, what an admission took."""
