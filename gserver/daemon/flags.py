"""Settings in the words of the command line: ``per_source`` is ``--per-source`` there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

import click

from gserver.admission.limits import Limits
from gserver.admission.verdict import Reason
from gserver.errors import SettingError
from gserver.timeouts import A_YEAR_S, check_seconds

__all__ = ["Count", "Number", "Seconds", "Time", "flag", "in_flags", "variable"]

N = TypeVar("N", int, float)

_MOST: Final = 2**31 - 1

_SETTINGS: Final = {"settle", "evict_idle", *(field.name for field in fields(Limits))}


def _any_of(names: Iterable[str]) -> str:
    return rf"\b(?:{'|'.join(sorted(names))})\b"


#: Those that are no ordinary words, nor a reason's, which is written as it is.
_NAMES: Final = re.compile(_any_of(n for n in _SETTINGS if "_" in n and n not in set(Reason)))
#: Where any of them is meant as a setting (see ``SettingError``): not in "who cannot wait".
_NAME: Final = _any_of(_SETTINGS)
_MEANT: Final = re.compile(rf"(?:needs|goes without|at least) {_NAME}(?:(?:, | or ){_NAME})*")


def flag(setting: str) -> str:
    """The flag for a setting of the library; what is a flag already stays as it is."""
    return setting if setting.startswith("--") else "--" + re.sub("[_ ]", "-", setting)


def variable(prefix: str, option: str) -> str:
    """The environment variable for an option: ``--per-source`` is ``PREFIX_PER_SOURCE``."""
    return f"{prefix}_{option.removeprefix('--').replace('-', '_').upper()}"


@contextlib.contextmanager
def in_flags() -> Iterator[None]:
    """Within it, errors about the library's settings name flags instead."""
    try:
        yield
    except SettingError as error:
        given = " ".join(error.given) if isinstance(error.given, tuple) else error.given
        raise SettingError(flag(error.setting), given, _in_flags(error.problem)) from None


def _in_flags(problem: str) -> str:
    def with_flags(found: re.Match[str]) -> str:
        return re.sub(_NAME, lambda name: flag(name[0]), found[0])

    # Flags have hyphens: what the first has replaced, the second no longer finds.
    return _NAMES.sub(lambda name: flag(name[0]), _MEANT.sub(with_flags, problem))


class Number(click.ParamType[N], Generic[N]):
    """A number of a kind. Which values of it can be used is not said here, but by the setting.

    :param kind: int or float.
    :param name: what the help shows for it.
    """

    def __init__(self, kind: type[N], name: str) -> None:
        self._kind: Callable[[Any], N] = kind
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> N:
        try:
            return self._kind(value)
        except ValueError:
            what = "a whole number" if self._kind is int else "a number"
            raise SettingError(_name(param), value, f"must be {what}") from None


class Count(click.ParamType[int]):
    """A whole number, 1 to ``most``: by default what a C int holds, for listen(2) takes no more."""

    name = "N"

    def __init__(self, most: int = _MOST) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        digits = str(value)
        # int() alone would also read "1_0" and other alphabets' digits.
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else 0
        if not 1 <= number <= self._most:
            raise SettingError(_name(param), value, f"must be a whole number, 1 to {self._most:,}")
        return number


class Seconds(click.ParamType[float]):
    """Seconds, 0 to a year: a timer takes no number without a bound."""

    name = "SECONDS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= A_YEAR_S:
            raise SettingError(
                _name(param), value, f"must be a number of seconds, 0 to {A_YEAR_S:,.0f} (a year)"
            )
        return number


class Time(click.ParamType[float]):
    """Seconds, above 0 and up to ``most``."""

    name = "SECONDS"

    def __init__(self, most: float = A_YEAR_S) -> None:
        self._most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        setting = _name(param)
        try:
            number: object = float(value)
        except ValueError:
            number = value
        try:
            return check_seconds(number, setting, self._most)
        except SettingError as error:
            raise SettingError(setting, value, error.problem) from None


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if param is not None else "value"
