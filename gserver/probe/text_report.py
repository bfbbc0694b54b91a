"""The terminal's report: sentences, percentile tables in microseconds, verdict."""

from __future__ import annotations

from collections.abc import Sequence

from gserver.probe.result import Result
from gserver.probe.stats import QUANTILES, Summary
from gserver.probe.threshold import Threshold

__all__ = ["render", "table"]

_HEADINGS = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}


def table(title: str, rows: dict[str, Summary]) -> list[str]:
    """A percentile table. A percentile with fewer than ten samples beyond it is a dash."""
    lines = [f"{title}, us"]
    head = "".join(f"{_HEADINGS[name]:>10}" for name in QUANTILES)
    lines.append(f"  {'':22}{'count':>9}{head}{'max':>10}")
    for name, summary in rows.items():
        if not summary.count:
            continue
        cells = "".join(
            f"{summary.percentiles[q] * 1e6:>10.0f}" if q in summary.percentiles else f"{'-':>10}"
            for q in QUANTILES
        )
        lines.append(f"  {name:22}{summary.count:>9}{cells}{summary.max * 1e6:>10.0f}")
    return lines


def render(result: Result, checked: Sequence[tuple[Threshold, bool]]) -> str:
    """All of it, ending with a newline."""
    out = [result.title]
    if result.headline:
        out += [f"  {result.headline}", ""]
    out += [f"  {label:22}{text}" for label, text in result.lines]
    for title, rows in result.latencies.items():
        if any(summary.count for summary in rows.values()):
            out += ["", *table(title, rows)]
    if checked or result.warnings or result.invalid or result.partial:
        out.append("")
    out += [f"threshold {t.text}: {'met' if met else 'NOT MET'}" for t, met in checked]
    out += [f"warning: {text}" for text in result.warnings]
    out += [f"INVALID: {text}" for text in result.invalid]
    if result.partial:
        what = "figures are of what had happened" if result.figures else "nothing was measured"
        out.append(f"PARTIAL: {result.partial}; {what} by then")
    return "\n".join(out) + "\n"
