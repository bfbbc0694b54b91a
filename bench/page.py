"""A comparison as one self-contained page of HTML: tables, plots, servers, environment.

No script. A result in, text out.
"""

from __future__ import annotations

import json
import shlex
import statistics
from html import escape

from bench.colours import COLOUR
from bench.overview import AGAIN, Overview, overview, sees
from bench.overview_plot import overview_plot
from bench.ratios import comparison, partners
from bench.results import Figure, Group, Origin, Result, Series
from bench.table import EXPLANATION, group_rows, legend, remarks
from gserver.probe.html_report import STYLE
from gserver.probe.svg import Axis, Chart

__all__ = ["page"]

TITLE = "Servers at their connection limit"

#: Wider than the probe's own page: the tables have a column for each figure.
WIDER = """
body { max-width:1180px } table { font-size:.8rem } th, td { padding:.25rem .4rem }
.wide { overflow-x:auto } .wide td { white-space:nowrap }
.wide .words td, .words th { text-align:left; white-space:normal }
"""

#: Pixels of a server's row in a plot, and beside it for its name.
ROW, NAMES = 22, 190


def page(result: Result) -> str:
    """Return the page."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{TITLE}</title><style>{STYLE}{WIDER}</style><h1>{TITLE}</h1>",
        f'<p class="note">{escape(EXPLANATION)} In the plots: a small mark a block, a large one '
        "for their median; shaded, the A/A band around the server that its group is compared "
        "with.</p>",
    ]
    if result.partial:
        parts.append(f'<p class="warn">Partial: {escape(result.partial)}</p>')
    if gaps := result.gaps():
        items = "".join(f"<li>{escape(gap)}</li>" for gap in gaps)
        parts.append(f'<p class="warn">Missing blocks:</p><ul class="warn">{items}</ul>')
    parts += summary(overview(result), result)
    for group in result.groups:
        parts.append(f"<h2>{escape(group.title)}, cap {group.cap}</h2>")
        rows = list(group_rows(group, result))
        parts.append(html_table(rows))
        parts += [f'<p class="note">{escape(text)}</p>' for text in legend(rows)]
        parts += [f'<p class="note">[{mark}] {escape(text)}</p>' for mark, text in remarks(group)]
        parts += [plot(group, figure, result) for figure in group.figures if figure.plotted]
    parts.append("<h2>Servers</h2>" + servers(result))
    parts += [environment(origin) for origin in result.origins]
    return "\n".join([*parts, "</html>\n"])


def environment(origin: Origin) -> str:
    """Return where and when the rounds of one run were made."""
    about = {
        **origin.environment,
        "seed": origin.seed,
        "experiments": origin.experiments,
        "command_line": shlex.join(origin.environment["command_line"]),
    }
    rounds = f"{origin.rounds} round{'s' * (origin.rounds != 1)}"
    return f"<h2>Environment, {rounds}</h2><pre>{escape(json.dumps(about, indent=1))}</pre>"


def summary(found: Overview, result: Result) -> list[str]:
    """Return the one table that has everybody, its picture, and its notes."""
    rows = [["server", "client sees", *(column.heading for column in found.columns)]]
    for row in found.rows:
        texts = [cell.text for cell in row.cells]
        rows.append([row.peer + row.mark, sees(row.peer, result), *texts])
        if row.again:
            rows.append([AGAIN, "", *row.again])
    caps = " / ".join(f"{cap:,}" for cap in found.caps)
    about = "; ".join(f"{column.heading}: {column.about}" for column in found.columns)
    notes = "".join(f"<li>{escape(text)}</li>" for text in found.notes)
    return [
        overview_plot(found, result, inline=True),
        html_table(rows, "summary"),
        f'<p class="note">Caps {caps}. {escape(about)}. {escape(found.reading)}</p>',
        f'<ol class="note">{notes}</ol>',
        f'<p class="note">{escape(found.late)}</p>' * bool(found.late),
    ]


def html_table(rows: list[list[str]], kind: str = "") -> str:
    """Return a table whose first row is its head, of the CSS class ``kind``."""
    head, *body = rows
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    inside = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table class="{kind}">{inside}</table></div>'


def servers(result: Result) -> str:
    """Return the table of who took part, and who couldn't."""
    rows = [["server", "what it is", "policy", "backlog", "version", "its cap counts"]]
    for info in result.peers.values():
        rows.append(
            [info.name, info.title, info.policy, str(info.backlog), info.version, info.counts]
        )
    rows += [[name, why, "", "", "", ""] for name, why in result.missing.items()]
    return html_table(rows, "words")


def plot(group: Group, figure: Figure, result: Result) -> str:
    """Return one figure's plot with its heading; "" when no server has the figure."""
    shown = [series for series in group.series if present(series, figure)]
    if not shown:
        return ""
    values = [value for series in shown for value in present(series, figure)]
    title = figure.title
    if figure.unit == "us" and min(values) > 0:
        x = Axis.log(min(values), max(values), f"{title}, log")
    else:
        x = Axis.linear(0.0, max(values) * 1.05, title)
    count = len(shown)
    places = {id(series): float(count - i) for i, series in enumerate(shown)}
    ticks = [(places[id(series)], series.label) for series in shown]
    chart = Chart(x, Axis(0.5, count + 0.5, ticks, ""), height=70 + ROW * count)
    chart.LEFT = NAMES
    draw_bands(chart, group, figure, result, places)
    for series in shown:
        colour = COLOUR[result.peers[series.peer].policy]
        y = places[id(series)]
        mine = present(series, figure)
        for value in mine:
            chart.dot((value, y), colour, f"{series.label}: {value:.4g}", hollow=True)
        middle = statistics.median(mine)
        chart.dot((middle, y), colour, f"{series.label}: median {middle:.4g}")
    return f'<p class="note">{escape(title)}</p>{chart.render()}'


def draw_bands(
    chart: Chart, group: Group, figure: Figure, result: Result, places: dict[int, float]
) -> None:
    """Shade the A/A band behind the rows of each group that has one."""
    if not figure.compared:
        return
    for name in dict.fromkeys(series.group for series in group.series):
        members = [series for series in group.series if series.group == name]
        reference, twin = partners(members)
        found = comparison(twin, figure, group, result.seed) if twin is not None else None
        rows = [places[id(series)] for series in members if id(series) in places]
        if found is None or not rows:
            continue
        middle = statistics.median(present(reference, figure))
        low, high = middle * found.band.low, middle * found.band.high
        top, bottom = max(rows) + 0.5, min(rows) - 0.5
        colour = COLOUR[result.peers[reference.peer].policy]
        chart.area([(low, top), (high, top)], [(low, bottom), (high, bottom)], colour, opacity=0.12)


def present(series: Series, figure: Figure) -> list[float]:
    """Return a row's figures without the blocks that gave none."""
    return [value for value in series.values(figure.key) if value is not None]
