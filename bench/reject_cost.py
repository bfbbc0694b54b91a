"""What a rejection costs the server, and what a flood of them costs the admitted.

    python -m bench.reject_cost [--held 10,1000,10000] [--pairs 8] [--json FILE] [--rules]

With the cap held by idle clients, a flood from another process is turned away by gserver, and by
a bare accept-and-close loop, the floor (bench/floor.py). In blocks, in the order ABBA: the
server's CPU time (/proc/PID/task/*/schedstat, summed) over the clients turned away. Printed: the
median of the pairs' ratios, beside the band in which the same ratio lies for two identical floors
(A/A), and the echo latency of an admitted client with the flood and without.

With ``--rules`` a server with a cap and a rate for each source is compared instead, with one that
has the bare cap: both turn the flood away for want of slots, the one after asking its rules.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BLOCK_S = 0.5
FLOOR_TARGET = 1.1  # of a bare accept-and-close loop's CPU
RULES_TARGET = 1.25  # of the bare cap's
ROOT = Path(__file__).parent.parent


class Server:
    """A server with its cap held: the process, its flood and its holder."""

    def __init__(self, name: str, command: list[str], held: int, stack: ExitStack) -> None:
        self.name = name
        self.process, first = start(command, stack, cpu=0)
        port = first.split("127.0.0.1:")[1].split(";")[0].strip()
        module = [sys.executable, "-m"]
        self.holder, _ = start([*module, "bench.holder", port, str(held)], stack, cpu=1)
        self.flooder, _ = start([*module, "bench.flood", port], stack, cpu=1, speaks=False)

    def cpu_ns(self) -> int:
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks.iterdir())

    def block(self, how: str) -> tuple[float, float, list[float]]:
        """One block of flood: µs of CPU a rejection, rejections a second, echo latencies."""
        before = self.cpu_ns()
        tell(self.holder, str(BLOCK_S))
        answer = json.loads(ask(self.flooder, f"{BLOCK_S} {how}"))
        latencies = json.loads(self.holder.stdout.readline())  # type: ignore[union-attr]
        if answer["other"]:
            sys.exit(f"{self.name}: {answer['other']} clients over the cap were served")
        cpu = (self.cpu_ns() - before) / answer["rejected"] / 1000
        return cpu, answer["rejected"] / answer["seconds"], latencies

    def quiet(self) -> list[float]:
        return json.loads(ask(self.holder, str(BLOCK_S)))  # type: ignore[no-any-return]


def start(
    command: list[str], stack: ExitStack, *, cpu: int, speaks: bool = True
) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    line = process.stdout.readline() if speaks else ""  # type: ignore[union-attr]
    if speaks and not line:
        sys.exit(f"did not start: {' '.join(command)}")
    return process, line


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def ask(process: subprocess.Popen[str], line: str) -> str:
    tell(process, line)
    assert process.stdout is not None
    return process.stdout.readline()


#: As much as the flood can ask for, so that it is turned away for want of slots all the same.
RULES = ["--source-rate", "1000000", "--source-exempt", "198.51.100.0/24"]


@contextmanager
def servers(held: int, rules: bool) -> Iterator[tuple[Server, Server, Server]]:
    """What is measured, what it is compared with, and another of the latter."""
    floor = [sys.executable, "-m", "bench.floor", "0", str(held)]
    ours = [sys.executable, "-m", "gserver", "serve", "echo", "--listen", "127.0.0.1:0"]
    ours += ["--max-connections", str(held)]
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


def abba(a: Server, b: Server, how: str, pairs: int) -> dict[str, Any]:
    ratios, costs_a, costs_b, rates = [], [], [], []
    latencies: list[float] = []
    for _ in range(pairs):
        blocks = [server.block(how) for server in (a, b, b, a)]
        (a1, r1, l1), (b1, _, _), (b2, _, _), (a2, r2, l2) = blocks
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


def measure(held: int, pairs: int, rules: bool) -> list[dict[str, Any]]:
    rows = []
    with servers(held, rules) as (ours, floor, again):
        for server in (ours, floor, again):
            server.block("close")  # warm up
        for how in ("close", "reset"):
            quiet = percentiles([x for _ in range(pairs) for x in ours.quiet()])
            pair = abba(ours, floor, how, pairs)
            same = abba(floor, again, how, pairs)
            row = {"held": held, "clients": how, "pair": pair, "same": same, "quiet_us": quiet}
            rows.append(row)
            print_row(row)
    return rows


def print_row(row: dict[str, Any]) -> None:
    pair, same = row["pair"], row["same"]
    echo, quiet = pair["echo_us_a"], row["quiet_us"]
    print(
        f"{row['held']:>7,} {row['clients']:>7}"
        f" {pair['us_a']:>9.1f} {pair['us_b']:>8.1f} {pair['ratio']:>7.3f}"
        f"   {min(same['ratios']):.2f}-{max(same['ratios']):.2f} {pair['rate_a']:>9,.0f}"
        f" {quiet['p50']:>8.0f} {quiet['p99']:>6.0f} {echo['p50']:>8.0f} {echo['p99']:>6.0f}",
        flush=True,
    )


def print_verdicts(rows: list[dict[str, Any]], target: float) -> None:
    """The two targets: the ratio, and that the cost doesn't grow with the connections held."""
    for how in ("close", "reset"):
        mine = [row for row in rows if row["clients"] == how]
        worst = max(row["pair"]["ratio"] for row in mine)
        print(f"{how}: at most {worst:.2f} of {target}: {'met' if worst <= target else 'missed'}")
        first, last = mine[0], mine[-1]
        growth = last["pair"]["ratio"] / first["pair"]["ratio"]
        bands = [ratio for row in mine for ratio in row["same"]["ratios"]]
        flat = min(bands) <= growth <= max(bands)
        print(
            f"{how}: ratio at {last['held']:,} held over that at {first['held']:,}: {growth:.2f}, "
            f"{'within' if flat else 'outside'} the A/A band {min(bands):.2f}-{max(bands):.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--held", default="10,1000,10000")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rules", action="store_true")
    args = parser.parse_args()
    # The children inherit it: a holder of 10,000 needs as many descriptors.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    a, b = ("rules", "bare cap") if args.rules else ("gserver", "floor")
    print(
        "                CPU µs a rejection              A/A  rejected     echo, µs: quiet, flood"
    )
    print(f"   held clients {a:>9} {b:>8}   ratio   band      a second  p50    p99    p50    p99")
    rows = []
    for held in map(int, args.held.split(",")):
        rows += measure(held, args.pairs, args.rules)
    print_verdicts(rows, RULES_TARGET if args.rules else FLOOR_TARGET)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        environment = {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "command": f"python -m bench.reject_cost --held {args.held} --pairs {args.pairs}"
            + (" --rules" if args.rules else ""),
        }
        args.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
