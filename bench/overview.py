"""A comparison in one table: every server in a row, every headline figure in a column. Pure.

A cell has the figure at each cap. Where a server does better than ours whose clients see the same,
it is marked: by more than the A/A band where ratios are made, in every round where counts are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.ratios import comparison, partners
from bench.results import (
    Figure,
    Group,
    Result,
    Series,
    number,
    numbers_in,
    without_numbers,
)

__all__ = ["AHEAD", "COLUMNS", "OURS", "Ahead", "Cell", "Column", "Overview", "Row", "overview"]

#: Stands behind a figure that is better than ours.
AHEAD = "*"

#: Decimals to which counts are compared. Of a server that leaves a TIME_WAIT for each rejection a
#: few of 2,000 are not found: whose port was given to another client (``SOURCES`` of the storm).
DIGITS = 2

#: How our own rows' names begin.
OURS = "gserver-"


@dataclass(frozen=True, slots=True)
class Column:
    """A headline: a figure of an experiment. Less is better in all of them.

    ``about`` is a clause that follows the heading and a colon. ``counted``: compared by its
    counts; ``log``: plotted on a logarithmic axis.
    """

    experiment: str
    key: str
    heading: str
    about: str
    counted: bool = False
    log: bool = False


FLOODED = "the p99 of the admitted while 4,000 a second are turned away here, over elsewhere"

COLUMNS = (
    Column("storm", "p50", "told p50", "µs from connect to verdict, 2,000 a second", log=True),
    Column("storm", "p99", "p99", "the same, of 100 clients the slowest", log=True),
    Column("storm", "cpu", "CPU", "server's µs a rejection, 2,000 a second"),
    Column("flood", "cpu", "CPU flood", "the same, 8,000 a second"),
    Column("storm", "time_wait", "TIME_WAIT", "left on the server by each rejection", counted=True),
    Column("storm", "unanswered", "silent %", "clients who were told nothing", counted=True),
    Column(
        "churn", "false", "false", "rejections, of {tries} who closed and came back", counted=True
    ),
    Column("burst", "unanswered", "unanswered", "in 4 s, of 500 at once, cap 3", counted=True),
    Column("isolation", "p99", "echo p99 x", FLOODED, log=True),
    Column("memory", "pss", "KiB", "of the server's memory a held connection", log=True),
)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A figure that is better than ours: ``ratio`` to it, None where counts are compared."""

    peer: str
    column: Column
    cap: int
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One server's headline: ``values`` by cap, and what is printed."""

    values: dict[int, float | None]
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One server. ``notes``: the numbers of those that are about it, from 1."""

    peer: str
    cells: list[Cell]
    notes: list[int] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """What stands behind its name."""
        return f" [{', '.join(map(str, self.notes))}]" if self.notes else ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The table. ``caps`` are those that the cells with more than one figure have, in order."""

    columns: list[Column]
    caps: list[int]
    rows: list[Row]
    notes: list[str]
    ahead: list[Ahead]

    @property
    def reading(self) -> str:
        """How to read a mark and an empty cell."""
        return (
            f"{AHEAD} better than gserver's row whose clients see the same (memory: than any), "
            "by more than a server differs from itself; - no such figure."
        )


def overview(result: Result) -> Overview:
    """Return the table of those columns that ``result`` has figures for."""
    groups: dict[str, list[Group]] = {}
    for group in result.groups:
        groups.setdefault(group.experiment, []).append(group)
    columns = [column for column in COLUMNS if column.experiment in groups]
    caps = max(([group.cap for group in mine] for mine in groups.values()), key=len, default=[])
    rows: list[Row] = []
    ahead: list[Ahead] = []
    for peer in result.peers:
        cells = []
        for column in columns:
            mine = better(peer, column, groups[column.experiment], result.seed)
            ahead += mine
            cells.append(cell(peer, column, groups[column.experiment], mine))
        if all(not cell.values for cell in cells):
            continue
        rows.append(Row(peer, cells))
    return Overview(named(columns, groups), caps, rows, noted(rows, result.groups), ahead)


