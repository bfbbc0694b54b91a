"""What the README says of a comparison: Markdown from its result. Pure.

Nothing is said that the figures do not: also who is ahead of whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.markdown import loaded, markdown, place
from bench.overview import AGAIN, AHEAD, OURS, Ahead, Overview, overview, sees
from bench.results import Result
from bench.stats import MIN_BLOCKS

__all__ = ["compared", "refusing"]


FEW = f"Of fewer than {MIN_BLOCKS} rounds it is not said who is ahead of whom."


def made(result: Result) -> str:
    """Say of how many rounds a comparison is, and where and when each of its runs was made."""
    first, *others = result.origins
    where = place(first.environment)
    if not others:
        return f"{result.rounds_text}, {day(first.environment)}, {where}{loaded(first.environment)}"
    whole = {group.experiment for group in result.groups}
    runs = []
    for origin in result.origins:
        part = f" of {', '.join(origin.experiments)}" if set(origin.experiments) != whole else ""
        on = f"{day(origin.environment)}{loaded(origin.environment)}"
        runs.append(f"{origin.rounds}{part} on {on}")
    return f"{result.rounds_text}, {where}, in {len(runs)} runs: {'; '.join(runs)}"


def day(environment: dict[str, Any]) -> str:
    """Return the date of a run."""
    return str(environment["started_at"])[:10]


def compared(result: Result) -> str:
    """The picture, the table, who is ahead of us, and what qualifies the figures."""
    found = overview(result)
    head = ["server", "client sees", *(column.heading for column in found.columns)]
    rows = []
    for row in found.rows:
        name = f"**{row.peer}**" if row.peer.startswith(OURS) else row.peer
        mark = f"<sup>{','.join(map(str, row.notes))}</sup>" if row.notes else ""
        cells = [glance(cell.text).replace(AHEAD, "\\" + AHEAD) for cell in row.cells]
        rows.append([name + mark, sees(row.peer, result), *cells])
        if row.again:
            rows.append([f"*{AGAIN}*", "", *map(glance, row.again)])
    about = "; ".join(f"**{column.heading}**: {column.about}" for column in found.columns)
    caps = " / ".join(f"{cap:,}" for cap in found.caps)
    parts = [
        f"{len(found.rows)} servers, {made(result)}. Caps {caps}; one figure where both are the "
        "same, or where the cap does not matter. In the picture a thin "
        "line spans the rounds; shaded behind who ran twice is how far it is from itself.",
        "![Every server's figures, a row each](bench/results/compare.svg)",
        markdown(head, rows),
        f"{about}. {found.reading.replace(AHEAD, chr(92) + AHEAD)}",
        ahead(found) if result.rounds >= MIN_BLOCKS else FEW,
    ]
    if text := behind(found):
        parts.append(text)
    if result.missing:
        parts.append(f"Not measured, because not installed: {', '.join(result.missing)}.")
    if result.partial:
        parts.append(f"**Partial**: {result.partial}.")
    if gaps := result.gaps():
        parts.append("**Missing**:\n\n" + "\n".join(f"- {one_line(gap)}" for gap in gaps))
    if found.notes:
        notes = "\n".join(
            f"{number}. {one_line(text)}" for number, text in enumerate(found.notes, 1)
        )
        parts.append(f"Remarks, by the number behind a name:\n\n{notes}")
    if found.late:
        parts.append(found.late)
    parts.append(configured(result))
    return "\n\n".join(parts)


def glance(text: str) -> str:
    """Return a cell's figures in one line, and once where they are the same at every cap."""
    figures = text.split(" / ")
    return (
        figures[0]
        if len(set(figures)) == 1
        else "\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}".join(figures)
    )


def configured(result: Result) -> str:
    """Versions and the length of each listener's queue, folded away."""
    lines: dict[str, list[str]] = {}
    for info in result.peers.values():
        lines.setdefault(f"{info.version}, queue {info.backlog:,}", []).append(info.name)
    items = "\n".join(f"- {', '.join(names)}: {text}" for text, names in lines.items())
    summary = "Versions, and how many clients each listener's queue holds"
    return f"<details><summary>{summary}</summary>\n\n{items}\n\n</details>"


def one_line(text: str) -> str:
    return " ".join(text.split())


def ahead(found: Overview) -> str:
    """Say, figure by figure, who is ahead of us and by how much; and that nobody is, if so."""
    lines = []
    for column in found.columns:
        by_peer: dict[str, list[Ahead]] = {}
        for mark in found.ahead:
            if (mark.column.experiment, mark.column.key) == (column.experiment, column.key):
                by_peer.setdefault(mark.peer, []).append(mark)
        if by_peer:
            peers = ", ".join(f"{peer}{by_how_much(mine)}" for peer, mine in by_peer.items())
            lines.append(f"- {column.heading}: {peers}")
    if not lines:
        return "In none of these figures is a peer ahead of gserver's row."
    return "Ahead of gserver's row whose clients see the same:\n\n" + "\n".join(lines)


def behind(found: Overview) -> str:
    """Say where ours that have no such peer are behind those of other kinds; "" nowhere."""
    lines = []
    headings = [column.heading for column in found.columns]
    cells = {row.peer: dict(zip(headings, row.cells, strict=True)) for row in found.rows}

    def figure(peer: str, heading: str) -> str:
        return glance(cells[peer][heading].text).replace(AHEAD, "")

    for each in found.behind:
        heading = each.column.heading
        by_text: dict[str, list[str]] = {}
        for peer in each.peers:
            by_text.setdefault(figure(peer, heading), []).append(peer)
        others = "; ".join(f"{', '.join(peers)} {text}" for text, peers in by_text.items())
        lines.append(f"- {each.ours}, {heading}: {figure(each.ours, heading)}; {others}")
    if not lines:
        return ""
    return (
        "Behind peers whose clients are told in another way, where no peer's see the same "
        "(latency is not compared):\n\n" + "\n".join(lines)
    )


def by_how_much(marks: Sequence[Ahead]) -> str:
    """Return the ratios to ours, by cap; nothing for counts: the table has them."""
    ratios = [f"{mark.ratio:.2f} at cap {mark.cap:,}" for mark in marks if mark.ratio is not None]
    return f" ({', '.join(ratios)})" if ratios else ""


def refusing(result: Result) -> str:
    """What becomes of those who close and come back, where the kernel refuses and where the server
    answers, in a sentence; "" when that was not measured."""
    said: dict[str, list[str]] = {}
    for group in result.groups:
        if group.experiment != "churn":
            continue
        for row in group.series:
            if not row.peer.startswith(OURS) or row.twin:
                continue
            tries, false = (
                sum(value for value in row.values(key) if value is not None)
                for key in ("tries", "false")
            )
            if tries:
                text = f"{false:,.0f} of {tries:,.0f} at cap {group.cap:,}" if false else "none"
                said.setdefault(row.peer.removeprefix(OURS), []).append(text)
    refused = said.pop("refuse", None)
    if refused is None:
        return ""
    by_text: dict[str, list[str]] = {}
    for name, texts in said.items():
        by_text.setdefault(", ".join(dict.fromkeys(texts)), []).append(f"`{name}`")
    others = "; ".join(f"{', '.join(names)} {text}" for text, names in by_text.items())
    return (
        "Of clients who closed their connection to a full server and came back at once, `refuse` "
        f"turned away {', '.join(refused)}: the kernel answers until the server has seen that a "
        f"slot is free.{f' Of as many: {others}.' if others else ''} (`python -m bench compare`)"
    )
