"""The columns of the overview: which figures are headlines, and what is said of each. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.peers import PEERS
from bench.results import Figure, Group, Series, number

__all__ = ["COLUMNS", "Column", "figure", "is_proxy", "named", "present", "row_of", "there_is"]


@dataclass(frozen=True, slots=True)
class Column:
    """A headline: a figure of an experiment. Less is better, but for those with ``more``.

    ``about`` is a clause that follows the heading and a colon. ``counted``: compared by its
    counts; ``any_kind``: also with servers that turn people away in another way; ``log``: plotted
    on a logarithmic axis; ``digits``: how many mean something.
    """

    experiment: str
    key: str
    heading: str
    about: str
    counted: bool = False
    any_kind: bool = False
    log: bool = False
    more: bool = False
    digits: int = 2


FLOODED = (
    "the median echo of the admitted while 4,000 a second are turned away here (500 left to "
    "wait, of servers that queue), over the same while as many are closed at once elsewhere"
)

COLUMNS = (
    Column("storm", "p50", "told p50", "µs from connect to verdict, 2,000 a second", log=True),
    Column("storm", "p99", "p99", "the same, of 100 clients the slowest", log=True),
    Column("storm", "cpu", "CPU", "server's µs a rejection, 2,000 a second"),
    Column("storm", "machine", "machine", "the whole machine's µs an attempt, its client's too"),
    Column("flood", "cpu", "CPU flood", "the same, 8,000 a second"),
    Column("storm", "time_wait", "TIME_WAIT", "left on the server by each rejection", counted=True),
    Column(
        "storm",
        "unanswered",
        "silent %",
        "clients who were told nothing",
        counted=True,
        any_kind=True,
    ),
    Column(
        "churn",
        "false",
        "false",
        "rejections, of {tries} who closed and came back",
        counted=True,
        any_kind=True,
    ),
    Column(
        "burst",
        "unanswered",
        "unanswered",
        "in 4 s, of 500 at once, cap 3",
        counted=True,
        any_kind=True,
    ),
    Column("burst", "last", "last told", "µs until the last of those was", log=True),
    Column("isolation", "p50", "echo p50 x", FLOODED, log=True, digits=3),
    Column("isolation", "p99", "echo p99 x", "the same, of 100 echoes the slowest", log=True),
    Column(
        "isolation",
        "goodput",
        "goodput x",
        "the same of their echoes a second: more is better",
        counted=True,
        more=True,
    ),
    Column("memory", "pss", "KiB", "of the server's memory a held connection{proxies}", log=True),
)

#: What the memory of a proxy leaves out.
PROXIES = " ({names}: the proxy's alone, though the server behind it holds a connection too)"


def there_is(column: Column, groups: Sequence[Group]) -> bool:
    """Whether ``groups`` have the figure of ``column``, and it may stand.

    All that the machine spent is never less than what the server did: where it is, it was counted
    in ticks of the clock, too coarse for a flood of a second.
    """
    if not groups or any(all(f.key != column.key for f in group.figures) for group in groups):
        return False
    if column.key != "machine":
        return True
    for series in (series for group in groups for series in group.series):
        machine, server = present(series.values("machine")), present(series.values("cpu"))
        if machine and server and statistics.median(machine) < statistics.median(server):
            return False
    return any(present(s.values("machine")) for group in groups for s in group.series)


def named(columns: Sequence[Column], groups: Mapping[str, Sequence[Group]]) -> list[Column]:
    """Return the columns with the number of tries that were made in what they say of it, and the
    names of the proxies."""
    series = [row for group in groups.get("churn", ()) for row in group.series]
    tries = max((sum(present(row.values("tries"))) for row in series), default=0)
    held = [row.peer for group in groups.get("memory", ()) for row in group.series]
    proxies = [peer for peer in dict.fromkeys(held) if is_proxy(peer)]
    words = {
        "tries": number(tries),
        "proxies": PROXIES.format(names=", ".join(proxies)) if proxies else "",
    }
    return [replace(each, about=each.about.format(**words)) for each in columns]


def is_proxy(peer: str) -> bool:
    """Whether a server of its own stands behind it."""
    return peer in PEERS and PEERS[peer].needs_backend


def row_of(peer: str, group: Group) -> Series | None:
    """Return the row of ``peer``, not its second run; None when it was not asked."""
    return next((row for row in group.series if row.peer == peer and not row.twin), None)


def figure(column: Column, group: Group) -> Figure:
    """Return the figure that ``column`` shows."""
    return next(figure for figure in group.figures if figure.key == column.key)


def present(values: Sequence[float | None]) -> list[float]:
    """Return ``values`` without the rounds that gave none."""
    return [value for value in values if value is not None]
