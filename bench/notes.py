"""What qualifies the figures of a comparison, each once for all whom it is about. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bench.results import Group, brief, numbers_in, without_numbers

__all__ = ["lateness", "noted"]

#: How the remark begins that clients came later than was planned (gserver.probe.validity).
LATE = "arrivals started late"

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


def noted(
    peers: Collection[str], groups: Sequence[Group]
) -> tuple[list[str], dict[str, list[int]]]:
    """Return what must be known of the figures of ``peers``, each once whomever it is about, and
    for each peer the numbers, from 1, of those that are about it."""
    found: dict[str, Remark] = {}
    total: dict[str, int] = {}
    for group in groups:
        for series in (series for series in group.series if series.peer in peers):
            peer = series.peer
            asked = sum(bool(block.figures or block.failed) for block in series.blocks)
            total[peer] = total.get(peer, 0) + asked
            for block in series.blocks:
                kinds: dict[str, list[str]] = {}
                for text in (PHASE.sub("", text) for text in block.remarks()):
                    kinds.setdefault(without_numbers(text), []).append(text)
                for kind, texts in kinds.items():
                    remark = found.setdefault(kind, Remark())
                    remark.texts += texts
                    remark.blocks[peer] = remark.blocks.get(peer, 0) + 1
                    remark.experiments[group.experiment] = None
    numbers: dict[str, list[int]] = {}
    for index, remark in enumerate(found.values(), 1):
        for peer in remark.blocks:
            numbers.setdefault(peer, []).append(index)
    return [remark.text(total) for remark in found.values()], numbers


def lateness(groups: Sequence[Group], peers: Collection[str]) -> str:
    """Say what late arrivals add to the storm's p99 of ``peers``; "" when none were late, or when
    only the latency from the connect was kept."""
    found: dict[str, list[str]] = {}
    late = False
    for group in groups:
        figures = {figure.key: figure for figure in group.figures}
        if group.experiment != "storm" or not {"p99", "response_p99"} <= figures.keys():
            continue
        for series in group.series:
            late = late or any(LATE in text for block in series.blocks for text in block.remarks())
            if series.twin or series.peer not in peers:
                continue
            latency, response = (
                figures[key].of(series.values(key)) for key in ("p99", "response_p99")
            )
            if latency is not None and response is not None:
                text = f"{brief(response)} beside {brief(latency)}"
                found.setdefault(series.peer, []).append(text)
    if not late or not found:
        return ""
    return (
        "A late arrival is in the response latency, from the intended start, and not in that from "
        "the connect. The p99 of the one beside the other, medians in µs: "
        + "; ".join(f"{peer} {' / '.join(texts)}" for peer, texts in found.items())
        + "."
    )
