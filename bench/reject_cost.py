"""What a rejection costs the server, and what a flood of them costs the admitted.

    python -m bench reject-cost [--held 10,1000,10000] [--pairs 8] [--json FILE]
                             [--rules]

With the cap held by idle clients, a flood from another process is turned away by gserver, and by
a bare accept-and-close loop, the floor (bench/floor.py). In blocks, in the order ABBA: the CPU
time of the server's processes over the clients turned away. Printed: the median of the pairs'
ratios, beside the band in which the same ratio lies for two identical floors (A/A), and the echo
latency of an admitted client with the flood and without.

The flood keeps a rate (bench/flood.py), which its process must have time to spare for: where that
was saturated, or came late, the run is invalid (exit status 3).

With ``--rules`` a server with a cap and a rate for each source is compared instead, with one that
has the bare cap: both turn the flood away for want of slots, the one after asking its rules. Once
with a few sources, which the rules' tables have at hand, and once with tens of thousands.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import click

from bench.advice import fitting
from bench.costs import Sheet, cost
from bench.flood import SOURCES, Flooded
from bench.options import numbers
from bench.pairs import abba
from bench.processes import GSERVER, ask, module, start, tell
from gserver.probe.outcomes import Outcome
from gserver.probe.procstat import measure
from gserver.probe.stats import summarise
from gserver.probe.validity import ClientHealth, judge

__all__ = ["FLOOR_TARGET", "RULES_TARGET", "main", "percentile", "percentiles"]

BLOCK_S = 0.5
FLOOR_TARGET = 1.1  # of a bare accept-and-close loop's CPU
RULES_TARGET = 1.25  # of the bare cap's

#: Clients a second. The process that makes them needs two thirds of a core for that many: most of
#: it goes into waking up for each, so that at 16,000 and more its core is full (bench/flood.py
#: alone: 57 % at 8,000, 81 % at 12,000, 98 % at 16,000; and still all of 30,000 were made).
RATE = 10_000

#: As much as the flood can ask for, so that it is turned away for want of slots all the same.
RULES = ["--source-rate", "1000000", "--source-exempt", "198.51.100.0/24"]


#: Sources of the flood, for rules: few, and so many that hardly one comes twice in a block.
RULES_SOURCES = (SOURCES, 60_000)


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is put to: connections held, clients a second, and from how many addresses."""

    held: int
    rate: int
    sources: int


@dataclass(frozen=True, slots=True)
class Block:
    """One server in one turn: ``us`` of its CPU a rejection, and ``echo`` latencies in ns.

    ``overflow``: TIME_WAITs that the machine's table had no room for meanwhile.
    """

    us: float
    flood: Flooded
    echo: list[int]
    overflow: int


class Server:
    """A server with its cap held: the process, its flood and its holder."""

    def __init__(self, name: str, command: list[str], load: Load, stack: ExitStack) -> None:
        self.name = name
        self.process, first = start(command, stack, cpu=0)
        port = first.split("127.0.0.1:")[1].split(";")[0].strip()
        self.holder, _ = start(module("bench.holder", port, load.held), stack, cpu=1)
        flooder = module("bench.flood", port, load.rate, load.sources)
        self.flooder, _ = start(flooder, stack, cpu=1, speaks=False)

    def block(self, how: str) -> Block:
        """One block of flood, by clients that ``how``."""
        before = measure(self.process.pid)
        tell(self.holder, str(BLOCK_S))
        flood = Flooded(**json.loads(ask(self.flooder, f"{BLOCK_S} {how}")))
        echo = json.loads(self.holder.stdout.readline())  # type: ignore[union-attr]
        after = measure(self.process.pid)
        if served := flood.outcomes.get(Outcome.ADMITTED):
            sys.exit(f"{self.name}: {served} clients over the cap were served")
        if not flood.rejected:
            sys.exit(f"{self.name}: nobody was turned away in {BLOCK_S} s")
        cpu = (after.server_cpu_s - before.server_cpu_s) / flood.rejected * 1e6
        return Block(cpu, flood, echo, after.time_wait_overflow - before.time_wait_overflow)

    def quiet(self) -> list[int]:
        return json.loads(ask(self.holder, str(BLOCK_S)))  # type: ignore[no-any-return]


@contextmanager
def servers(load: Load, rules: bool) -> Iterator[tuple[Server, Server, Server]]:
    """What is measured, what it is compared with, and another of the latter."""
    floor = module("bench.floor", 0, load.held)
    ours = [*GSERVER, "--max-connections", str(load.held)]
    ruled = [*ours, "--per-source", str(load.held + 1), *RULES]
    with ExitStack() as stack:

        def server(name: str, command: list[str]) -> Server:
            return Server(name, command, load, stack)

        if rules:
            yield server("rules", ruled), server("bare cap", ours), server("bare cap again", ours)
        else:
            yield server("gserver", ours), server("floor", floor), server("floor again", floor)


def paired(a: Server, b: Server, how: str, pairs: int) -> tuple[dict[str, Any], list[Block]]:
    """Compare two servers: medians over the pairs, and every pair's ratio; and all blocks."""
    ratios = []
    mine: list[Block] = []
    theirs: list[Block] = []
    for of_a, of_b in abba(lambda: a.block(how), lambda: b.block(how), pairs):
        ratios.append(sum(block.us for block in of_a) / sum(block.us for block in of_b))
        mine += of_a
        theirs += of_b
    found = {
        "a": a.name,
        "b": b.name,
        "ratio": statistics.median(ratios),
        "ratios": [round(r, 4) for r in ratios],
        "us_a": statistics.median(block.us for block in mine),
        "us_b": statistics.median(block.us for block in theirs),
        "rate_a": statistics.median(block.flood.rejected / block.flood.seconds for block in mine),
        "echo_us_a": percentiles([x for block in mine for x in block.echo]),
    }
    return found, mine + theirs


