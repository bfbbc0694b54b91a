"""What a rejection costs the server, and what a flood of them costs the admitted.

    python -m bench reject-cost [--held 10,1000,10000] [--pairs 8] [--json FILE] [--rules]

With the cap held by idle clients, a flood from another process is turned away by gserver, and by
a bare accept-and-close loop, the floor (bench/floor.py). In blocks, in the order ABBA: the
server's CPU time (/proc/PID/task/*/schedstat, summed) over the clients turned away. Printed: the
median of the pairs' ratios, beside the band in which the same ratio lies for two identical floors
(A/A), and the echo latency of an admitted client with the flood and without.

With ``--rules`` a server with a cap and a rate for each source is compared instead, with one that
has the bare cap: both turn the flood away for want of slots, the one after asking its rules.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from bench.costs import Sheet, cost
from bench.options import numbers
from bench.pairs import abba
from bench.processes import GSERVER, ask, cpu_ns, module, start, tell

__all__ = ["FLOOR_TARGET", "RULES_TARGET", "main"]

BLOCK_S = 0.5
FLOOR_TARGET = 1.1  # of a bare accept-and-close loop's CPU
RULES_TARGET = 1.25  # of the bare cap's

#: As much as the flood can ask for, so that it is turned away for want of slots all the same.
RULES = ["--source-rate", "1000000", "--source-exempt", "198.51.100.0/24"]


class Server:
    """A server with its cap held: the process, its flood and its holder."""

    def __init__(self, name: str, command: list[str], held: int, stack: ExitStack) -> None:
        self.name = name
        self.process, first = start(command, stack, cpu=0)
        port = first.split("127.0.0.1:")[1].split(";")[0].strip()
        self.holder, _ = start(module("bench.holder", port, held), stack, cpu=1)
        self.flooder, _ = start(module("bench.flood", port), stack, cpu=1, speaks=False)

    def block(self, how: str) -> tuple[float, float, list[float]]:
        """One block of flood: µs of CPU a rejection, rejections a second, echo latencies."""
        before = cpu_ns(self.process.pid)
        tell(self.holder, str(BLOCK_S))
        answer = json.loads(ask(self.flooder, f"{BLOCK_S} {how}"))
        latencies = json.loads(self.holder.stdout.readline())  # type: ignore[union-attr]
        if answer["other"]:
            sys.exit(f"{self.name}: {answer['other']} clients over the cap were served")
        cpu = (cpu_ns(self.process.pid) - before) / answer["rejected"] / 1000
        return cpu, answer["rejected"] / answer["seconds"], latencies

    def quiet(self) -> list[float]:
        return json.loads(ask(self.holder, str(BLOCK_S)))  # type: ignore[no-any-return]


@contextmanager
def servers(held: int, rules: bool) -> Iterator[tuple[Server, Server, Server]]:
    """What is measured, what it is compared with, and another of the latter."""
    floor = module("bench.floor", 0, held)
    ours = [*GSERVER, "--max-connections", str(held)]
    with ExitStack() as stack:
        if rules:
            yield (
                Server("rules", [*ours, "--per-source", str(held + 1), *RULES], held, stack),
                Server("bare cap", ours, held, stack),
                Server("bare cap again", ours, held, stack),
            )
        else:
            yield (
                Server("gserver", ours, held, stack),
                Server("floor", floor, held, stack),
                Server("floor again", floor, held, stack),
            )


def paired(a: Server, b: Server, how: str, pairs: int) -> dict[str, Any]:
    """Compare two servers: medians over the pairs, and every pair's ratio."""
    ratios, costs_a, costs_b, rates = [], [], [], []
    latencies: list[float] = []
    for mine, theirs in abba(lambda: a.block(how), lambda: b.block(how), pairs):
        (a1, r1, l1), (a2, r2, l2) = mine
        (b1, _, _), (b2, _, _) = theirs
        ratios.append((a1 + a2) / (b1 + b2))
        costs_a += [a1, a2]
        costs_b += [b1, b2]
        rates += [r1, r2]
        latencies += l1 + l2
    return {
        "a": a.name,
        "b": b.name,
        "ratio": statistics.median(ratios),
        "ratios": [round(r, 4) for r in ratios],
        "us_a": statistics.median(costs_a),
        "us_b": statistics.median(costs_b),
        "rate_a": statistics.median(rates),
        "echo_us_a": percentiles(latencies),
    }


def percentiles(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "n": len(ordered),
    }


def measure(sheet: Sheet, held: int, pairs: int, rules: bool) -> None:
    sheet.tell(f"{held:,} held: starting")
    with servers(held, rules) as (ours, floor, again):
        for server in (ours, floor, again):
            server.block("close")  # warm up
        for how in ("close", "reset"):
            sheet.tell(f"{held:,} held, clients that {how}")
            quiet = percentiles([x for _ in range(pairs) for x in ours.quiet()])
            pair = paired(ours, floor, how, pairs)
            same = paired(floor, again, how, pairs)
            row = {"held": held, "clients": how, "pair": pair, "same": same, "quiet_us": quiet}
            sheet.row(line(row), **row)


def line(row: dict[str, Any]) -> str:
    pair, same = row["pair"], row["same"]
    echo, quiet = pair["echo_us_a"], row["quiet_us"]
    return (
        f"{row['held']:>7,} {row['clients']:>7}"
        f" {pair['us_a']:>9.1f} {pair['us_b']:>8.1f} {pair['ratio']:>7.3f}"
        f"   {min(same['ratios']):.2f}-{max(same['ratios']):.2f} {pair['rate_a']:>9,.0f}"
        f" {quiet['p50']:>8.0f} {quiet['p99']:>6.0f} {echo['p50']:>8.0f} {echo['p99']:>6.0f}"
    )


def verdicts(rows: list[dict[str, Any]], target: float) -> Iterator[str]:
    """The two targets: the ratio, and that the cost doesn't grow with the connections held."""
    for how in ("close", "reset"):
        mine = [row for row in rows if row["clients"] == how]
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


def about(held: tuple[int, ...], pairs: int, rules: bool) -> float:
    """Nine blocks a pair for each way that clients end, and what the holders need to come in."""
    return sum(18 * BLOCK_S * pairs + 4 + 3 * count * 2e-4 for count in held)


@cost("reject-cost", about)
@click.option("--held", type=numbers, default=(10, 1_000, 10_000), help="[default: 10,1000,10000]")
@click.option("--pairs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--rules", is_flag=True, help="A gate with rules against one without.")
def main(sheet: Sheet, held: tuple[int, ...], pairs: int, rules: bool) -> None:
    """A rejection's CPU time beside that of a bare accept loop, and the admitted's echo."""
    a, b = ("rules", "bare cap") if rules else ("gserver", "floor")
    sheet.say(
        "                CPU µs a rejection              A/A  rejected     echo, µs: quiet, flood"
    )
    sheet.say(
        f"   held clients {a:>9} {b:>8}   ratio   band      a second  p50    p99    p50    p99"
    )
    for count in held:
        measure(sheet, count, pairs, rules)
    for text in verdicts(sheet.rows, RULES_TARGET if rules else FLOOR_TARGET):
        sheet.verdict(text)


if __name__ == "__main__":
    main()
