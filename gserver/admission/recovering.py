"""A bounded table of sources, each with the moment until which it must be remembered."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["Recovering"]

#: Each :meth:`Recovering.put` of a new source removes up to this many that have recovered: more
#: than one, so that the table shrinks while it is used, and few, so that no call takes long.
_FORGOTTEN_PER_PUT: Final = 2


class Recovering:
    """Maps a source to a moment; from then on it is as good as not in the table.

    Such *recovered* entries go first, and nobody else ever goes: when the table is full of
    sources that have not recovered, a new one is not taken in. So a flood of distinct sources
    pushes out nobody whom a rule holds back.

    Every call takes constant time (but for a heap of the slots' numbers, at most as long as twice
    the entries): entries are filed by the time slot in which they recover, so that one from a slot
    that is over is found without a search. A slot is ``width`` seconds, and an entry may stay that
    much longer than it must.

    About 160 bytes an entry (``bench/rules_cost.py``).

    :param bound: the most entries.
    :param width: seconds, more than 0; a few dozen of them should span the time that a source
        takes to recover.
    """

    __slots__ = ("_bound", "_order", "_slots", "_until", "_width", "until")

    def __init__(self, bound: int, width: float) -> None:
        self._bound = bound
        self._width = width
        self._until: dict[str, float] = {}
        self._slots: dict[int, set[str]] = {}
        self._order: list[int] = []  # a heap with every slot's number, and numbers of gone slots
        #: The moment filed for a source, or None. (The dict's own method: asked on every attempt.)
        self.until = self._until.get

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, source: str) -> bool:
        return source in self._until

    def put(self, source: str, until: float, now: float) -> bool:
        """File a source, or file it anew.

        :param until: seconds, on the clock of ``now``.
        :return: False if the table is full of others that have not recovered, and the source
            was not in it: it is not taken in.
        """
        old = self._until.get(source)
        if old is None:
            return self.add(source, until, now)
        old_number, number = int(old / self._width), int(until / self._width)
        if old_number != number:
            slot = self._slots[old_number]
            slot.discard(source)
            if not slot:
                del self._slots[old_number]
            self._file(source, number)
        self._until[source] = until
        return True

    def add(self, source: str, until: float, now: float) -> bool:
        """:meth:`put` one that is not in the table."""
        width, order = self._width, self._order
        if order and order[0] < (current := int(now / width)):
            self._forget_recovered(current)
        if len(self._until) >= self._bound:
            return False
        self._until[source] = until
        number = int(until / width)
        slot = self._slots.get(number)  # as _file() does: on the path of rejections
        if slot is not None:
            slot.add(source)
        else:
            self._file(source, number)
        return True

    def _file(self, source: str, number: int) -> None:
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = {source}
            self._note(number)
        else:
            slot.add(source)

    def _note(self, number: int) -> None:
        order = self._order
        if len(order) > 2 * len(self._slots):
            # Mostly numbers of slots that are gone: paid for by as many calls since last time.
            order[:] = self._slots
            heapify(order)
        else:
            heappush(order, number)

    def _forget_recovered(self, current: int) -> None:
        """Forget up to a few entries of slots before the current one: those are over."""
        order, slots = self._order, self._slots
        left = _FORGOTTEN_PER_PUT
        while left and order and order[0] < current:
            slot = slots.get(order[0])
            if slot is None:
                heappop(order)
                continue
            del self._until[slot.pop()]
            if not slot:
                del slots[heappop(order)]
            left -= 1
