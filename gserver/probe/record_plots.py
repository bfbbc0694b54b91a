"""Plots of raw records: latency by percentile, over time, what became of whom. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from gserver.probe.outcomes import OUTCOMES, REJECTIONS, Outcome
from gserver.probe.result import Result
from gserver.probe.stats import quantile
from gserver.probe.svg import Axis, Chart, Point

__all__ = ["COLOURS", "SERIES", "plots_of_records"]

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
    Outcome.LOCAL: "#b03a8c",
}
SERIES: Final = ("#1f6fd0", "#e8710a", "#0c9d8f", "#7b51c9", "#d0342c")
_DASHES: Final = {"p50": "", "p99": "5 4", "max": "1 4"}
_BLOCKS: Final = 10  # of the measured time, for the noise band
_BINS: Final = 80
_PER_LINE: Final = 60  # points of a percentile line
_ONE_BY_ONE: Final = 400  # attempts, up to which each is a mark of its own

Row = tuple[int, int, int, Outcome]


def plots_of_records(result: Result) -> list[tuple[str, str, str]]:
    """Heading, one sentence that says how to read it, and the HTML of each plot."""
    rows = [] if result.records is None else sorted(result.records.rows())
    if not rows:
        return []
    if len(rows) <= _ONE_BY_ONE:
        return [_marks(rows, result)]
    measured = [r for r in rows if r[0] >= result.start_ns + int(result.warm_up_s * 1e9)]
    plots = [_by_percentile(measured)] if measured else []
    return [*plots, _timeline(rows, result), _stack(rows, result)]


def _marks(rows: Sequence[Row], result: Result) -> tuple[str, str, str]:
    points = [(r[3], (r[0] - result.start_ns) / 1e9, (r[2] - r[1]) / 1e3) for r in rows]
    heights = [height for _, _, height in points]
    chart = Chart(
        Axis.linear(0, max(seconds for _, seconds, _ in points) * 1.02, "time since the start, s"),
        Axis.log(max(min(heights), 1), max(heights), "outcome latency, µs (log)"),
    )
    _shade_warm_up(chart, result)
    for outcome in OUTCOMES:
        mine = [(seconds, height) for which, seconds, height in points if which is outcome]
        for point in mine:
            chart.dot(point, COLOURS[outcome], f"{outcome.value}: {point[1]:.0f} µs", radius=3)
        if mine:
            chart.legend(f"{outcome.value} ({len(mine)})", COLOURS[outcome])
    return (
        "Attempts",
        "Each mark is one: when it connected, and how long to its outcome.",
        (chart.render()),
    )


def _tail(share: float) -> float:
    """Where a percentile stands on an axis that gives each nine the same length."""
    return -math.log10(1 - share)


def _percentile_axis(count: int) -> Axis:
    shown = [(0.0, "0"), (_tail(0.5), "50"), (1.0, "90"), (2.0, "99"), (3.0, "99.9")]
    shown += [(float(n), "99." + "9" * (n - 2)) for n in range(4, 7)]
    high = max(1.0, math.log10(max(count, 10)))
    return Axis(0.0, high, [t for t in shown if t[0] <= high + 0.01], "percentile (%)")


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
    chart = Chart(x, Axis.log(max(low, 1), high, "latency, µs (log)"), height=360)
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
    measures: dict[str, Callable[[list[int]], float | None]] = {
        "p50": lambda samples: quantile(samples, 0.5) / 1e3,
        "p99": lambda samples: quantile(samples, 0.99) / 1e3 if len(samples) >= 100 else None,
        "max": lambda samples: samples[-1] / 1e3,
    }
    lines: dict[tuple[Outcome, str], list[float | None]] = {}
    for kind in REJECTIONS:  # each apart: a quick kind must not make a slow one look quick
        ordered = [sorted(r[2] - r[1] for r in mine if r[3] is kind) for mine in bins]
        for name, measure in measures.items() if any(ordered) else ():
            lines[kind, name] = [measure(samples) if samples else None for samples in ordered]
    heights = [height for line in lines.values() for height in line if height is not None]
    if not heights:
        return "Timeline", "Nobody was told that the server is full: there is no latency.", ""
    chart = Chart(
        Axis.linear(0, width * len(bins), "time since the start, s"),
        Axis.log(min(heights), max(heights), "outcome latency, µs (log)"),
    )
    _shade_warm_up(chart, result)
    for (kind, name), line in lines.items():
        label = f"{kind.value}: {name}"
        for piece in _pieces(line, width):
            chart.line(piece, COLOURS[kind], label, dash=_DASHES[name])
            if len(piece) == 1:
                chart.dot(piece[0], COLOURS[kind], f"{kind.value}: {name}")
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
        Axis.linear(0, width * len(bins), "time since the start, s"),
        Axis.linear(0, highest * 1.08, "attempts, 1/s"),
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
