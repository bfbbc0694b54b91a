"""What the gate can say: a :class:`Receipt` for the admitted, :class:`Rejected` for the rest."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["REJECTED", "Reason", "Receipt", "Rejected"]


class Reason(enum.StrEnum):
    """Why a client was turned away. Closed: every value is a metric label and a log word."""

    CAPACITY = "capacity"  # all slots are taken
    DESCRIPTORS = "descriptors"  # EMFILE or ENFILE: the process or the system has no more
    DRAINING = "draining"  # the server is stopping


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an admission took, handed back once, at the connection's end (``Gate.give_back``).

    The slot itself is not in it: the pool is the only count of slots.
    """


@dataclass(frozen=True, slots=True)
class Rejected:
    """Turned away, and why."""

    reason: Reason


#: One instance a reason, so that a rejection allocates nothing.
REJECTED: Final = {reason: Rejected(reason) for reason in Reason}
