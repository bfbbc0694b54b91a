"""What the cap costs an unmodified program: time per accepted connection, memory per held one.

    python -m bench legacy-cost [--sets 6] [--rounds 10] [--connections 500] [--held 3000]

Three processes run the same program, which accepts and closes: two are merely monkey-patched (A
and A'), one has the cap as ``gserver.legacy.install()`` puts it there (B). A round gives each so
many connections, in the order A A' B B A' A, so that whatever else the machine does hits all of
them alike. What counts is the CPU time, user and system, that each process used for its
connections. Two equal processes can differ by 4 us for their whole lives, by where their memory
happens to lie: so each set of rounds has three new ones. The overhead of a set is the median over
its rounds of B less the mean of A and A'; that of a run is the median over its sets, between the
bounds within which it lies with 95 % confidence. A' less A is the same for two equal programs:
what a difference here has to exceed to mean anything. Clients are a process of their own. Memory
is the resident set before and after.

The target is at most 10 us.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import click

from bench.costs import Sheet, cost
from bench.processes import ask, start

__all__ = ["main"]

TARGET_US = 10.0
#: All on the last: on two, what each waking of the other costs (twice the whole) is counted too.
CPUS = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []

#: Each line of its input is a count: it accepts and closes so many, and says what that cost in
#: microseconds a connection. A negative count is held; then it says how many bytes each takes.
PROGRAM = """
import gevent.monkey; gevent.monkey.patch_all()
import sys
import gserver.legacy  # the same modules in memory either way
if sys.argv[1] == "capped":
    gserver.legacy.install(max_connections=int(sys.argv[2]))
import gc, os, socket, time
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
kept = []
for line in sys.stdin:
    count = int(line)
    print("go", flush=True)
    began, before = time.process_time(), resident() if count < 0 else 0
    if count > 0:
        for _ in range(count):
            listener.accept()[0].close()
        print((time.process_time() - began) / count * 1e6, flush=True)
    else:
        for _ in range(-count):
            kept.append(listener.accept()[0])
        print((resident() - before) / -count, flush=True)
"""


class Program:
    """One of the three; ended by the stack."""

    def __init__(self, kind: str, cap: int, stack: ExitStack) -> None:
        cpu = CPUS[-1] if len(CPUS) > 1 else None
        command = [sys.executable, "-c", PROGRAM, kind, str(cap)]
        self._process, port = start(command, stack, cpu=cpu)
        self._address = ("127.0.0.1", int(port))

    def _figure(self) -> float:
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def accept(self, count: int) -> float:
        """Microseconds of CPU for each of so many connections, one after the other."""
        ask(self._process, str(count))
        for _ in range(count):
            with socket.create_connection(self._address) as sock:
                sock.recv(1)  # until the program has closed it
        return self._figure()

    def hold(self, count: int) -> float:
        """Bytes for each of so many connections."""
        ask(self._process, str(-count))
        with ExitStack() as clients:
            for _ in range(count):
                clients.enter_context(socket.create_connection(self._address))
            return self._figure()


def median_and_bounds(values: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """The median, and where it lies with 95 % confidence (bootstrap, percentiles)."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return statistics.median(values), medians[draws // 40], medians[-draws // 40]


def verdict(low: float, high: float) -> str:
    """Whether the target is met, as far as this run can tell."""
    if high <= TARGET_US:
        return "met"
    return "not met" if low > TARGET_US else "not resolved: try a quieter machine or more rounds"


def in_words(values: Sequence[float]) -> str:
    return "{:6.1f} us ({:.1f} to {:.1f})".format(*median_and_bounds(values))


def one_set(
    sheet: Sheet, rounds: int, connections: int, held: int
) -> tuple[list[float], list[float]]:
    """Of A, A' and B: microseconds a connection, the median over the rounds of A and B, of A' less
    A, and of B less the mean of both; and bytes a held connection."""
    order = (0, 1, 2, 2, 1, 0)
    times = []
    with ExitStack() as stack:
        kinds = ("patched", "patched", "capped")
        programs = [Program(kind, held + 100, stack) for kind in kinds]
        for which in order:
            programs[which].accept(connections)  # warm up
        for number in range(rounds):
            sheet.tell(f"set {len(sheet.rows) + 1}, round {number + 1} of {rounds}")
            found: list[list[float]] = [[], [], []]
            for which in order:
                found[which].append(programs[which].accept(connections))
            a, again, capped = map(statistics.mean, found)
            times.append((a, capped, again - a, capped - (a + again) / 2))
        memory = [program.hold(held) for program in programs]
    return [statistics.median(values) for values in zip(*times, strict=True)], memory


def about(sets: int, rounds: int, connections: int, held: int) -> float:
    """Each connection is one round trip for both ends, on one processor."""
    return sets * (0.8 + 6 * (rounds + 1) * connections * 8e-5 + 3 * held * 7e-5)


@cost("legacy-cost", about)
@click.option("--sets", type=click.IntRange(1), default=6, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=500, show_default=True)
@click.option("--held", type=click.IntRange(1), default=3_000, show_default=True)
def main(sheet: Sheet, sets: int, rounds: int, connections: int, held: int) -> None:
    """What gserver exec adds to an accepted and to a held connection."""
    if len(CPUS) > 1:
        os.sched_setaffinity(0, CPUS[-1:])
    for number in range(sets):
        times, memory = one_set(sheet, rounds, connections, held)
        patched, capped, same, overhead = times
        sheet.row(
            f"set {number + 1}: patched {patched:.1f} us, capped {capped:.1f}; A/A {same:.1f}, "
            f"overhead {overhead:.1f}",
            patched_us=patched,
            capped_us=capped,
            same_us=same,
            overhead_us=overhead,
            patched_bytes=memory[0],
            capped_bytes=memory[2],
        )

    def over(key: str) -> list[float]:
        return [row[key] for row in sheet.rows]

    plain, full = (statistics.median(over(f"{kind}_bytes")) for kind in ("patched", "capped"))
    sheet.verdict(
        f"patched   {in_words(over('patched_us'))} a connection, {plain:,.0f} bytes a held one"
    )
    sheet.verdict(
        f"capped    {in_words(over('capped_us'))} a connection, {full:,.0f} bytes a held one"
    )
    sheet.verdict(f"A/A       {in_words(over('same_us'))}")
    overheads = over("overhead_us")
    sheet.verdict(
        f"overhead  {in_words(overheads)}, {full - plain:,.0f} bytes a held one; "
        f"target {TARGET_US:g} us: {verdict(*median_and_bounds(overheads)[1:])}"
    )


if __name__ == "__main__":
    main()
