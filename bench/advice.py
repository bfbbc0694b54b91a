"""What the probe says of a run, without its advice to use options that a command here lacks."""

from __future__ import annotations

import re
from collections.abc import Collection

__all__ = ["fitting"]

_OPTION = re.compile(r"--[a-z][a-z-]*")


def fitting(text: str, options: Collection[str] = ()) -> str:
    """Return ``text`` without the clauses, divided by semicolons, that name an option not among
    ``options`` (with their dashes): the first clause is the fact, and stays."""
    fact, *clauses = text.split("; ")
    kept = [clause for clause in clauses if set(_OPTION.findall(clause)) <= set(options)]
    return "; ".join([fact, *kept])
