"""The shape of a comparison's result, to and from JSON. No I/O here, nothing is measured."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "Block",
    "Figure",
    "Group",
    "Origin",
    "PeerInfo",
    "Result",
    "Series",
    "brief",
    "merged",
    "number",
    "numbers_in",
    "without_numbers",
]

#: Counts up with every change that an older reader would misread.
FORMAT = 2

_OVER: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "sum": math.fsum,
    "max": max,
}

_NUMBER = re.compile(r"[0-9][0-9.,]*")


@dataclass(frozen=True, slots=True)
class Figure:
    """One column: what was measured.

    ``unit`` is ``us``, ``KiB``, ``x`` (a ratio), ``%``, or "" for a count. ``over`` says what
    becomes of the rounds: their ``median``, ``sum``, or ``max``. ``compared``: whether ratios
    within a group are printed. ``plotted``: whether it has a plot.
    """

    key: str
    heading: str
    unit: str = ""
    over: str = "median"
    compared: bool = False
    plotted: bool = False

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def of(self, values: Sequence[float | None]) -> float | None:
        """Return the one figure for a row, of its rounds; None when none of them gave any."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return _OVER[self.over](there)


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What was known of a peer when it was measured. ``backlog``: its listener's, by the kernel."""

    name: str
    title: str
    policy: str
    counts: str
    version: str
    backlog: int


@dataclass(slots=True)
class Block:
    """One server in one round.

    ``warnings`` qualify the figures. ``failed`` says why there are none: the server failed, or
    the client was at fault; "" when there are, and where the server was not asked.
    """

    figures: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: str = ""

    def remarks(self) -> list[str]:
        """Return what a reader must know of it."""
        return [f"no figures: {self.failed}"] * bool(self.failed) + self.warnings


@dataclass(slots=True)
class Series:
    """One row: a server's blocks, round by round.

    ``group``: those that may be compared, the first of them its reference. ``twin``: the second
    run of the reference in each round, for the A/A band.
    """

    peer: str
    group: str
    twin: bool
    blocks: list[Block] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.peer} (A/A)" if self.twin else self.peer

    def values(self, key: str) -> list[float | None]:
        """Return one figure, round by round; None where a round gave none."""
        return [block.figures.get(key) for block in self.blocks]

    def remarks(self) -> list[str]:
        """Return what a reader must know of this row: each once, with the rounds it is about.

        Remarks that differ in their numbers alone count as one, in the words of the first.
        """
        found: dict[str, tuple[str, list[str]]] = {}
        for number, block in enumerate(self.blocks, 1):
            for text in block.remarks():
                _, rounds = found.setdefault(without_numbers(text), (text, []))
                rounds.append(str(number))
        return [
            f"round{'s' * (len(rounds) > 1)} {', '.join(rounds)}: {text}"
            for text, rounds in found.values()
        ]


@dataclass(slots=True)
class Group:
    """One table: an experiment at one cap."""

    experiment: str
    title: str
    cap: int
    figures: list[Figure]
    series: list[Series]

    @property
    def rounds(self) -> int:
        """The blocks of the server that has most."""
        return max((len(series.blocks) for series in self.series), default=0)


@dataclass(frozen=True, slots=True)
class Origin:
    """One of the runs that a result is of: where and when it was made, its rounds, and of which
    experiments."""

    environment: dict[str, Any]
    seed: int
    rounds: int
    experiments: list[str]


