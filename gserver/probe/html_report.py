"""One self-contained HTML file: verdict, figures, plots, tables, environment. No script."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import IO, Final

from gserver.probe.plots import plots_of
from gserver.probe.result import Result
from gserver.probe.stats import QUANTILES, Summary
from gserver.probe.threshold import Threshold

__all__ = ["STYLE", "write_html"]

STYLE: Final = """
:root { --surface:#fff; --ink:#1b1f24; --soft:#5b6470; --line:#e3e6ea; --good:#1f7a37;
  --bad:#b3261e; --warn:#8a5a00; --tint:#f6f7f9; }
@media (prefers-color-scheme: dark) { :root { --surface:#15181c; --ink:#e8eaed; --soft:#9aa3ad;
  --line:#2c3238; --good:#6cc884; --bad:#ff8a80; --warn:#e0b050; --tint:#1d2126; } }
body { background:var(--surface); color:var(--ink); font:15px/1.5 system-ui,sans-serif;
  max-width:820px; margin:2rem auto; padding:0 1.2rem; }
h1 { font-size:1.5rem; margin:0 0 .2rem; } h2 { font-size:1.1rem; margin:2.2rem 0 .2rem; }
p.note { color:var(--soft); margin:.1rem 0 .6rem; font-size:.9rem; max-width:44rem; }
.verdict { display:inline-block; border-radius:4px; padding:.1rem .6rem; font-weight:600;
  border:1px solid currentColor; }
.good { color:var(--good); } .bad { color:var(--bad); } .warn { color:var(--warn); }
ul { padding-left:1.1rem; }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.25rem 1.2rem; margin:1.2rem 0; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
table { border-collapse:collapse; font-variant-numeric:tabular-nums; width:100%; }
th, td { text-align:right; padding:.25rem .6rem; border-bottom:1px solid var(--line); }
th:first-child, td:first-child { text-align:left; } th { color:var(--soft); font-weight:500; }
svg { width:100%; height:auto; display:block; } svg text { fill:var(--soft); font-size:12px; }
svg text.title { font-size:12.5px; fill:var(--ink); }
svg .grid { stroke:var(--line); } svg .axis { stroke:var(--soft); }
.legend { display:flex; flex-wrap:wrap; gap:.2rem 1.1rem; font-size:.85rem; color:var(--soft);
  margin:.3rem 0; }
.legend i { display:inline-block; width:22px; height:0; margin-right:.45rem;
  vertical-align:middle; border-top:2.5px solid var(--c); }
.legend i.dash { border-top-style:dashed; }
.legend i.area, .legend i.faint { height:11px; border:0; background:var(--c); }
.legend i.faint { opacity:.25; }
.legend i.mark { width:9px; height:9px; border:0; border-radius:50%; background:var(--c); }
p.headline { font-size:1.25rem; font-weight:600; margin:.8rem 0; }
pre { background:var(--tint); padding:.8rem; overflow-x:auto; font-size:.8rem; }
"""


def write_html(stream: IO[str], result: Result, checked: Sequence[tuple[Threshold, bool]]) -> None:
    """Write the page."""
    title = result.title
    out = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="headline">{_heading(result.headline)}</p>' if result.headline else "",
        _verdict(result, checked),
        "<dl>",
        *(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in result.lines),
        "</dl>",
    ]
    for heading, note, html in plots_of(result):
        out.append(f'<h2>{_heading(heading)}</h2><p class="note">{escape(note)}</p>{html}')
    for heading, rows in result.latencies.items():
        if any(summary.count for summary in rows.values()):
            out.append(f"<h2>{_heading(heading)}, µs</h2>{_table(rows)}")
    client = result.details.get("client")
    if client is not None:
        note = '<p class="note">Whether the load generator kept up.</p>'
        out.append(f"<h2>Client</h2>{note}<pre>{escape(json.dumps(client, indent=1))}</pre>")
    out.append("<h2>Environment</h2>")
    about = {"settings": result.settings, "environment": dict(result.environment)}
    words = about["environment"].pop("command_line", [])
    if words:
        out.append(f"<pre>{escape(_command(words))}</pre>")
    out.append(f"<pre>{escape(json.dumps(about, indent=1))}</pre></html>\n")
    stream.write("\n".join(out))


def _command(words: Sequence[str]) -> str:
    program = Path(words[0])
    name = f"python -m {program.parent.name}" if program.stem == "__main__" else program.name
    return f"{name} {shlex.join(words[1:])}"


def _heading(text: str) -> str:
    return escape(text[:1].upper() + text[1:])


def _verdict(result: Result, checked: Sequence[tuple[Threshold, bool]]) -> str:
    if result.invalid:
        word, kind = "does not count", "bad"
    elif result.partial:
        word, kind = "partial", "warn"
    elif not all(met for _, met in checked):
        word, kind = "threshold not met", "bad"
    else:
        word, kind = "valid", "good"
    items = [f'<li class="bad">{escape(text)}</li>' for text in result.invalid]
    if result.partial:
        items.append(f'<li class="warn">Partial: {escape(result.partial)}</li>')
    items += [f'<li class="warn">{escape(text)}</li>' for text in result.warnings]
    items += [
        f'<li class="{"good" if met else "bad"}">{escape(t.text)}: {"met" if met else "not met"}'
        "</li>"
        for t, met in checked
    ]
    return f'<p><span class="verdict {kind}">{word}</span></p><ul>{"".join(items)}</ul>'


def _table(rows: dict[str, Summary]) -> str:
    head = "".join(f"<th>{name.replace('p999', 'p99.9')}</th>" for name in QUANTILES)
    body = ""
    for name, summary in rows.items():
        if not summary.count:
            continue
        cells = "".join(
            f"<td>{summary.percentiles[q] * 1e6:.0f}</td>"
            if q in summary.percentiles
            else '<td title="fewer than ten samples beyond">&ndash;</td>'
            for q in QUANTILES
        )
        body += (
            f"<tr><td>{escape(name)}</td><td>{summary.count}</td>{cells}"
            f"<td>{summary.max * 1e6:.0f}</td></tr>"
        )
    return f"<table><tr><th></th><th>count</th>{head}<th>max</th></tr>{body}</table>"
