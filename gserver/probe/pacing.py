"""Pacing: when the k-th arrival of an open loop is due. Pure: reads no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gserver.errors import SettingError

__all__ = ["ConstantRate"]

_NS = 1_000_000_000

#: Arrivals whose records are kept: 40 bytes each, and some ten times that while they are judged.
_MOST = 10_000_000


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """Arrivals at equal distances, the first at 0, for a stated time.

    :param rate: arrivals a second, above 0.
    :param duration_s: seconds; arrivals due later than that do not exist.
    :param phase: the share of one distance (0 to 1) by which the first is late, so that several
        processes at a rate each interleave.
    :param setting: the option that *rate* was given by, for the message when it cannot be.
    """

    rate: float
    duration_s: float
    phase: float = 0.0
    setting: str = "--rate"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1e6:
            raise SettingError(
                self.setting, self.rate, "must be above 0 and at most 1000000 a second"
            )
        if not 0 < self.duration_s <= 86_400:
            raise SettingError("--duration", self.duration_s, "must be above 0 and at most a day")
        if self.rate * self.duration_s > _MOST:
            raise SettingError(
                "--duration",
                self.duration_s,
                f"at {self.rate:g} a second these are more than {_MOST} attempts, all of which are "
                f"kept; lower it or {self.setting}",
            )

    @property
    def planned(self) -> int:
        """How many arrivals there are in all."""
        return max(0, math.ceil(self.rate * self.duration_s - self.phase - 1e-9))

    def at(self, k: int) -> int:
        """Nanoseconds from the start to arrival *k* (0 is the first)."""
        return round((k + self.phase) * _NS / self.rate)

    def due(self, elapsed_ns: int) -> int:
        """How many arrivals are due by *elapsed_ns* nanoseconds."""
        if elapsed_ns < 0:
            return 0
        passed = math.floor(elapsed_ns * self.rate / _NS - self.phase + 1e-9) + 1
        return min(self.planned, max(0, passed))
