"""The shape of a comparison's result, to and from JSON. No I/O here, nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Figure", "Group", "PeerInfo", "Result", "Series", "merged"]

#: Counts up with every change that an older reader would misread.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One column: what was measured.

    ``unit`` is ``us``, ``KiB``, ``x`` (a ratio), or "" for a count. ``compared``: whether ratios
    within a group are printed. ``plotted``: whether it has a plot.
    """

    key: str
    heading: str
    unit: str = ""
    compared: bool = False
    plotted: bool = False


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
class Series:
    """One row: a server's figures, block by block; None where a block gave none (see ``notes``).

    ``group``: those that may be compared, the first of them its reference. ``twin``: the second
    run of the reference in each block, for the A/A band.
    """

    peer: str
    group: str
    twin: bool
    blocks: list[dict[str, float | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.peer} (A/A)" if self.twin else self.peer

    def values(self, key: str) -> list[float | None]:
        """Return one figure, block by block."""
        return [block.get(key) for block in self.blocks]


@dataclass(slots=True)
class Group:
    """One table: an experiment at one cap."""

    experiment: str
    title: str
    cap: int
    figures: list[Figure]
    series: list[Series]


@dataclass(slots=True)
class Result:
    """A whole comparison. ``partial`` says why it is not complete; "" when it is."""

    environment: dict[str, Any]
    seed: int
    peers: dict[str, PeerInfo]
    missing: dict[str, str]
    groups: list[Group]
    partial: str = ""

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
                    series=[Series(**series) for series in group["series"]],
                )
                for group in data["groups"]
            ],
            partial=data["partial"],
        )


#: What two runs must have in common for their blocks to stand in one table.
SAME_MACHINE = ("kernel", "machine", "cpu", "cpus", "python", "gevent", "sysctls")


def merged(results: Sequence[Result]) -> Result:
    """Return one result with the blocks of all, in their order; ``results`` are not changed.

    The first one's environment and seed stand for all. Raises :class:`ValueError` when they are
    of different machines or versions of a peer, when the same experiment has different columns,
    and for none at all.
    """
    if not results:
        raise ValueError("no results")
    first = results[0]
    whole = Result(first.environment, first.seed, {}, {}, groups=[])
    for result in results:
        for key in SAME_MACHINE:
            here, there = result.environment.get(key), first.environment.get(key)
            if here != there:
                raise ValueError(f"{key} differs: {there} and {here}")
        for name, info in result.peers.items():
            if whole.peers.setdefault(name, info) != info:
                raise ValueError(f"{name} differs: {whole.peers[name]} and {info}")
        whole.missing |= result.missing
        whole.partial = whole.partial or result.partial
        for group in result.groups:
            _add(whole.groups, group)
    whole.missing = {name: why for name, why in whole.missing.items() if name not in whole.peers}
    return whole


def _add(groups: list[Group], more: Group) -> None:
    """Append the blocks of ``more`` to the rows of its experiment and cap in ``groups``."""
    for group in groups:
        if (group.experiment, group.cap) == (more.experiment, more.cap):
            break
    else:
        group = Group(more.experiment, more.title, more.cap, list(more.figures), [])
        groups.append(group)
    if group.figures != more.figures:
        raise ValueError(f"{more.experiment} has other columns")
    rows = {(series.peer, series.group, series.twin): series for series in group.series}
    for series in more.series:
        key = (series.peer, series.group, series.twin)
        if key not in rows:
            rows[key] = Series(*key)
            group.series.append(rows[key])
        rows[key].blocks.extend(series.blocks)
        rows[key].notes.extend(series.notes)
