"""Raw records: one row an attempt, in preallocated arrays, written from the hot path."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from gserver.probe.attempt import Attempt
from gserver.probe.outcomes import CODE_OF, OUTCOMES, Outcome

__all__ = ["Records"]

_COLUMNS = ("intended", "started", "finished", "outcome", "source")


class Records:
    """Attempts by index: three times (monotonic nanoseconds, int64), the outcome's code, and our
    end (``Attempt.source``).

    :param capacity: attempts at most; a row whose ``finished`` is 0 has no outcome.
    """

    __slots__ = _COLUMNS

    def __init__(self, capacity: int = 0) -> None:
        zeros = bytes(8 * capacity)
        self.intended = array("q", zeros)
        self.started = array("q", zeros)
        self.finished = array("q", zeros)
        self.outcome = array("q", zeros)
        self.source = array("q", zeros)

    def add(self, attempt: Attempt) -> None:
        """Write the row of *attempt*, which has an outcome."""
        index = attempt.index
        self.intended[index] = attempt.intended
        self.started[index] = attempt.started
        self.finished[index] = attempt.finished
        self.outcome[index] = CODE_OF[attempt.outcome]  # type: ignore[index]
        self.source[index] = attempt.source

    def append(self, attempt: Attempt) -> None:
        """Add a row for *attempt*, which has an outcome, after the others."""
        self.intended.append(attempt.intended)
        self.started.append(attempt.started)
        self.finished.append(attempt.finished)
        self.outcome.append(CODE_OF[attempt.outcome])  # type: ignore[index]
        self.source.append(attempt.source)

    def __len__(self) -> int:
        return len(self.finished)

    def rows(self) -> Iterator[tuple[int, int, int, Outcome]]:
        """Intended, started, finished, outcome of every row that has one."""
        for row in zip(self.intended, self.started, self.finished, self.outcome, strict=True):
            if row[2]:
                yield row[0], row[1], row[2], OUTCOMES[row[3]]

    def sources(self) -> Iterator[tuple[int, Outcome, int]]:
        """Finished, outcome and our end of every row that has an outcome."""
        for row in zip(self.finished, self.outcome, self.source, strict=True):
            if row[0]:
                yield row[0], OUTCOMES[row[1]], row[2]

    def extend(self, other: Records) -> None:
        """Append all rows of *other*."""
        for name in _COLUMNS:
            getattr(self, name).extend(getattr(other, name))

    def to_bytes(self) -> bytes:
        """All columns, one after the other, in this machine's byte order."""
        return b"".join(getattr(self, name).tobytes() for name in _COLUMNS)

    @classmethod
    def from_bytes(cls, data: bytes) -> Records:
        """The inverse of :meth:`to_bytes`."""
        records = cls()
        size = len(data) // len(_COLUMNS)
        for i, name in enumerate(_COLUMNS):
            getattr(records, name).frombytes(data[i * size : (i + 1) * size])
        return records

    def as_json(self, origin_ns: int) -> dict[str, Any]:
        """Columns, times in nanoseconds since *origin_ns*; rows without an outcome left out."""
        rows = list(self.rows())
        return {
            "unit": "ns since the start",
            "intended": [row[0] - origin_ns for row in rows],
            "started": [row[1] - origin_ns for row in rows],
            "finished": [row[2] - origin_ns for row in rows],
            "outcome": [row[3].value for row in rows],
        }
