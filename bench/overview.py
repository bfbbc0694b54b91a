"""A comparison in one table: every server in a row, every headline figure in a column. Pure.

A cell has the figure at each cap, with no more digits than mean something, or how far its rounds
lie apart. Where a server does better than ours whose clients see the same, it is marked: by more
than the A/A band where ratios are made, in every round where counts are; and where it cannot be
told from ours, too. Ours that have no such peer stand beside those of other kinds, in what does not
depend on the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.headlines import COLUMNS, Column, figure, is_proxy, named, present, row_of, there_is
from bench.notes import lateness, noted
from bench.peers import PEERS
from bench.ratios import comparison, partners
from bench.results import Figure, Group, Result, Series, brief, number
from bench.stats import Comparison

__all__ = [
    "AGAIN",
    "AHEAD",
    "OURS",
    "Ahead",
    "Behind",
    "Cell",
    "Overview",
    "Row",
    "overview",
    "sees",
]

#: Stands behind a figure that is better than ours, and before one that may as well be the same.
AHEAD = "*"
ALIKE = "~"

#: The name of the row that says how far the one above it is from itself.
AGAIN = "again (A/A)"

#: Rounds that lie further apart than that are no figure of two digits: their range is shown.
APART = 2.0

#: Decimals to which counts are compared. Of a server that leaves a TIME_WAIT for each rejection a
#: few of 2,000 are not found: whose port was given to another client (``SOURCES`` of the storm).
DIGITS = 2

#: How our own rows' names begin.
OURS = "gserver-"


@dataclass(frozen=True, slots=True)
class Ahead:
    """A figure that is better than ours: ``ratio`` to it, None where counts are compared."""

    peer: str
    column: Column
    cap: int
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Behind:
    """A figure in which all of ``peers`` are better than ``ours``, though none of their clients
    sees the same: in every round, at every cap."""

    ours: str
    column: Column
    peers: list[str]


@dataclass(frozen=True, slots=True)
class Cell:
    """One server's headline: ``values`` by cap, and what is printed.

    ``spans``: by cap, the rounds' smallest and largest. ``bands``: by cap, the factor by which the
    server may differ from itself; empty where it did not run twice.
    """

    values: dict[int, float | None]
    text: str
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    bands: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One server. ``notes``: the numbers of those that are about it, from 1."""

    peer: str
    cells: list[Cell]
    notes: list[int] = field(default_factory=list)

    @property
    def again(self) -> list[str]:
        """The cells of the row :data:`AGAIN` below it; none when it did not run twice."""
        if not any(cell.bands for cell in self.cells):
            return []
        return [
            " / ".join(f"x{brief(band, 3 if band < APART else 2)}" for band in cell.bands.values())
            or "-"
            for cell in self.cells
        ]

    @property
    def mark(self) -> str:
        """What stands behind its name."""
        return f" [{', '.join(map(str, self.notes))}]" if self.notes else ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The table. ``caps`` are those that the cells with more than one figure have, in order;
    ``rounds``: how many the figures are of, in words. ``late``: what late arrivals add to the p99
    of ours; "" when that is nothing, or not known. ``alone``: whose figures are compared with
    nobody's; "" when all are."""

    columns: list[Column]
    caps: list[int]
    rounds: str
    rows: list[Row]
    notes: list[str]
    late: str
    alone: str
    ahead: list[Ahead]
    behind: list[Behind]

    @property
    def reading(self) -> str:
        """How to read a mark and an empty cell."""
        return (
            f"Medians of the {self.rounds}, where nothing else is said. "
            f"{AHEAD} better than gserver's row whose clients see the same (memory: than any), "
            f"by more than a server differs from itself; {ALIKE} not resolved: it may as well be "
            "that row's; two figures with a dash: the rounds' smallest and largest, where they lie "
            f"more than {APART:g} times apart; {AGAIN}: the factor by which the server above "
            f"differs from itself, run twice a round; - no such figure.{self.alone}"
        )


def overview(result: Result) -> Overview:
    """Return the table of those columns that ``result`` has figures for."""
    groups: dict[str, list[Group]] = {}
    for group in result.groups:
        groups.setdefault(group.experiment, []).append(group)
    columns = [column for column in COLUMNS if there_is(column, groups.get(column.experiment, ()))]
    caps = max(([group.cap for group in mine] for mine in groups.values()), key=len, default=[])
    rows: list[Row] = []
    ahead: list[Ahead] = []
    behind: list[Behind] = []
    for peer in result.peers:
        cells = []
        for column in columns:
            mine = better(peer, column, groups[column.experiment], result.seed)
            ahead += mine
            cells.append(cell(peer, column, groups[column.experiment], mine, result.seed))
            if others := better_of_other_kinds(peer, column, groups[column.experiment]):
                behind.append(Behind(peer, column, others))
        if all(not cell.values for cell in cells):
            continue
        rows.append(Row(peer, cells))
    notes, numbers = noted([row.peer for row in rows], result.groups)
    for row in rows:
        row.notes.extend(numbers.get(row.peer, ()))
    late = lateness(result.groups, [peer for peer in result.peers if peer.startswith(OURS)])
    alone = uncompared(columns, groups)
    columns = named(columns, groups)
    return Overview(columns, caps, result.rounds_text, rows, notes, late, alone, ahead, behind)


def sees(peer: str, result: Result) -> str:
    """Return what a client beyond the cap sees of it, and whether it has to speak first for it."""
    policy = result.peers[peer].policy
    return f"{policy}, asked" if peer in PEERS and PEERS[peer].asked else policy


