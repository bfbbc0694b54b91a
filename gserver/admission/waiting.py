"""A bounded queue of clients that wait, for a bounded time, for a slot."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from gserver.admission.sources import Source
from gserver.admission.verdict import Receipt

__all__ = ["WaitQueue", "Waiter"]


class Waiter:
    """A client that waits.

    :ivar client: whatever the engine wants back with it (its descriptor, its address).
    :ivar source: who it is to the rules, as they were when it came.
    :ivar receipt: what it holds meanwhile: its place in its source's count, not a slot.
    :ivar arrived: when it began to wait, in seconds.
    :ivar reserved: it may have a reserved slot.
    """

    __slots__ = ("arrived", "client", "receipt", "reserved", "source", "turn")

    def __init__(
        self, client: Any, source: Source, receipt: Receipt, arrived: float, turn: int
    ) -> None:
        self.client = client
        self.source = source
        self.receipt = receipt
        self.arrived = arrived
        self.reserved = source.reserved
        self.turn = turn


class WaitQueue:
    """Who waits, in the order of arrival.

    All wait equally long, so the order of arrival is the order of deadlines too. Clients for whom
    the reserve is stand in a line of their own, since they can take slots that others cannot;
    between a client of each line that could both have a slot, the order of arrival decides.

    :ivar wait: seconds to wait. Applies to those that wait already when it is changed.
    :ivar places: the most that wait. When lowered, those that wait already may go on.
    :ivar lifo: whether the last to come is the first to be served: under a lasting overload the
        first would each have waited for almost all of their time, and their clients given up.
    """

    __slots__ = ("_lines", "_turn", "lifo", "places", "wait")

    def __init__(self) -> None:
        self.wait = 0.0
        self.places = 0
        self.lifo = False
        self._turn = 0
        # Not dicts: taking the first of a dict again and again walks over all that were deleted.
        self._lines: Final[tuple[OrderedDict[int, Waiter], OrderedDict[int, Waiter]]] = (
            OrderedDict(),  # those that may not have a reserved slot
            OrderedDict(),  # those that may
        )

    def __len__(self) -> int:
        return len(self._lines[0]) + len(self._lines[1])

    @property
    def waiting(self) -> int:
        """How many wait that may not have a reserved slot."""
        return len(self._lines[0])

    @property
    def waiting_reserved(self) -> int:
        """How many wait that may."""
        return len(self._lines[1])

    @property
    def has_place(self) -> bool:
        """Whether one more may wait."""
        return len(self) < self.places

    def join(self, client: Any, source: Source, receipt: Receipt, now: float) -> Waiter:
        """Take the last place. Ask :attr:`has_place` first."""
        self._turn += 1
        waiter = Waiter(client, source, receipt, now, self._turn)
        self._lines[waiter.reserved][waiter.turn] = waiter
        return waiter

    def remove(self, waiter: Waiter) -> bool:
        """Take one out. False if it doesn't wait any more."""
        return self._lines[waiter.reserved].pop(waiter.turn, None) is not None

    def next(self, *, open_to_all: bool, open_to_reserved: bool) -> Waiter | None:
        """Take out the one whose turn it is, among those that a slot is open to."""
        heads = [
            next(reversed(line) if self.lifo else iter(line))
            for line, is_open in zip(self._lines, (open_to_all, open_to_reserved), strict=True)
            if is_open and line
        ]
        if not heads:
            return None
        turn = max(heads) if self.lifo else min(heads)
        line = self._lines[0] if turn in self._lines[0] else self._lines[1]
        return line.pop(turn)

    def first(self) -> Waiter | None:
        """The one that has waited longest, and stays."""
        heads = [line[next(iter(line))] for line in self._lines if line]
        return min(heads, key=lambda waiter: waiter.turn, default=None)

    def everybody(self) -> list[Waiter]:
        """All that wait."""
        return [waiter for line in self._lines for waiter in line.values()]

    def deadline(self) -> float | None:
        """When the next one has waited long enough, in seconds; None: nobody waits."""
        first = self.first()
        return None if first is None else first.arrived + self.wait
