"""The plots of a result: which there are, in which order. Pure: figures in, SVG out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gserver.probe.record_plots import COLOURS, SERIES, plots_of_records
from gserver.probe.result import Result
from gserver.probe.stats import QUANTILES, Summary
from gserver.probe.svg import Axis, Chart

__all__ = ["COLOURS", "plots_of"]

#: Commands whose tables say more than their records: those are of the ways, these of the question.
_ASKS_BY_TABLE: Final = ("churn", "isolation")
_LANES: Final = (-9, 18)  # labels stand above a mark, or below it where another stands above


def plots_of(result: Result) -> list[tuple[str, str, str]]:
    """Heading, one sentence that says how to read it, and the HTML of each plot.

    The command's own question comes first, what its attempts came to last.
    """
    plots = []
    details = result.details
    if details.get("cap", {}).get("steps"):
        plots.append(_ramp(details["cap"]))
    if details.get("slow"):
        plots.append(_lives(details["slow"]))
    if details.get("users"):
        plots.append(_users(details["users"]))
    if details.get("ceiling"):
        plots.append(_ceiling(details["ceiling"]))
    if details.get("a_a_ratios", {}).get("p50"):
        plots.append(_noise(details["a_a_ratios"]))
    of_records = plots_of_records(result)
    for title, table in result.latencies.items():
        shown = {name: s for name, s in table.items() if s.count and s.max > 0}
        if shown and (not of_records or result.command in _ASKS_BY_TABLE):
            plots.append(_summaries(title, shown))
    of_what = {"isolation": "The flood: ", "selftest": "A trivial rejecter: "}
    before = of_what.get(result.command, "")
    for heading, note, html in of_records:
        plots.append((f"{before}{heading.lower()}" if before else heading, note, html))
    return plots


def _ramp(cap: dict[str, Any]) -> tuple[str, str, str]:
    steps = cap["steps"]
    first = steps[0][0]
    end = max(s[0] for s in steps) - first
    chart = Chart(
        Axis.linear(0, max(end, 0.1), "time since the first step, s"),
        Axis.linear(0, max(s[1] for s in steps) * 1.15 + 1, "connections held"),
        height=260,
    )
    if cap["limit"] is not None:
        chart.line(
            [(0, cap["limit"]), (max(end, 0.1), cap["limit"])],
            "#888888",
            f"limit found: {cap['limit']}",
            dash="5 4",
        )
    chart.line([(s[0] - first, s[1]) for s in steps], SERIES[0], "held after each step")
    for began, held, tried in steps:
        chart.dot((began - first, held), SERIES[0], f"{tried} tried, {held} held afterwards")
    return (
        "The search",
        "Each mark is one step: it opens more than are held, or tries one beyond them.",
        chart.render(),
    )


def _lives(slow: dict[str, Any]) -> tuple[str, str, str]:
    kinds = list(slow)
    end = max(max(kind["watched_s"], *kind["closed_after_s"], 0.1) for kind in slow.values())
    y = Axis(0.5, len(kinds) + 0.5, [(len(kinds) - i, k) for i, k in enumerate(kinds)], "")
    chart = Chart(
        Axis.linear(0, end * 1.03, "time since connecting, s"), y, height=70 + 70 * len(kinds)
    )
    chart.LEFT = 110
    for i, kind in enumerate(slow.values()):
        count = kind["clients"]
        ends = [*kind["closed_after_s"], *[None] * (count - len(kind["closed_after_s"]))]
        for j, closed in enumerate(ends):
            row = len(kinds) - i + 0.3 - 0.6 * (j + 0.5) / count
            until = kind["watched_s"] if closed is None else closed
            chart.line([(0, row), (until, row)], SERIES[0])
            hint = "still connected" if closed is None else f"ended by the server: {closed:.2f} s"
            chart.dot((until, row), SERIES[0], hint, hollow=closed is None, radius=3)
    note = "Each line is one of them. Full mark: the server ended it. Hollow: still connected then."
    return "Slow clients", note, chart.render()


def _users(timeline: Sequence[tuple[float, int, int]]) -> tuple[str, str, str]:
    chart = Chart(
        Axis.linear(0, max(t[0] for t in timeline), "time since the start, s"),
        Axis.linear(0, max(max(t[1], t[2]) for t in timeline) * 1.15 + 1, "users, connections"),
        height=260,
    )
    chart.line([(t, users) for t, users, _ in timeline], SERIES[1], "users")
    chart.line([(t, held) for t, _, held in timeline], SERIES[0], "connections held")
    return "Users", "How many there were, and how many of them were being served.", chart.render()


def _ceiling(steps: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    lines = {
        name: [(s["rate"], s[f"{name}_s"] * 1e6) for s in steps if s[f"{name}_s"]]
        for name in ("p50", "p99")
    }
    heights = [p[1] for line in lines.values() for p in line]
    if not heights:
        return "Ceiling", "Too few answers.", ""
    chart = Chart(
        Axis.linear(0, max(s["rate"] for s in steps) * 1.05, "attempts, 1/s"),
        Axis.log(min(heights), max(heights), "outcome latency, µs (log)"),
    )
    for colour, (name, line) in zip(SERIES, lines.items(), strict=False):
        chart.line(line, colour, name)
        valid = {s["rate"]: s["valid"] for s in steps}
        for rate, value in line:
            hint = f"{rate}/s: {name} {value:.0f} µs" + ("" if valid[rate] else ", not valid")
            chart.dot((rate, value), colour, hint, hollow=not valid[rate])
    return (
        "What this client can do",
        "A trivial server under a rising rate. Hollow: the run does not count, because the client "
        "was saturated.",
        chart.render(),
    )


def _noise(ratios: dict[str, list[float]]) -> tuple[str, str, str]:
    values = [v for each in ratios.values() for v in each]
    y = Axis.log(min(*values, 0.9), max(*values, 1.1), "ratio B / A (log)")
    count = max(len(each) for each in ratios.values())
    ticks = [(i, str(i)) for i in range(1, count + 1, 1 + count // 20)]
    x = Axis(0.5, count + 0.5, ticks, f"pair of blocks, of {count}")
    chart = Chart(x, y, height=260)
    for colour, (name, each) in zip(SERIES, ratios.items(), strict=False):
        if not each:
            continue
        ends = [(x.low, max(each)), (x.high, max(each))], [(x.low, min(each)), (x.high, min(each))]
        chart.area(*ends, colour, f"{name}: band of identical servers", opacity=0.15)
        for i, value in enumerate(each):
            chart.dot((i + 1, value), colour, f"{name}: x{value:.2f}")
    chart.line([(x.low, 1.0), (x.high, 1.0)], "#888888", "no difference", dash="5 4")
    return (
        "Noise: two identical servers",
        f"{count} pairs of blocks. A difference between two servers that lies within the band is "
        "not resolved.",
        chart.render(),
    )


def _summaries(title: str, table: dict[str, Summary]) -> tuple[str, str, str]:
    values = [v * 1e6 for s in table.values() for v in (*s.percentiles.values(), s.max)]
    names = list(table)
    y = Axis(
        0.5,
        len(names) + 0.5,
        [(len(names) - i, name) for i, name in enumerate(names)],
        "",
    )
    chart = Chart(
        Axis.log(max(min(values), 1.0), max(values), "latency, µs (log)"),
        y,
        height=90 + 44 * len(names),
    )
    chart.LEFT = 24 + 7 * max(len(name) for name in names)
    for i, name in enumerate(names):
        summary, row = table[name], float(len(names) - i)
        marks = [(q, v * 1e6) for q, v in summary.percentiles.items()] + [
            ("max", summary.max * 1e6)
        ]
        chart.line([(v, row) for _, v in marks], SERIES[0])
        taken = dict.fromkeys(_LANES, float("-inf"))  # how far each lane of labels is written
        for which, value in marks:
            label = which.replace("p999", "p99.9")
            at, _ = chart.at((value, row))
            hint = f"{name}: {label} {value:.0f} µs"
            chart.dot((value, row), SERIES[0], hint, hollow=which == "max")
            half = 4 * len(label)
            lane = next((dy for dy, end in taken.items() if at - half > end), None)
            if lane is not None:
                taken[lane] = at + half
                chart.text((value, row), label, dy=lane, anchor="middle")
    shown = ", ".join(q.replace("p999", "p99.9") for q in QUANTILES)
    return title, f"{shown} and the maximum (hollow), as far as the samples carry.", chart.render()
