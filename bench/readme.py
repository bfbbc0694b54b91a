"""``python -m bench readme``: the README's figures and plot, from the JSON in bench/results.

In the README a place for figures is

    <!-- bench NAME -->
    …
    <!-- /bench -->

and everything in between is written by the function of that name in :data:`SECTIONS`. A place
whose results are not there keeps what it has.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.overview import overview
from bench.overview_plot import overview_plot
from bench.processes import ROOT
from bench.readme_costs import capped, costs, rejecting, rules
from bench.readme_sections import compared, refusing
from bench.results import Result

__all__ = ["PLACE", "RESULTS", "SECTIONS", "plot", "readme", "rewritten"]

RESULTS = ROOT / "bench" / "results"
README = ROOT / "README.md"
PLOT = RESULTS / "compare.svg"

COSTS = ("refuse-cost", "reply-cost", "held-memory", "sweep-cost", "legacy-cost", "rules-cost")

#: Place → the results that it needs (all, or for costs any of them), and the text from these.
SECTIONS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], str]]] = {
    "compare": (("compare",), lambda found: compared(Result.from_json(found["compare"]))),
    "refuse": (("compare",), lambda found: refusing(Result.from_json(found["compare"]))),
    "reject-cost": (("reject-cost",), lambda found: rejecting(found["reject-cost"])),
    "reject-cost-rules": (("reject-cost-rules",), lambda found: rules(found["reject-cost-rules"])),
    "legacy-cost": (("legacy-cost",), lambda found: capped(found["legacy-cost"])),
    "costs": (COSTS, costs),
}

PLACE = re.compile(r"(<!-- bench ([a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def load(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the results that are there, by name."""
    return {
        name: json.loads(file.read_text())
        for name in names
        if (file := folder / f"{name}.json").exists()
    }


def rewritten(text: str, folder: Path) -> str:
    """Return the README with what the results in ``folder`` say.

    Raises :class:`ValueError` for a place that nobody writes.
    """

    def place(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in SECTIONS:
            raise ValueError(f"no section of the README is called {name}")
        names, write = SECTIONS[name]
        found = load(folder, names)
        return begin + write(found) + "\n" + end if found else match.group()

    return PLACE.sub(place, text)


def plot(folder: Path) -> str | None:
    """Return the comparison's picture; None without results."""
    found = load(folder, ("compare",))
    if not found:
        return None
    result = Result.from_json(found["compare"])
    return overview_plot(overview(result), result)


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if something would change.")
def readme(check: bool) -> None:
    """Write the README's figures and bench/results/compare.svg from the JSON beside it."""
    wanted = {README: rewritten(README.read_text(), RESULTS)}
    picture = plot(RESULTS)
    if picture is not None:
        wanted[PLOT] = picture
    changed = {
        file: text for file, text in wanted.items() if not file.exists() or file.read_text() != text
    }
    for file, text in changed.items():
        click.echo(f"{file.relative_to(ROOT)} {'differs' if check else 'written'}")
        if not check:
            file.write_text(text)
    if check and changed:
        sys.exit(1)


if __name__ == "__main__":
    readme()
