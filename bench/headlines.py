"""The columns of the overview: which figures are headlines, and what is said of each. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.experiments import burst, isolation, storm
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


TOLD = "µs from connect to verdict, {rate} a second, {told} a round after warm-up"

FLOODED = (
    "the median echo of the admitted, {echoes} a round, while {flood} a second are turned away "
    "here ({queue} left to wait, of servers that queue), over the same while as many are closed at "
    "once elsewhere"
)

ECHO_P99 = "the same of the p99, which {echoes_beyond} of a round's exceed"

COLUMNS = (
    Column("storm", "p50", "told p50", TOLD, log=True),
    Column("storm", "p99", "p99", "the same, which {told_beyond} of a round's exceed", log=True),
    Column("storm", "cpu", "CPU", "server's µs a rejection, {rate} a second"),
    Column("storm", "machine", "machine", "the whole machine's µs an attempt, its client's too"),
    Column("flood", "cpu", "CPU flood", "the same, {higher_rate} a second"),
    Column("storm", "time_wait", "TIME_WAIT", "left on the server by each rejection", counted=True),
    Column(
        "storm",
        "unanswered",
        "silent %",
        "clients who were told nothing, in the worst round",
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
        "in {patience} s, of {at_once} at once, cap {few}, in the worst round",
        counted=True,
        any_kind=True,
    ),
    Column("burst", "last", "last told", "µs until the last of those was, one a round", log=True),
    Column("isolation", "p50", "echo p50 x", FLOODED, digits=3),
    Column("isolation", "p99", "echo p99 x", ECHO_P99, log=True),
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
    """Return the columns with what they say filled in: the tries that were made, the names of the
    proxies, and the experiments' settings."""
    series = [row for group in groups.get("churn", ()) for row in group.series]
    tries = max((sum(present(row.values("tries"))) for row in series), default=0)
    held = [row.peer for group in groups.get("memory", ()) for row in group.series]
    proxies = [peer for peer in dict.fromkeys(held) if is_proxy(peer)]
    words = {
        "tries": number(tries),
        "proxies": PROXIES.format(names=", ".join(proxies)) if proxies else "",
        **settings(),
    }
    return [replace(each, about=each.about.format(**words)) for each in columns]


def settings() -> dict[str, str]:
    """Return how many are asked for, and at what rate: results don't have it."""
    told, echoes = storm.Storm.samples(), isolation.SAMPLES
    found = {
        "rate": storm.Storm.rate,
        "higher_rate": storm.Flood.rate,
        "told": told,
        "told_beyond": told // 100,
        "at_once": burst.CLIENTS,
        "patience": burst.DEADLINE,
        "few": burst.Burst.own_cap,
        "flood": isolation.FLOOD,
        "queue": isolation.QUEUE_FLOOD,
        "echoes": echoes,
        "echoes_beyond": echoes // 100,
    }
    return {name: number(value) for name, value in found.items()}


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
