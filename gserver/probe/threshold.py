"""Thresholds: ``reject.p99<2ms``, ``over_admissions==0``. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gserver.errors import SettingError

__all__ = ["Threshold", "parse_threshold"]

_FORM: Final = re.compile(
    r"\s*([a-z][a-z0-9_.]*)\s*(<=|>=|==|!=|<|>)\s*([0-9]*\.?[0-9]+)\s*(us|µs|ms|s|%)?\s*"
)
_COMPARE: Final = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_UNIT: Final = {None: 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "%": 1e-2}


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition that a run must meet."""

    text: str
    figure: str
    comparison: str
    value: float

    def check(self, figures: Mapping[str, float]) -> bool | None:
        """Whether it is met; None: the run has no such figure, so nobody can say."""
        found = figures.get(self.figure)
        return None if found is None else bool(_COMPARE[self.comparison](found, self.value))


def parse_threshold(text: str) -> Threshold:
    """Read ``FIGURE OP NUMBER[unit]``; units us, ms, s, %; a bare number is seconds or a count.

    :raises SettingError: not of that form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise SettingError(
            "--threshold", text, "write FIGURE OP NUMBER[us|ms|s|%], such as 'reject.p99<2ms'"
        )
    figure, comparison, number, unit = match.groups()
    return Threshold(text, figure, comparison, float(number) * _UNIT[unit])