@dataclass(slots=True)
class Result:
    """A whole comparison.

    ``missing``: who is not installed, and what to do about it. ``failed``: who was asked to start
    and didn't. ``partial`` says why it is not complete; "" when it is. ``joined``: the runs that
    it was put together from, the first of which ``environment`` and ``seed`` are of; empty: one.
    """

    environment: dict[str, Any]
    seed: int
    peers: dict[str, PeerInfo]
    missing: dict[str, str]
    groups: list[Group]
    failed: dict[str, str] = field(default_factory=dict)
    partial: str = ""
    joined: list[Origin] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """The rounds of the experiment that has most."""
        return max((group.rounds for group in self.groups), default=0)

    @property
    def rounds_text(self) -> str:
        """The same in words, where some experiments have fewer."""
        fewest = min((group.rounds for group in self.groups), default=0)
        rounds = f"{self.rounds} round{'s' * (self.rounds != 1)}"
        return rounds if fewest == self.rounds else f"{fewest} to {rounds}"

    @property
    def origins(self) -> list[Origin]:
        """The runs that it is of, in their order; its own when there was but one."""
        names = list(dict.fromkeys(group.experiment for group in self.groups))
        return self.joined or [Origin(self.environment, self.seed, self.rounds, names)]

    def gaps(self) -> list[str]:
        """Return the blocks that should be there and are not, one sentence each."""
        found = [f"{name} did not start: {why}" for name, why in self.failed.items()]
        for group in self.groups:
            for series in group.series:
                for number, block in enumerate(series.blocks, 1):
                    if block.failed:
                        where = f"{group.experiment}, cap {group.cap}, round {number}"
                        found.append(f"{where}, {series.label}: {block.failed}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """Read a result; raises :class:`ValueError` for another format."""
        if data.get("format") != FORMAT:
            raise ValueError(f"a result of format {data.get('format')}, not {FORMAT}")
        return cls(
            environment=data["environment"],
            seed=data["seed"],
            peers={name: PeerInfo(**info) for name, info in data["peers"].items()},
            missing=data["missing"],
            groups=[
                Group(
                    experiment=group["experiment"],
                    title=group["title"],
                    cap=group["cap"],
                    figures=[Figure(**figure) for figure in group["figures"]],
                    series=[
                        Series(
                            series["peer"],
                            series["group"],
                            series["twin"],
                            [Block(**block) for block in series["blocks"]],
                        )
                        for series in group["series"]
                    ],
                )
                for group in data["groups"]
            ],
            failed=data["failed"],
            partial=data["partial"],
            joined=[Origin(**origin) for origin in data.get("joined", ())],
        )


def without_numbers(text: str) -> str:
    """Return what remarks have in common that differ in their numbers alone."""
    return _NUMBER.sub("", text)


def numbers_in(text: str) -> list[float]:
    """Return the numbers that :func:`without_numbers` leaves out, in their order."""
    found = (match.rstrip(".,").replace(",", "") for match in _NUMBER.findall(text))
    return [float(each) for each in found if each.count(".") < 2]


def number(value: float) -> str:
    """Return ``value`` with the digits that mean something."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def brief(value: float, digits: int = 2) -> str:
    """Return ``value`` to so many digits, without an exponent."""
    return f"{float(f'{value:.{digits}g}'):,.10g}"


#: What two runs must have in common for their blocks to stand in one table.
SAME_MACHINE = ("kernel", "machine", "cpu", "cpus", "python", "gevent", "sysctls")


def merged(results: Sequence[Result]) -> Result:
    """Return one result with the blocks of all, in their order; ``results`` are not changed.

    Intervals are resampled with the first one's seed. Raises :class:`ValueError` when they are of
    different machines or versions of a peer, when the same experiment has another rate or other
    columns, when a run is given twice (its blocks would count as twice as many), and for none.
    """
    if not results:
        raise ValueError("no results")
    first = results[0]
    whole = Result(first.environment, first.seed, {}, {}, groups=[])
    if len(results) > 1:
        whole.joined = [origin for result in results for origin in result.origins]
        refuse_twice([origin.environment for origin in whole.joined])
    else:
        whole.joined = list(first.joined)
    for result in results:
        for key in SAME_MACHINE:
            here, there = result.environment.get(key), first.environment.get(key)
            if here != there:
                raise ValueError(f"{key} differs: {there} and {here}")
        for name, info in result.peers.items():
            if whole.peers.setdefault(name, info) != info:
                raise ValueError(f"{name} differs: {whole.peers[name]} and {info}")
        whole.missing |= result.missing
        whole.failed |= result.failed
        whole.partial = whole.partial or result.partial
        for group in result.groups:
            _add(whole.groups, group)
    whole.missing = {name: why for name, why in whole.missing.items() if name not in whole.peers}
    return whole


def refuse_twice(environments: Sequence[Mapping[str, Any]]) -> None:
    """Raise :class:`ValueError` when two are of the same run: begun in the same second, with the
    same load on the machine, by the same command."""
    for index, environment in enumerate(environments):
        if environment in environments[:index]:
            raise ValueError(f"the run of {environment.get('started_at')} is given twice")


def _add(groups: list[Group], more: Group) -> None:
    """Append the blocks of ``more`` to the rows of its experiment and cap in ``groups``."""
    for group in groups:
        if (group.experiment, group.cap) == (more.experiment, more.cap):
            break
    else:
        group = Group(more.experiment, more.title, more.cap, list(more.figures), [])
        groups.append(group)
    if group.title != more.title:  # it says at what rate
        raise ValueError(f"{more.experiment} differs: {group.title!r} and {more.title!r}")
    if group.figures != more.figures:
        raise ValueError(f"{more.experiment} has other columns")
    rows = {(series.peer, series.group, series.twin): series for series in group.series}
    before = max((len(series.blocks) for series in group.series), default=0)
    for series in more.series:
        key = (series.peer, series.group, series.twin)
        if key not in rows:
            rows[key] = Series(*key)
            group.series.append(rows[key])
        # Ratios are made round by round, of one run: not everybody was in every round before.
        blocks = rows[key].blocks
        blocks += [Block() for _ in range(before - len(blocks))]
        blocks += series.blocks
