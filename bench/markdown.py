"""Words and tables that all of the README's sections have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["loaded", "markdown", "place"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def place(environment: dict[str, Any]) -> str:
    """Say where it was measured."""
    kernel = ".".join(environment["kernel"].split(".")[:2])
    cores = environment.get("cpus", environment.get("cores"))
    return f"Python {environment['python']}, Linux {kernel}, {cores} cores"


def loaded(environment: dict[str, Any]) -> str:
    """Say what else the machine was doing when it began; "" when that was not noted."""
    loads = environment.get("load_average")
    return f", load average {loads[0]:.1f} when it began" if loads else ""
