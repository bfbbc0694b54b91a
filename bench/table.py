"""A comparison as text: one table an experiment and cap. Pure: a result in, lines out."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Sequence

from bench import stats
from bench.results import Figure, Group, Result, Series

__all__ = ["EXPLANATION", "MIN_BLOCKS", "comparison", "group_rows", "partners", "render"]

#: Blocks that a ratio needs on both sides.
MIN_BLOCKS = 6

EXPLANATION = (
    "Figures are medians over the blocks. Ratio: to the first server of the group (the same "
    "policy, or all), with its 95 % bootstrap interval over paired blocks; ~: not resolved, "
    "inside the A/A band of that first server against itself, or of fewer than "
    f"{MIN_BLOCKS} blocks."
)


def render(result: Result) -> str:
    """Return all tables, what is missing, and how to read the ratios."""
    parts = [table(group, result) for group in result.groups]
    if result.missing:
        parts.append(
            "Not measured, because not installed:\n"
            + "\n".join(f"  {name}: {why}" for name, why in result.missing.items())
        )
    parts.append("\n".join(textwrap.wrap(EXPLANATION, 100)))
    if result.partial:
        parts.append(f"PARTIAL: {result.partial}")
    return "\n\n".join(parts)


def table(group: Group, result: Result) -> str:
    """Return one table with its title."""
    rows = list(group_rows(group, result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        name, *cells = row
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    blocks = max((len(series.blocks) for series in group.series), default=0)
    notes = [f"  {series.label}: {note}" for series in group.series for note in series.notes]
    return "\n".join([f"{group.title}, cap {group.cap}, {blocks} blocks", *lines, *notes])


def group_rows(group: Group, result: Result) -> Iterator[list[str]]:
    """Yield the header, then a row for each server: name, policy, and its figures as text."""
    header = ["server", "policy"]
    for figure in group.figures:
        header.append(f"{figure.heading} ({figure.unit})" if figure.unit else figure.heading)
        if figure.compared:
            header.append("ratio")
    yield header
    for series in group.series:
        row = [series.label, result.peers[series.peer].policy]
        for figure in group.figures:
            row.append(median(series, figure))
            if figure.compared:
                row.append(ratio(series, figure, group, result))
        yield row


def median(series: Series, figure: Figure) -> str:
    """Return the median over the blocks that gave one, or a dash."""
    values = [value for value in series.values(figure.key) if value is not None]
    return number(statistics.median(values)) if values else "-"


def number(value: float) -> str:
    """Return ``value`` with the digits that mean something."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(series: Series, figure: Figure, group: Group, result: Result) -> str:
    """Return the ratio to the group's reference, ``~`` unresolved, ``1`` for itself."""
    reference, twin = partners([row for row in group.series if row.group == series.group])
    if series is reference:
        return "1"
    found = comparison(series, reference, twin, figure, result.seed)
    if found is None:
        return "~"
    interval = f"[{found.interval.low:.2f}, {found.interval.high:.2f}]"
    if series is twin:
        return f"A/A {interval}"
    return f"{found.ratio:.2f} {interval}" if found.resolved else f"~ {interval}"


def partners(members: Sequence[Series]) -> tuple[Series, Series]:
    """Return the reference of a group, and its twin."""
    reference = next(series for series in members if not series.twin)
    return reference, next(series for series in members if series.twin)


def comparison(
    series: Series, reference: Series, twin: Series, figure: Figure, seed: int
) -> stats.Comparison | None:
    """Compare over the blocks where all three have the figure; None with too few of them."""
    together = zip(
        series.values(figure.key),
        reference.values(figure.key),
        twin.values(figure.key),
        strict=False,  # a partial run ends inside a block
    )
    whole = [(mine, base, again) for mine, base, again in together if mine and base and again]
    if len(whole) < MIN_BLOCKS:
        return None
    mine, base, again = zip(*whole, strict=True)
    return stats.compare(mine, base, again, seed=seed)
