"""Percentiles over raw samples, and which of them may be printed. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "QUANTILES",
    "RESAMPLES",
    "Summary",
    "bootstrap_interval",
    "most_at_once",
    "quantile",
    "summarise",
]

#: What tables show, by the name that thresholds use.
QUANTILES: Final = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p999": 0.999}

#: Samples that must lie beyond a percentile for it to be a figure and not an anecdote.
MIN_BEYOND: Final = 10


@dataclass(frozen=True, slots=True)
class Summary:
    """Latencies of one kind, in seconds.

    :param percentiles: by name; one with fewer than ten samples beyond it is not there.
    """

    count: int
    percentiles: dict[str, float]
    max: float

    def flat(self, prefix: str) -> dict[str, float]:
        """``{prefix.p50: …, prefix.max: …, prefix.count: …}``."""
        figures = {f"{prefix}.{name}": value for name, value in self.percentiles.items()}
        figures[f"{prefix}.count"] = self.count
        if self.count:
            figures[f"{prefix}.max"] = self.max
        return figures


def quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest sample that at least *share* of *ordered* (sorted, not empty) do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(samples_ns: Sequence[int]) -> Summary:
    """Summarise nanoseconds."""
    ordered = sorted(samples_ns)
    count = len(ordered)
    # 1e-9: 0.1 % of 10,000 is ten samples, whatever binary fractions make of it.
    shown = {
        name: quantile(ordered, share) / 1e9
        for name, share in QUANTILES.items()
        if count * (1 - share) + 1e-9 >= MIN_BEYOND
    }
    return Summary(count, shown, ordered[-1] / 1e9 if ordered else 0.0)


def most_at_once(intervals: Sequence[tuple[int, int]]) -> int:
    """How many of the (begin, end) intervals overlap at most; one that ends makes room first."""
    changes = sorted([(begin, 1) for begin, _ in intervals] + [(end, -1) for _, end in intervals])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


#: Of the bootstrap: the ends of a 95 % interval then move by below 1 % between seeds.
RESAMPLES = 4000


def bootstrap_interval(
    values: Sequence[float], *, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the geometric mean of *values* (ratios, above 0).

    :param seed: makes the interval repeatable.
    """
    logs = [math.log(value) for value in values]
    draw = random.Random(seed)
    means = sorted(math.fsum(draw.choices(logs, k=len(logs))) / len(logs) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - confidence) / 2)
    return math.exp(means[cut]), math.exp(means[-1 - cut])