def percentiles(latencies_ns: Sequence[int]) -> dict[str, float]:
    """Return the percentiles in µs that have ten samples beyond them, and how many there are."""
    summary = summarise(latencies_ns)
    shown = {name: round(value * 1e6, 1) for name, value in summary.percentiles.items()}
    return {**shown, "n": summary.count}


def health(blocks: Sequence[Block]) -> ClientHealth:
    """Return how the flood's process fared over some blocks."""
    floods = [block.flood for block in blocks]
    planned, started = sum(f.planned for f in floods), sum(f.started for f in floods)
    share = sum(f.cpu for f in floods) / sum(f.seconds for f in floods)
    local = sum(f.outcomes.get(Outcome.LOCAL, 0) for f in floods)
    return ClientHealth([share], planned, started, planned - started, None, None, local)


def measured(sheet: Sheet, load: Load, pairs: int, rules: bool) -> None:
    """Write the rows of one number of connections held, and of sources."""
    sheet.tell(f"{load.held:,} held: starting")
    with servers(load, rules) as (ours, floor, again):
        for server in (ours, floor, again):
            server.block("close")  # warm up
        for how in ("close", "reset"):
            where = f"{load.held:,} held, clients of {load.sources:,} addresses that {how}"
            sheet.tell(where)
            quiet = percentiles([x for _ in range(pairs) for x in ours.quiet()])
            pair, blocks = paired(ours, floor, how, pairs)
            same, more = paired(floor, again, how, pairs)
            client = health(blocks + more)
            row = {
                "held": load.held,
                "sources": load.sources,
                "clients": how,
                "pair": pair,
                "same": same,
                "quiet_us": quiet,
            }
            sheet.row(line(row), **row, client=client.as_json())
            warnings, invalid = judge(client, "selftest")  # one process makes the load, as there
            if lost := sum(block.overflow for block in blocks + more):
                warnings.append(f"the machine's table of TIME_WAITs was full: {lost:,} thrown away")
            for text in warnings:
                sheet.warn(f"{where}: {text}")
            for text in invalid:
                sheet.invalidate(f"{where}: {fitting(text, ('--rate',))}")


def line(row: dict[str, Any]) -> str:
    pair, same = row["pair"], row["same"]
    echo = [percentile(row["quiet_us"], name) for name in ("p50", "p99")]
    echo += [percentile(pair["echo_us_a"], name) for name in ("p50", "p99")]
    return (
        f"{row['held']:>7,} {row['sources']:>7,} {row['clients']:>7}"
        f" {pair['us_a']:>9.1f} {pair['us_b']:>8.1f} {pair['ratio']:>7.3f}"
        f"   {min(same['ratios']):.2f}-{max(same['ratios']):.2f} {pair['rate_a']:>9,.0f}"
        f" {echo[0]:>8} {echo[1]:>6} {echo[2]:>8} {echo[3]:>6}"
    )


def percentile(summary: dict[str, float], name: str) -> str:
    """Return one of :func:`percentiles`; a dash where too few samples lay beyond it."""
    return f"{summary[name]:,.0f}" if name in summary else "-"


def verdicts(rows: list[dict[str, Any]], target: float) -> Iterator[str]:
    """The two targets: the ratio, and that the cost doesn't grow with the connections held."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sets.setdefault(f"{row['clients']}, {row['sources']:,} sources", []).append(row)
    for how, mine in sets.items():
        worst = max(row["pair"]["ratio"] for row in mine)
        yield f"{how}: at most {worst:.2f} of {target}: {'met' if worst <= target else 'missed'}"
        first, last = mine[0], mine[-1]
        growth = last["pair"]["ratio"] / first["pair"]["ratio"]
        bands = [ratio for row in mine for ratio in row["same"]["ratios"]]
        flat = min(bands) <= growth <= max(bands)
        yield (
            f"{how}: ratio at {last['held']:,} held over that at {first['held']:,}: {growth:.2f}, "
            f"{'within' if flat else 'outside'} the A/A band {min(bands):.2f}-{max(bands):.2f}"
        )


def about(held: tuple[int, ...], pairs: int, rate: int, rules: bool) -> float:
    """Nine blocks a pair for each way that clients end, and what the holders need to come in."""
    once = sum(18 * BLOCK_S * pairs + 4 + 3 * count * 2e-4 for count in held)
    return once * (len(RULES_SOURCES) if rules else 1)


@cost("reject-cost", about)
@click.option("--held", type=numbers, default=(10, 1_000, 10_000), help="[default: 10,1000,10000]")
@click.option("--pairs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--rate", type=click.IntRange(1_000, 100_000), default=RATE, show_default=True)
@click.option("--rules", is_flag=True, help="A gate with rules against one without.")
def main(sheet: Sheet, held: tuple[int, ...], pairs: int, rate: int, rules: bool) -> None:
    """A rejection's CPU time beside that of a bare accept loop, and the admitted's echo."""
    a, b = ("rules", "bare cap") if rules else ("gserver", "floor")
    sheet.say(
        "                        CPU µs a rejection              A/A  rejected     "
        "echo, µs: quiet, flood"
    )
    sheet.say(
        f"   held sources clients {a:>9} {b:>8}   ratio   band      a second"
        "  p50    p99    p50    p99"
    )
    for sources in RULES_SOURCES if rules else (SOURCES,):
        for count in held:
            measured(sheet, Load(count, rate, sources), pairs, rules)
    for text in verdicts(sheet.rows, RULES_TARGET if rules else FLOOR_TARGET):
        sheet.verdict(text)


if __name__ == "__main__":
    main()
