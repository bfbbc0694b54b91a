"""How many slots each source holds."""

from __future__ import annotations

from gserver.admission.verdict import Receipt

__all__ = ["SourceCounts"]


class SourceCounts:
    """Counts by source; an entry goes when its count is zero.

    So there are never more entries than clients that hold a slot or a place to wait: the table's
    bound is the cap plus the places to wait, and at the bound it is those that turn clients away.

    It outlives the rules: a client counted under old ones is given back under new ones.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        """How many sources hold something."""
        return len(self._held)

    def of(self, source: str) -> int:
        """How much the source holds."""
        return self._held.get(source, 0)

    def take(self, source: str) -> Receipt:
        """Count one more for the source, to be handed to :meth:`give_back`."""
        self._held[source] = self._held.get(source, 0) + 1
        return Receipt(source)

    def give_back(self, receipt: Receipt) -> None:
        """Count one less. The second time with the same receipt does nothing."""
        source = receipt.counted_as
        if source is None:
            return
        receipt.counted_as = None
        left = self._held[source] - 1
        if left:
            self._held[source] = left
        else:
            del self._held[source]

    def top(self, n: int) -> list[tuple[str, int]]:
        """The ``n`` sources that hold most, most first: for a log line or a page."""
        return sorted(self._held.items(), key=lambda item: (-item[1], item[0]))[:n]
