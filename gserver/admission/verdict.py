"""What the gate can say: a :class:`Receipt` for the admitted, :class:`Rejected` for the rest."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["ENDINGS_MAKE_ROOM", "REJECTED", "Reason", "Receipt", "Rejected"]


class Reason(enum.StrEnum):
    """Why a client was turned away. Closed: every value is a metric label and a log word."""

    CAPACITY = "capacity"  # all slots this client may have are taken
    DENIED = "denied"  # the access lists say no
    PENALTY = "penalty"  # shut out for a while, for what it did before
    SOURCE_RATE = "source_rate"  # its source attempts too often
    RATE = "rate"  # all sources together attempt too often
    SOURCE = "source"  # its source holds as many slots as one source may
    EARLY_DROP = "early_drop"  # drawn while the slots ran low
    HEADER = "header"  # a proxy's PROXY protocol header was none, or did not come in time
    WAIT_TIMEOUT = "wait_timeout"  # waited as long as it may, and no slot came free
    WAIT_FULL = "wait_full"  # all slots are taken, and all places to wait
    DESCRIPTORS = "descriptors"  # EMFILE or ENFILE: the process or the system has no more
    DRAINING = "draining"  # the server is stopping


class Receipt:
    """What an admission took, handed back once, at the connection's end (``Gate.give_back``).

    The slot itself is not in it: the pool is the only count of slots.

    :ivar counted_as: the source whose count it raised, or None: nothing was taken, or it has
        been given back.
    """

    __slots__ = ("counted_as",)

    def __init__(self, counted_as: str | None = None) -> None:
        self.counted_as = counted_as

    def __repr__(self) -> str:
        return f"Receipt({self.counted_as!r})"


@dataclass(frozen=True, slots=True, eq=False)  # one a reason: the same one is what is equal
class Rejected:
    """Turned away, and why. Of :data:`REJECTED`."""

    reason: Reason


#: One instance a reason, so that a rejection allocates nothing.
REJECTED: Final = {reason: Rejected(reason) for reason in Reason}

#: Verdicts that stand only once the endings under way are over (G3).
ENDINGS_MAKE_ROOM: Final = (
    REJECTED[Reason.CAPACITY],
    REJECTED[Reason.SOURCE],
    REJECTED[Reason.WAIT_FULL],
)
