"""A comparison as text: the overview, and a table an experiment and cap. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bench import stats
from bench.overview import AGAIN, Overview, overview, sees
from bench.ratios import comparison, partners
from bench.results import Figure, Group, Result, Series, number

__all__ = ["EXPLANATION", "UNRESOLVED", "group_rows", "legend", "remarks", "render"]

EXPLANATION = (
    "Latencies, CPU and memory are medians over the rounds; counts are sums or the worst round. "
    "Ratio: to the first server of the group (the same policy, or all), with the interval of the "
    f"paired rounds: 95 % by bootstrap, below {stats.BOOTSTRAP_BLOCKS} rounds the smallest and the "
    "largest. A/A: that first server against itself."
)

#: What stands below a table that has the mark.
UNRESOLVED = (
    f"~: not resolved, for it is inside the A/A band, or of fewer than {stats.MIN_BLOCKS} rounds"
)

#: Instead of a ratio.
UNCOMPARED = "not compared"
NO_TWIN = f"{UNCOMPARED}: of this group nobody ran twice, so there is no A/A band"


def render(result: Result, *, details: bool = False) -> str:
    """Return the overview, what is missing or failed, and with ``details`` every table."""
    found = overview(result)
    parts = [overview_table(found, result)]
    if details:
        parts += [table(group, result) for group in result.groups]
        parts.append(wrapped(EXPLANATION))
    if result.missing:
        parts.append(
            "Not measured, because not installed:\n"
            + "\n".join(f"  {name}: {why}" for name, why in result.missing.items())
        )
    if gaps := result.gaps():
        parts.append("MISSING BLOCKS:\n" + "\n".join(f"  {gap}" for gap in gaps))
    if result.partial:
        parts.append(f"PARTIAL: {result.partial}")
    return "\n\n".join(parts)


def overview_table(found: Overview, result: Result) -> str:
    """Return the one table that has everybody and every headline."""
    rows = [["server", "client sees", *(column.heading for column in found.columns)]]
    for row in found.rows:
        cells = (cell.text for cell in row.cells)
        rows.append([row.peer + row.mark, sees(row.peer, result), *cells])
        if row.again:
            rows.append([f"  {AGAIN}", "", *row.again])
    caps = " / ".join(f"{cap:,}" for cap in found.caps)
    about = [f"Caps {caps}. {found.reading}" if found.caps else found.reading]
    about += [f"{column.heading}: {column.about}" for column in found.columns]
    notes = [f"[{number}] {text}" for number, text in enumerate(found.notes, 1)]
    notes += [found.late] * bool(found.late)
    return "\n".join([*aligned(rows), "", *map(wrapped, about + notes)])


def wrapped(text: str) -> str:
    """Return ``text`` in lines of at most 100."""
    return "\n".join(textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the columns one under the other, and a rule below the first line.

    The first two columns are words.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def table(group: Group, result: Result) -> str:
    """Return one experiment's table with its title and remarks."""
    rounds = f"{group.rounds} round{'s' * (group.rounds != 1)}"
    title = f"{group.title}, cap {group.cap}, {rounds}"
    rows = list(group_rows(group, result))
    notes = [f"  {text}" for text in legend(rows)]
    notes += [f"  [{mark}] {text}" for mark, text in remarks(group)]
    return "\n".join([title, *aligned(rows), *notes])


def legend(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return what the marks in a table mean that are in it."""
    cells = [cell for row in rows for cell in row]
    found = [UNRESOLVED] if any(cell.startswith("~") for cell in cells) else []
    return found + [NO_TWIN] * (UNCOMPARED in cells)


def remarks(group: Group) -> list[tuple[int, str]]:
    """Return what must be known of a table's rows, by the mark that stands behind their names."""
    found: list[tuple[int, str]] = []
    for series in group.series:
        if texts := series.remarks():
            found.append((len(found) + 1, f"{series.label}: {'; '.join(texts)}"))
    return found


def group_rows(group: Group, result: Result) -> Iterator[list[str]]:
    """Yield the header, then a row for each server: name and mark, policy, figures as text."""
    header = ["server", "client sees"]
    for figure in group.figures:
        header.append(figure.title)
        if figure.compared:
            header.append("ratio")
    yield header
    marks = 0
    for series in group.series:
        name = series.label
        if series.remarks():
            marks += 1
            name += f" [{marks}]"
        row = [name, sees(series.peer, result)]
        for figure in group.figures:
            value = figure.of(series.values(figure.key))
            row.append("-" if value is None else number(value))
            if figure.compared:
                row.append("-" if value is None else ratio(series, figure, group, result))
        yield row


def ratio(series: Series, figure: Figure, group: Group, result: Result) -> str:
    """Return the ratio to the group's reference, ``~`` unresolved, ``1`` for itself; none without
    an A/A band."""
    reference, twin = partners([row for row in group.series if row.group == series.group])
    if series is reference:
        return "1"
    if twin is None:
        return UNCOMPARED
    found = comparison(series, figure, group, result.seed)
    if found is None:
        return "~"
    interval = f"[{found.interval.low:.2f}, {found.interval.high:.2f}]"
    if series.twin:
        return f"A/A {interval}"
    return f"{found.ratio:.2f} {interval}" if found.resolved else f"~ {interval}"