def cell(
    peer: str, column: Column, groups: Sequence[Group], ahead: Sequence[Ahead], seed: int
) -> Cell:
    """Return one server's figures of a column."""
    better_at = {mark.cap for mark in ahead}
    found = Cell({}, "")
    texts = []
    for group in groups:
        series = row_of(peer, group)
        if series is None:
            continue
        what, cap = figure(column, group), group.cap
        rounds = present(series.values(column.key))
        found.values[cap] = what.of(series.values(column.key))
        text = shown(column, found.values[cap], rounds)
        if rounds and what.over == "median":
            found.spans[cap] = min(rounds), max(rounds)
        if what.compared:
            compared = against(series, what, group, seed)
            if compared is not None and not compared.resolved:
                text = ALIKE + text
            band = itself(series, what, group, seed)
            if band is not None:
                found.bands[cap] = band
        texts.append(text + AHEAD * (cap in better_at))
    if all(value is None for value in found.values.values()):
        return Cell({}, "-")
    return replace(found, text=" / ".join(texts))


def shown(column: Column, value: float | None, rounds: Sequence[float]) -> str:
    """Return a figure with its digits that mean something, or the range of its rounds."""
    if value is None:
        return "-"
    if column.counted:
        return number(round(value, DIGITS))
    low, high = min(rounds), max(rounds)
    if 0 < low * APART < high:
        return f"{brief(low)}-{brief(high)}"
    return brief(value, column.digits)


def against(series: Series, what: Figure, group: Group, seed: int) -> Comparison | None:
    """Compare a row with ours whose clients see the same; None: it is ours, or there is none."""
    ours, _ = partners([row for row in group.series if row.group == series.group])
    if series is ours or not ours.peer.startswith(OURS):
        return None
    return comparison(series, what, group, seed)


def itself(series: Series, what: Figure, group: Group, seed: int) -> float | None:
    """Return the factor by which the first of a group may differ from itself; None: it did not run
    twice."""
    first, twin = partners([row for row in group.series if row.group == series.group])
    if series is not first or twin is None:
        return None
    found = comparison(twin, what, group, seed)
    return None if found is None else found.band.high


def uncompared(columns: Sequence[Column], groups: Mapping[str, Sequence[Group]]) -> str:
    """Say whose figures stand without a mark because gserver has no row to compare them with, and
    whether one of them ran twice; "" when there are none."""
    found: dict[str, None] = {}
    headings: dict[str, None] = {}
    twice = True
    for column in columns:
        for group in groups[column.experiment]:
            if not figure(column, group).compared:
                continue
            for row in group.series:
                members = [each for each in group.series if each.group == row.group]
                first, twin = partners(members)
                if first.peer.startswith(OURS) or not present(row.values(column.key)):
                    continue
                found[row.peer] = headings[column.heading] = None
                twice = twice and twin is not None
    if not found:
        return ""
    return (
        f" Not compared, for gserver has no row whose clients see the same"
        f"{'' if twice else ', and without an A/A'}: "
        f"{', '.join(found)} ({', '.join(headings)})."
    )


def better(peer: str, column: Column, groups: Sequence[Group], seed: int) -> list[Ahead]:
    """Return where ``peer`` does better than ours, of a figure that is all of what it says."""
    found = []
    if column.experiment == "memory" and is_proxy(peer):
        return []
    for group in groups:
        series = row_of(peer, group)
        if series is None:
            continue
        ours, _ = partners([row for row in group.series if row.group == series.group])
        if series is ours or not ours.peer.startswith(OURS) or peer.startswith(OURS):
            continue
        if column.counted:
            if is_better(series, ours, column):
                found.append(Ahead(peer, column, group.cap, None))
        elif figure(column, group).compared:
            compared = against(series, figure(column, group), group, seed)
            if compared is not None and compared.resolved and compared.ratio < 1.0:
                found.append(Ahead(peer, column, group.cap, compared.ratio))
    return found


def better_of_other_kinds(peer: str, column: Column, groups: Sequence[Group]) -> list[str]:
    """Return who does better than ``peer``, one of ours that has no peer whose clients see the
    same: in every round at every cap.

    Of those that turn people away: all of them in what does not depend on how (``any_kind``), else
    those who do it in nearly the same way. Never latency: what is asked for comes late.
    """
    found: list[set[str]] = []
    if not peer.startswith(OURS) or column.key in ("p50", "p99", "last"):
        return []
    for group in groups:
        ours = row_of(peer, group)
        if ours is None:
            continue
        if any(row.group == ours.group and not row.peer.startswith(OURS) for row in group.series):
            return []
        found.append(
            {
                row.peer
                for row in group.series
                if not row.peer.startswith(OURS)
                and row.group not in ("queue", "unlimited")
                and (column.any_kind or kind(row.group) == kind(ours.group))
                and is_better(row, ours, column)
            }
        )
    names = [row.peer for row in groups[0].series]
    return [name for name in dict.fromkeys(names) if found and all(name in at for at in found)]


def kind(group: str) -> str:
    """Return what the clients of a group see, whatever they do for it."""
    return group.partition(",")[0]


def is_better(series: Series, ours: Series, column: Column) -> bool:
    """Whether a row's figure is better than ours in every round, by more than is left to chance."""
    theirs, base = present(series.values(column.key)), present(ours.values(column.key))
    if not theirs or not base:
        return False
    less, than = (max(base), min(theirs)) if column.more else (max(theirs), min(base))
    if not column.counted:
        return less < than
    return round(less, DIGITS) < round(than, DIGITS)
