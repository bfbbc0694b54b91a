"""The plots of a result: which there are, and what they show. Pure: figures in, SVG out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from gserver.probe.outcomes import OUTCOMES, REJECTIONS, Outcome
from gserver.probe.result import Result
from gserver.probe.stats import QUANTILES, Summary, quantile
from gserver.probe.svg import Axis, Chart, Point

__all__ = ["COLOURS", "plots_of"]

#: One colour an outcome, the same in every plot.
COLOURS: Final = {
    Outcome.ADMITTED: "#2f9e44",
    Outcome.FIN: "#1f6fd0",
    Outcome.RST: "#e8710a",
    Outcome.MESSAGE: "#0c9d8f",
    Outcome.REFUSED: "#7b51c9",
    Outcome.QUEUED: "#d9a400",
    Outcome.UNKNOWN: "#8c8c8c",
    Outcome.SYN_PENDING: "#8d5a3b",
    Outcome.HANG: "#d0342c",
    Outcome.LOCAL: "#222222",
}
_SERIES: Final = ("#1f6fd0", "#e8710a", "#0c9d8f", "#7b51c9", "#d0342c")
_BLOCKS: Final = 10  # of the measured time, for the noise band
_BINS: Final = 80
_PER_LINE: Final = 60  # points of a percentile line

Row = tuple[int, int, int, Outcome]


def plots_of(result: Result) -> list[tuple[str, str, str]]:
    """Heading, one sentence that says how to read it, and the HTML of each plot."""
    plots = []
    rows = [] if result.records is None else sorted(result.records.rows())
    if rows:
        measured = [r for r in rows if r[0] >= result.start_ns + int(result.warm_up_s * 1e9)]
        if measured:
            plots.append(_by_percentile(measured))
        plots.append(_timeline(rows, result))
        plots.append(_stack(rows, result))
    if result.details.get("users"):
        plots.append(_users(result.details["users"]))
    if "cap" in result.details:
        plots.append(_ramp(result.details["cap"]))
    if result.details.get("ceiling"):
        plots.append(_ceiling(result.details["ceiling"]))
    if result.details.get("a_a_ratios", {}).get("p50"):
        plots.append(_noise(result.details["a_a_ratios"]))
    for title, table in result.latencies.items():
        shown = {name: s for name, s in table.items() if s.count and s.max > 0}
        if shown and (not rows or result.command == "isolation"):
            plots.append(_summaries(title, shown))
    return plots


def _tail(share: float) -> float:
    """Where a percentile stands on an axis that gives each nine the same length."""
    return -math.log10(1 - share)


def _percentile_axis(count: int) -> Axis:
    shown = [(0.0, "0"), (_tail(0.5), "50"), (1.0, "90"), (2.0, "99"), (3.0, "99.9")]
    shown += [(float(n), "99." + "9" * (n - 2)) for n in range(4, 7)]
    high = max(1.0, math.log10(max(count, 10)))
    return Axis(0.0, high, [t for t in shown if t[0] <= high + 0.01], "percentile")


def _curve(ordered: Sequence[int], high: float) -> list[Point]:
    """Latency (us) at equal distances of the percentile axis, up to what the samples carry."""
    top = min(high, math.log10(len(ordered)))
    shares = [1 - 10 ** -(top * i / _PER_LINE) for i in range(_PER_LINE + 1)]
    return [(_tail(s) if s else 0.0, quantile(ordered, s) / 1e3) for s in shares]


def _by_percentile(rows: Sequence[Row]) -> tuple[str, str, str]:
    x = _percentile_axis(len(rows))
    latencies = {o: sorted(r[2] - r[1] for r in rows if r[3] is o) for o in OUTCOMES}
    latencies = {o: samples for o, samples in latencies.items() if len(samples) >= 10}
    responses = {o: sorted(r[2] - r[0] for r in rows if r[3] is o) for o in latencies}
    has_slip = any(row[0] != row[1] for row in rows)  # a closed loop intends nothing
    if not latencies:
        return "Latency by percentile", "Fewer than ten attempts of any one outcome.", ""
    low = min(samples[0] for samples in latencies.values()) / 1e3
    high = max(samples[-1] for samples in responses.values()) / 1e3
    chart = Chart(x, Axis.log(max(low, 1), high, "latency, us (log)"), height=360)
    main = max(latencies, key=lambda o: len(latencies[o]))
    band = _noise_band([r for r in rows if r[3] is main], x.high)
    if band is not None:
        chart.area(*band, COLOURS[main], f"{main.value}: tenths of the run", opacity=0.18)
    for outcome, samples in latencies.items():
        chart.line(_curve(samples, x.high), COLOURS[outcome], f"{outcome.value}: outcome latency")
        if has_slip:
            chart.line(
                _curve(responses[outcome], x.high),
                COLOURS[outcome],
                f"{outcome.value}: response latency",
                dash="5 4",
            )
    note = "Connect to outcome. "
    if has_slip:
        note = (
            "Solid: connect to outcome. Dashed: intended start to outcome; the gap is what a "
            "closed loop would have hidden. "
        )
    if band is not None:
        note += "Shaded: the same line for each tenth of the run, so what lies inside is noise."
    return "Latency by percentile", note, chart.render()


def _noise_band(rows: Sequence[Row], high: float) -> tuple[list[Point], list[Point]] | None:
    """Highest and lowest line over the tenths of the run; None: too few attempts."""
    each = len(rows) // _BLOCKS
    if each < 20:
        return None
    lines = [
        _curve(sorted(r[2] - r[1] for r in rows[i * each : (i + 1) * each]), high)
        for i in range(_BLOCKS)
    ]
    xs = [point[0] for point in lines[0]]
    upper = [(x, max(line[i][1] for line in lines)) for i, x in enumerate(xs)]
    lower = [(x, min(line[i][1] for line in lines)) for i, x in enumerate(xs)]
    return upper, lower


def _bins(rows: Sequence[Row], start_ns: int) -> tuple[float, list[list[Row]]]:
    """Attempts by intended time: seconds a bin, and the bins."""
    span = max(1, rows[-1][0] - start_ns + 1)
    count = max(1, min(_BINS, len(rows) // 20))
    bins: list[list[Row]] = [[] for _ in range(count)]
    for row in rows:
        bins[min(count - 1, max(0, (row[0] - start_ns) * count // span))].append(row)
    return span / 1e9 / count, bins


def _timeline(rows: Sequence[Row], result: Result) -> tuple[str, str, str]:
    width, bins = _bins(rows, result.start_ns)
    ordered = [sorted(r[2] - r[1] for r in bin_rows if r[3] in REJECTIONS) for bin_rows in bins]
    measures: dict[str, Callable[[list[int]], float | None]] = {
        "p50": lambda samples: quantile(samples, 0.5) / 1e3,
        "p99": lambda samples: quantile(samples, 0.99) / 1e3 if len(samples) >= 100 else None,
        "max": lambda samples: samples[-1] / 1e3,
    }
    lines = {
        name: [measure(samples) if samples else None for samples in ordered]
        for name, measure in measures.items()
    }
    heights = [height for line in lines.values() for height in line if height is not None]
    if not heights:
        return "Timeline", "Nobody was told that the server is full: there is no latency.", ""
    chart = Chart(
        Axis.linear(0, width * len(bins), "seconds since the start"),
        Axis.log(min(heights), max(heights), "outcome latency, us (log)"),
    )
    _shade_warm_up(chart, result)
    for colour, (name, line) in zip(_SERIES, lines.items(), strict=False):
        label = name
        for piece in _pieces(line, width):
            chart.line(piece, colour, label)
            if len(piece) == 1:
                chart.dot(piece[0], colour, name)
            label = ""
    note = f"Rejections by intended start, {width * 1e3:.0f} ms a point."
    if result.warm_up_s:
        note += " Shaded: the warm-up, which is in no figure."
    return "Timeline", note, chart.render()


def _pieces(heights: Sequence[float | None], width: float) -> list[list[Point]]:
    """The line in pieces, broken where nothing happened."""
    pieces: list[list[Point]] = []
    unbroken = False
    for i, height in enumerate(heights):
        if height is not None:
            if not unbroken:
                pieces.append([])
            pieces[-1].append(((i + 0.5) * width, height))
        unbroken = height is not None
    return pieces


def _shade_warm_up(chart: Chart, result: Result) -> None:
    if result.warm_up_s:
        y, end = chart.y, result.warm_up_s
        chart.area(
            [(0, y.high), (end, y.high)], [(0, y.low), (end, y.low)], "#888888", opacity=0.15
        )


def _stack(rows: Sequence[Row], result: Result) -> tuple[str, str, str]:
    width, bins = _bins(rows, result.start_ns)
    highest = max(len(b) for b in bins) / width
    chart = Chart(
        Axis.linear(0, width * len(bins), "seconds since the start"),
        Axis.linear(0, highest * 1.08, "attempts a second"),
        height=240,
    )
    below = [0.0] * len(bins)
    for outcome in OUTCOMES:
        counts = [sum(r[3] is outcome for r in b) / width for b in bins]
        if not any(counts):
            continue
        above = [low + more for low, more in zip(below, counts, strict=True)]
        chart.area(_steps(above, width), _steps(below, width), COLOURS[outcome], outcome.value)
        below = above
    return (
        "Outcomes",
        "What became of the attempts, by intended start, one upon the other.",
        chart.render(),
    )


def _steps(heights: Sequence[float], width: float) -> list[Point]:
    return [(x * width, h) for i, h in enumerate(heights) for x in (i, i + 1)]


def _ramp(cap: dict[str, Any]) -> tuple[str, str, str]:
    steps = cap["steps"] or [(0.0, 0, 0)]
    first = steps[0][0]
    end = max(s[0] for s in steps) - first
    chart = Chart(
        Axis.linear(0, max(end, 0.1), "seconds since the first step"),
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
    chart.line([(s[0] - first, s[1]) for s in steps], _SERIES[0], "held after each step")
    for began, held, tried in steps:
        chart.dot((began - first, held), _SERIES[0], f"{tried} tried, {held} held afterwards")
    return (
        "The search",
        "Each mark is one step: it opens more than are held, or tries one beyond them.",
        chart.render(),
    )


def _users(timeline: Sequence[tuple[float, int, int]]) -> tuple[str, str, str]:
    chart = Chart(
        Axis.linear(0, max(t[0] for t in timeline), "seconds since the start"),
        Axis.linear(0, max(max(t[1], t[2]) for t in timeline) * 1.15 + 1, "count"),
        height=260,
    )
    chart.line([(t, users) for t, users, _ in timeline], _SERIES[1], "users")
    chart.line([(t, held) for t, _, held in timeline], _SERIES[0], "connections held")
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
        Axis.linear(0, max(s["rate"] for s in steps) * 1.05, "attempts a second"),
        Axis.log(min(heights), max(heights), "outcome latency, us (log)"),
    )
    for colour, (name, line) in zip(_SERIES, lines.items(), strict=False):
        chart.line(line, colour, name)
        valid = {s["rate"]: s["valid"] for s in steps}
        for rate, value in line:
            hint = f"{rate}/s: {name} {value:.0f} us" + ("" if valid[rate] else ", not valid")
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
    x = Axis(0.5, count + 0.5, [(i, str(i)) for i in range(1, count + 1)], "pair of blocks")
    chart = Chart(x, y, height=260)
    for colour, (name, each) in zip(_SERIES, ratios.items(), strict=False):
        if not each:
            continue
        ends = [(x.low, max(each)), (x.high, max(each))], [(x.low, min(each)), (x.high, min(each))]
        chart.area(*ends, colour, f"{name}: band of identical servers", opacity=0.15)
        for i, value in enumerate(each):
            chart.dot((i + 1, value), colour, f"{name}: x{value:.2f}")
    chart.line([(x.low, 1.0), (x.high, 1.0)], "#888888", "no difference", dash="5 4")
    return (
        "Noise: two identical servers",
        "A difference between two servers that lies within the band is not resolved.",
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
        Axis.log(max(min(values), 0.1), max(values), "us (log)"), y, height=90 + 44 * len(names)
    )
    chart.LEFT = 175
    for i, name in enumerate(names):
        summary, row = table[name], float(len(names) - i)
        marks = [(q, v * 1e6) for q, v in summary.percentiles.items()] + [
            ("max", summary.max * 1e6)
        ]
        chart.line([(v, row) for _, v in marks], _SERIES[0])
        for which, value in marks:
            hint = f"{name}: {which.replace('p999', 'p99.9')} {value:.0f} us"
            chart.dot((value, row), _SERIES[0], hint, hollow=which == "max")
            chart.text((value, row), which.replace("p999", "p99.9"), dy=-9, anchor="middle")
    shown = ", ".join(q.replace("p999", "p99.9") for q in QUANTILES)
    return title, f"{shown} and the maximum (hollow), as far as the samples carry.", chart.render()
