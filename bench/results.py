"""The shape of a comparison's result, to and from JSON. No I/O here, nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Figure", "Group", "PeerInfo", "Result", "Series"]

#: Counts up with every change that an older reader would misread.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One column: what was measured.

    ``unit`` is ``us``, ``KiB``, ``x`` (a ratio), or "" for a count. ``compared``: whether ratios
    within a group are printed.
    """

    key: str
    heading: str
    unit: str = ""
    compared: bool = False


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
