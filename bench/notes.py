"""What qualifies the figures of a comparison, each once for all whom it is about. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bench.results import Group, numbers_in, without_numbers

__all__ = ["noted"]

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
    numbers: dict[str, list[int]] = {}
    for index, remark in enumerate(found.values(), 1):
        for peer in remark.blocks:
            numbers.setdefault(peer, []).append(index)
    return [remark.text(total) for remark in found.values()], numbers