def named(columns: Sequence[Column], groups: Mapping[str, Sequence[Group]]) -> list[Column]:
    """Return the columns with the number of tries that were made in what they say of it."""
    series = [row for group in groups.get("churn", ()) for row in group.series]
    tries = max((sum(present(row.values("tries"))) for row in series), default=0)
    return [replace(each, about=each.about.format(tries=number(tries))) for each in columns]


#: The part of a run that a remark of the isolation begins with.
PHASE = re.compile(r"^(control|flood)(, victims)?: ")


@dataclass(slots=True)
class Remark:
    """Remarks that differ in their numbers alone: how many blocks of which servers have one."""

    texts: list[str] = field(default_factory=list)
    blocks: dict[str, int] = field(default_factory=dict)
    experiments: dict[str, None] = field(default_factory=dict)

    def text(self, of: Mapping[str, int]) -> str:
        """Return one line: in the words of the worst, and in how many of each one's blocks."""
        worst = max(self.texts, key=numbers_in)
        where = ", ".join(f"{peer} {count}/{of[peer]}" for peer, count in self.blocks.items())
        most = ", at worst" if len(set(self.texts)) > 1 else ""
        return f"{worst}{most} ({', '.join(self.experiments)}; blocks: {where})"


def noted(rows: Sequence[Row], groups: Sequence[Group]) -> list[str]:
    """Return what must be known of the figures, each once whomever it is about, and give the
    ``rows`` the numbers of theirs."""
    found: dict[str, Remark] = {}
    total: dict[str, int] = {}
    mine = {row.peer: row for row in rows}
    for group in groups:
        for series in (series for series in group.series if series.peer in mine):
            peer = series.peer
            total[peer] = total.get(peer, 0) + len(series.blocks)
            for block in series.blocks:
                kinds: dict[str, list[str]] = {}
                for text in (PHASE.sub("", text) for text in block.remarks()):
                    kinds.setdefault(without_numbers(text), []).append(text)
                for kind, texts in kinds.items():
                    remark = found.setdefault(kind, Remark())
                    remark.texts += texts
                    remark.blocks[peer] = remark.blocks.get(peer, 0) + 1
                    remark.experiments[group.experiment] = None
    notes = []
    for index, remark in enumerate(found.values(), 1):
        notes.append(remark.text(total))
        for peer in remark.blocks:
            mine[peer].notes.append(index)
    return notes


def cell(peer: str, column: Column, groups: Sequence[Group], ahead: Sequence[Ahead]) -> Cell:
    """Return one server's figures of a column."""
    values: dict[int, float | None] = {}
    for group in groups:
        series = row_of(peer, group)
        if series is not None:
            values[group.cap] = figure(column, group).of(series.values(column.key))
    if all(value is None for value in values.values()):
        return Cell({}, "-")
    better_at = {mark.cap for mark in ahead}
    texts = [
        ("-" if value is None else number(value)) + AHEAD * (cap in better_at)
        for cap, value in values.items()
    ]
    return Cell(values, " / ".join(texts))


def better(peer: str, column: Column, groups: Sequence[Group], seed: int) -> list[Ahead]:
    """Return where ``peer`` does better than ours."""
    found = []
    for group in groups:
        series = row_of(peer, group)
        if series is None:
            continue
        ours, _ = partners([row for row in group.series if row.group == series.group])
        if series is ours or not ours.peer.startswith(OURS) or peer.startswith(OURS):
            continue
        if column.counted:
            theirs = present(series.values(column.key))
            base = present(ours.values(column.key))
            if theirs and base and round(max(theirs), DIGITS) < round(min(base), DIGITS):
                found.append(Ahead(peer, column, group.cap, None))
        elif figure(column, group).compared:
            compared = comparison(series, figure(column, group), group, seed)
            if compared is not None and compared.resolved and compared.ratio < 1.0:
                found.append(Ahead(peer, column, group.cap, compared.ratio))
    return found


def row_of(peer: str, group: Group) -> Series | None:
    """Return the row of ``peer``, not its second run; None when it was not asked."""
    return next((row for row in group.series if row.peer == peer and not row.twin), None)


def figure(column: Column, group: Group) -> Figure:
    """Return the figure that ``column`` shows."""
    return next(figure for figure in group.figures if figure.key == column.key)


def present(values: Sequence[float | None]) -> list[float]:
    """Return ``values`` without the rounds that gave none."""
    return [value for value in values if value is not None]
