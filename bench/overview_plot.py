"""The overview as a picture: a row for each server, a panel for each headline. Pure.

A file of its own, with a ground of its own, light or dark as the reader's system is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench.colours import COLOUR
from bench.overview import Cell, Overview, Row
from bench.results import Result, number
from gserver.probe.svg import Axis, log_ticks, nice_ticks, short

__all__ = ["overview_plot"]


@dataclass(frozen=True, slots=True)
class Panel:
    """``key`` and ``to`` are the figures of a column; with ``to`` a line reaches to the second."""

    experiment: str
    key: str
    lines: tuple[str, str]
    to: str = ""


PANELS = (
    Panel("storm", "p50", ("time to the verdict", "µs, p50 to p99"), to="p99"),
    Panel("storm", "cpu", ("CPU at 2,000/s", "server, µs each")),
    Panel("flood", "cpu", ("CPU at 6,000/s", "server, µs each")),
    Panel("churn", "false", ("false rejections", "of who came back")),
    Panel("burst", "unanswered", ("unanswered", "of 500 at once")),
    Panel("isolation", "p50", ("echo p50, flooded", "here over elsewhere")),
    Panel("memory", "pss", ("memory held", "KiB a connection")),
)

# Pixels.
ROW, NAMES, PANEL, GAP, HEAD, FOOT, EDGE = 20, 136, 100, 28, 84, 30, 12

STYLE = """
.overview { --ground:#fff; --ink:#1b1f24; --soft:#5b6470; --line:#e3e6ea;
  font-family:system-ui,-apple-system,"Segoe UI",sans-serif; }
