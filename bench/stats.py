"""The arithmetic of a comparison: pure functions over lists of figures.

A comparison runs every server once a round, each round in the opposite order of the one before
(ABBA: a drift of the machine then favours nobody), and divides each server's figure by the
reference's of the same round. The reference runs twice a round; the ratio of the two is the A/A
band: how far apart the same server is from itself. A difference inside the band is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import geometric_mean
from typing import TypeVar

from gserver.probe.stats import bootstrap_interval

__all__ = [
    "BOOTSTRAP_BLOCKS",
    "MIN_BLOCKS",
    "Comparison",
    "Interval",
    "band",
    "bootstrap",
    "compare",
    "interval",
    "orders",
    "ratios",
]

Subject = TypeVar("Subject")

#: Rounds that a ratio needs, and rounds that can be resampled.
MIN_BLOCKS = 3
BOOTSTRAP_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval of ratios; 1.0 is "no difference"."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a ratio in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """A server's figure over the reference's: ``ratio`` with its interval, and the A/A band.

    ``resolved`` is False where the interval overlaps the band: say "not resolved", no ratio.
    """

    ratio: float
    interval: Interval
    band: Interval

    @property
    def resolved(self) -> bool:
        return not self.interval.overlaps(self.band)


def orders(subjects: Sequence[Subject], blocks: int) -> list[list[Subject]]:
    """Return the order of ``subjects`` for each block: there, back, there, back (ABBA)."""
    forth = list(subjects)
    back = forth[::-1]
    return [list(back if block % 2 else forth) for block in range(blocks)]


def ratios(figures: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Divide block by block. Raises :class:`ValueError` for unequal lengths or a figure of 0."""
    pairs = list(zip(figures, reference, strict=True))
    if any(figure <= 0.0 or base <= 0.0 for figure, base in pairs):
        raise ValueError("a ratio needs figures above 0")
    return [figure / base for figure, base in pairs]


def bootstrap(values: Sequence[float], *, seed: int) -> Interval:
    """Return the percentile bootstrap interval of the geometric mean of ``values``.

    Resampling a handful of blocks is on the narrow side: an interval called 95 % holds the truth
    85 times in 100 with six blocks, 90 with twelve (simulated in tests/test_bench_stats.py). So a
    difference has to clear the A/A band, made the same way, as well as 1. The same ``seed`` gives
    the same interval.
    """
    if not values:
        raise ValueError("no values to resample")
    return _resampled(tuple(values), seed)


@cache
def _resampled(values: tuple[float, ...], seed: int) -> Interval:
    """Each is asked for several times, for table, list and picture; and takes 5 ms."""
    return Interval(*bootstrap_interval(values, seed=seed))


def interval(values: Sequence[float], *, seed: int) -> Interval:
    """Return how far the ratios ``values`` lie apart: their bootstrap interval, or, of fewer than
    :data:`BOOTSTRAP_BLOCKS`, the smallest and the largest.

    Against an A/A band made the same way: of identical servers 1 in 100 comes out as resolved with
    three rounds (simulated in tests/test_bench_stats.py).
    """
    if len(values) >= BOOTSTRAP_BLOCKS:
        return bootstrap(values, seed=seed)
    return Interval(min(values), max(values))


def band(same: Sequence[float], *, seed: int) -> Interval:
    """Return the A/A band from the ratios of a server to itself.

    As wide on either side of 1 as the further end of their interval: which of the two identical
    servers is called the first is chance.
    """
    found = interval(same, seed=seed)
    widest = max(1.0 / found.low, found.high, 1.0)
    return Interval(1.0 / widest, widest)


def compare(
    figures: Sequence[float],
    reference: Sequence[float],
    again: Sequence[float],
    *,
    seed: int,
) -> Comparison:
    """Compare a server with the reference, all given block by block.

    ``again`` are the figures of the reference's second run in each block.
    """
    paired = ratios(figures, reference)
    return Comparison(
        geometric_mean(paired),
        interval(paired, seed=seed),
        band(ratios(again, reference), seed=seed),
    )
