"""Settings in the words of the command line: ``per_source`` is ``--per-source`` there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar

import click

from gserver.admission.limits import Limits
from gserver.admission.verdict import Reason
from gserver.errors import SettingError

__all__ = ["Number", "flag", "in_flags"]

N = TypeVar("N", int, float)

#: The names among them that are no ordinary words, nor a reason's, which is written as it is.
_NAMES: Final = re.compile(
    r"\b(evict_idle|"
    + "|".join(f.name for f in fields(Limits) if "_" in f.name and f.name not in set(Reason))
    + r")\b"
)


def flag(setting: str) -> str:
    """The flag for a setting of the library; what is a flag already stays as it is."""
    return setting if setting.startswith("--") else "--" + setting.replace("_", "-")


@contextlib.contextmanager
def in_flags() -> Iterator[None]:
    """Within it, errors about the library's settings name flags instead."""
    try:
        yield
    except SettingError as error:
        given = " ".join(error.given) if isinstance(error.given, tuple) else error.given
        problem = _NAMES.sub(lambda found: flag(found[0]), error.problem)
        raise SettingError(flag(error.setting), given, problem) from None


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
            setting = param.opts[0] if param is not None else "value"
            raise SettingError(setting, value, f"must be {what}") from None
