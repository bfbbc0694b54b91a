"""One run's result: figures, sentences, tables and raw records; JSON, CSV and the exit status."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from gserver.probe.records import Records
from gserver.probe.stats import Summary
from gserver.probe.threshold import Threshold

__all__ = [
    "EXIT_INVALID",
    "EXIT_PASS",
    "EXIT_TARGET",
    "EXIT_THRESHOLD",
    "EXIT_USAGE",
    "TOOL",
    "Result",
]

#: Whose command it is, unless another's uses the same means.
TOOL = "gserver probe"

EXIT_PASS = 0
EXIT_TARGET = 1
EXIT_USAGE = 2
EXIT_INVALID = 3
EXIT_THRESHOLD = 99


@dataclass(slots=True)
class Result:
    """What a command hands to its reports.

    :param figures: what thresholds name: seconds, bytes, counts and shares.
    :param headline: the answer, in one sentence.
    :param lines: label and sentence, for people.
    :param latencies: title → row → summary.
    :param details: whatever else the command found, as JSON.
    :param asserted: what was asked for by other flags than ``--threshold``, and whether it is met.
    :param absent: figures that were looked for and that the target has not: no threshold on one of
        them is met.
    :param floods: raw records and start (monotonic ns) of those floods whose are not *records*.
    :param invalid: why the run does not count, one sentence each; partial: why it ended early.
    """

    command: str
    target: str
    environment: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    latencies: dict[str, dict[str, Summary]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    asserted: list[tuple[Threshold, bool]] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    partial: str = ""
    records: Records | None = None
    floods: dict[str, tuple[Records, int]] = field(default_factory=dict)
    start_ns: int = 0
    tool: str = TOOL
    headline: str = ""
    warm_up_s: float = 0.0

    @property
    def title(self) -> str:
        """The command as it was given, without its flags."""
        return f"{self.tool} {self.command} {self.target}"

    def check(self, thresholds: Sequence[Threshold]) -> list[tuple[Threshold, bool]]:
        """Each threshold and whether it is met, after those of :attr:`asserted`.

        One that names a figure the run does not have makes the run invalid: nobody can say. (Not
        one of :attr:`absent`.)
        """
        checked = list(self.asserted)
        for threshold in thresholds:
            met = threshold.check(self.figures)
            if met is None and threshold.figure not in self.absent:
                self.invalid.append(
                    f"threshold {threshold.text!r}: this run has no figure {threshold.figure} "
                    f"(it has {', '.join(sorted(self.figures)) or 'none at all'})"
                )
            checked.append((threshold, bool(met)))
        return checked

    def exit_status(self, checked: Sequence[tuple[Threshold, bool]]) -> int:
        """0, 99 or 3. An invalid or partial run is never 0."""
        if self.invalid or self.partial:
            return EXIT_INVALID
        return EXIT_PASS if all(met for _, met in checked) else EXIT_THRESHOLD

    def as_json(self, version: str, checked: Sequence[tuple[Threshold, bool]]) -> dict[str, Any]:
        """Everything, raw records included, and what :meth:`check` has said."""
        return {
            "tool": self.tool,
            "version": version,
            "command": self.command,
            "target": self.target,
            "headline": self.headline or None,
            "partial": self.partial or None,
            "invalid": self.invalid,
            "exit_status": self.exit_status(checked),
            "thresholds": [{"text": t.text, "met": met} for t, met in checked],
            "warnings": self.warnings,
            "environment": self.environment,
            "settings": self.settings,
            "figures": self.figures,
            "latencies_s": {
                title: {
                    row: {"count": s.count, **s.percentiles, "max": s.max}
                    for row, s in rows.items()
                }
                for title, rows in self.latencies.items()
            },
            "details": self.details,
            "records": None if self.records is None else self.records.as_json(self.start_ns),
            "floods": {
                name: records.as_json(start_ns) for name, (records, start_ns) in self.floods.items()
            },
        }

    def write_json(
        self, stream: IO[str], version: str, checked: Sequence[tuple[Threshold, bool]]
    ) -> None:
        """Write :meth:`as_json` and a newline."""
        json.dump(self.as_json(version, checked), stream, separators=(",", ":"))
        stream.write("\n")

    def write_csv(self, stream: IO[str]) -> None:
        """One row an attempt, times in microseconds since the start; without records: figures."""
        writer = csv.writer(stream, lineterminator="\n")
        if self.records is None:
            writer.writerow(["figure", "value"])
            writer.writerows(sorted(self.figures.items()))
            return
        writer.writerow(["intended_us", "started_us", "finished_us", "outcome"])
        for intended, started, finished, outcome in sorted(self.records.rows()):
            times = (f"{(t - self.start_ns) / 1e3:.1f}" for t in (intended, started, finished))
            writer.writerow([*times, outcome.value])