@media (prefers-color-scheme: dark) { .overview { --ground:#15181c; --ink:#e8eaed; --soft:#9aa3ad;
  --line:#2c3238; } }
.overview .ground, .overview .hollow { fill:var(--ground); } .overview .grid { stroke:var(--line); }
.overview text { fill:var(--soft); font-size:11.5px; }
.overview text.name { fill:var(--ink); font-size:12px; }
.overview text.head { fill:var(--ink); font-weight:600; font-size:11px; }
"""


def overview_plot(found: Overview, result: Result, *, inline: bool = False) -> str:
    """Return the ``<svg>`` element, for a file of its own or ``inline`` in a page of HTML."""
    namespace = "" if inline else ' xmlns="http://www.w3.org/2000/svg"'
    panels = [panel for panel in PANELS if column(found, panel.experiment, panel.key) is not None]
    width = NAMES + len(panels) * (PANEL + GAP) + 2 * EDGE
    bottom = HEAD + ROW * len(found.rows)
    height = bottom + FOOT
    out = [
        f'<svg class="overview"{namespace} viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        'aria-label="Servers at their connection limit: a row each, a panel for each figure">'
        f"<style>{STYLE}</style>"
        f'<rect class="ground" width="{width}" height="{height}" rx="6"/>'
    ]
    out += legend(found, result)
    for index, row in enumerate(found.rows):
        y = HEAD + ROW * (index + 0.5)
        out.append(
            f'<line class="grid" x1="{EDGE}" x2="{width - EDGE}" y1="{y + ROW / 2:.1f}" '
            f'y2="{y + ROW / 2:.1f}"/>'
            f'<text class="name" x="{NAMES + EDGE - 10}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(row.peer)}</text>"
        )
    for index, panel in enumerate(panels):
        left = EDGE + NAMES + GAP / 2 + index * (PANEL + GAP)
        out += draw(panel, found, result, left, bottom)
    return "\n".join([*out, "</svg>\n"])


def legend(found: Overview, result: Result) -> Iterator[str]:
    """Yield what the colours and the marks mean, in one line."""
    x = float(EDGE + 8)
    seen = list(dict.fromkeys(result.peers[row.peer].policy for row in found.rows))
    for policy in seen:
        yield (
            f'<circle cx="{x:.0f}" cy="20" r="4.5" fill="{COLOUR[policy]}"/>'
            f'<text x="{x + 9:.0f}" y="24">{WORDS[policy]}</text>'
        )
        x += 34 + 6.2 * len(WORDS[policy])
    if len(found.caps) > 1:
        for cap, kind in zip(found.caps, ("var(--soft)", "var(--ground)"), strict=False):
            yield (
                f'<circle cx="{x:.0f}" cy="20" r="4" fill="{kind}" stroke="var(--soft)" '
                f'stroke-width="2"/><text x="{x + 9:.0f}" y="24">cap {cap:,}</text>'
            )
            x += 40 + 6.2 * len(f"cap {cap:,}")


#: What a client beyond the cap sees.
WORDS = {
    "fin": "closes",
    "rst": "resets",
    "message": "says so",
    "refused": "refuses",
    "queue": "lets it wait",
    "unlimited": "has no limit",
}


def draw(
    panel: Panel, found: Overview, result: Result, left: float, bottom: float
) -> Iterator[str]:
    """Yield one panel: head, ticks, marks."""
    first = column(found, panel.experiment, panel.key)
    last = column(found, panel.experiment, panel.to) if panel.to else None
    assert first is not None
    x = axis(found, [first], spans=True) if last is None else axis(found, [first, last])
    middle = left + PANEL / 2
    for offset, (text, kind) in enumerate(zip(panel.lines, ("head", ""), strict=True)):
        yield (
            f'<text class="{kind}" x="{middle:.1f}" y="{HEAD - 32 + 15 * offset}" '
            f'text-anchor="middle">{escape(text)}</text>'
        )
    for value, text in x.ticks:
        at = left + PANEL * x.place(value)
        yield (
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{HEAD}" y2="{bottom:.1f}"/>'
            f'<text x="{at:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{escape(text)}</text>'
        )
    for index, row in enumerate(found.rows):
        y = HEAD + ROW * (index + 0.5)
        end = row.cells[last] if last is not None else None
        yield from marks(row, row.cells[first], end, x, left, y, result)


def marks(
    row: Row, cell: Cell, end: Cell | None, x: Axis, left: float, y: float, result: Result
) -> Iterator[str]:
    """Yield one server's marks: filled at the first cap, hollow at the next; a line to the end, or
    a thin one over its rounds. Shaded: how far the server may be from itself."""
    colour = COLOUR[result.peers[row.peer].policy]
    several = len(cell.values) > 1
    for index, (cap, value) in enumerate(cell.values.items()):
        if value is None:
            continue
        at = left + PANEL * x.place(value)
        shift = (index - 0.5) * 7 if several else 0.0
        hint = f"{row.peer}, cap {cap:,}: {number(value)}"
        to = end.values.get(cap) if end is not None else None
        if cap in cell.bands and value > 0.0:
            yield band(value, cell.bands[cap], x, left, y + shift, colour)
        if end is None and cap in cell.spans:
            low, high = cell.spans[cap]
            hint += f", rounds {number(low)} to {number(high)}"
            yield (
                f'<line x1="{left + PANEL * x.place(low):.1f}" '
                f'x2="{left + PANEL * x.place(high):.1f}" y1="{y + shift:.1f}" '
                f'y2="{y + shift:.1f}" stroke="{colour}" stroke-width="1"/>'
            )
        if to is not None:
            until = left + PANEL * x.place(to)
            hint += f" to {number(to)}"
            yield (
                f'<line x1="{at:.1f}" x2="{until:.1f}" y1="{y + shift:.1f}" y2="{y + shift:.1f}" '
                f'stroke="{colour}" stroke-width="2" opacity="0.7"/>'
            )
        fill = 'class="hollow"' if index else f'fill="{colour}"'
        yield (
            f'<circle cx="{at:.1f}" cy="{y + shift:.1f}" r="3.2" {fill} stroke="{colour}" '
            f'stroke-width="1.8"><title>{escape(hint)}</title></circle>'
        )


def band(value: float, factor: float, x: Axis, left: float, y: float, colour: str) -> str:
    """Return the ground of a figure: up to that factor from it, as far as the panel goes."""
    low, high = max(value / factor, x.low), min(value * factor, x.high)
    start, end = left + PANEL * x.place(low), left + PANEL * x.place(high)
    return (
        f'<rect x="{start:.1f}" y="{y - 4:.1f}" width="{end - start:.1f}" height="8" '
        f'fill="{colour}" opacity="0.22"/>'
    )


def axis(found: Overview, columns: Sequence[int], *, spans: bool = False) -> Axis:
    """Return an axis for the figures of some columns, with the few ticks there is room for; with
    ``spans`` for those of every round."""
    cells = [row.cells[index] for row in found.rows for index in columns]
    values = [value for each in cells for value in each.values.values() if value is not None]
    if spans:
        values += [end for each in cells for span in each.spans.values() for end in span]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if found.columns[columns[0]].log and low > 0.0:
        low, high = low * 0.8, high * 1.25
        ticks = log_ticks(low, high)
        powers = [tick for tick in ticks if f"{tick:e}".startswith("1.0")]
        ticks = powers if len(powers) > 1 else ticks
        while len(ticks) > 4:
            ticks = ticks[::2]
        return Axis(low, high, [(tick, short(tick)) for tick in ticks], "", is_log=True)
    high = high * 1.08 or 1.0
    return Axis(0.0, high, [(tick, short(tick)) for tick in nice_ticks(0.0, high, 3)], "")


def column(found: Overview, experiment: str, key: str) -> int | None:
    """Return the index of a column; None: the result has no such figure."""
    for index, mine in enumerate(found.columns):
        if (mine.experiment, mine.key) == (experiment, key):
            return index
    return None
