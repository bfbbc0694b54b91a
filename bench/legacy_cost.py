"""What the cap costs an unmodified program: time per accepted connection, memory per held one.

    python bench/legacy_cost.py [--sets 6] [--rounds 10] [--connections 500] [--held 3000]

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

The target is at most 10 us. About half a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
from collections.abc import Sequence

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
    """One of the three."""

    def __init__(self, kind: str, cap: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind, str(cap)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._address = ("127.0.0.1", int(self._line()))
        if len(CPUS) > 1:
            os.sched_setaffinity(self._process.pid, CPUS[-1:])

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended"
        return line

    def _begin(self, count: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        self._line()

    def accept(self, count: int) -> float:
        """Microseconds of CPU for each of so many connections, one after the other."""
        self._begin(count)
        for _ in range(count):
            with socket.create_connection(self._address) as sock:
                sock.recv(1)  # until the program has closed it
        return float(self._line())

    def hold(self, count: int) -> float:
        """Bytes for each of so many connections."""
        self._begin(-count)
        clients = []
        try:
            for _ in range(count):
                clients.append(socket.create_connection(self._address))
            return float(self._line())
        finally:
            for sock in clients:
                sock.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


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


def one_set(rounds: int, connections: int, held: int) -> tuple[list[float], list[float]]:
    """Of A, A' and B: microseconds a connection, the median over the rounds of A and B, of A' less
    A, and of B less the mean of both; and bytes a held connection."""
    programs = [Program(kind, held + 100) for kind in ("patched", "patched", "capped")]
    order = (0, 1, 2, 2, 1, 0)
    times = []
    try:
        for which in order:
            programs[which].accept(connections)  # warm up
        for _ in range(rounds):
            found: list[list[float]] = [[], [], []]
            for which in order:
                found[which].append(programs[which].accept(connections))
            a, again, capped = map(statistics.mean, found)
            times.append((a, capped, again - a, capped - (a + again) / 2))
        memory = [program.hold(held) for program in programs]
    finally:
        for program in programs:
            program.close()
    return [statistics.median(values) for values in zip(*times, strict=True)], memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--held", type=int, default=3_000)
    options = parser.parse_args()
    if len(CPUS) > 1:
        os.sched_setaffinity(0, CPUS[-1:])
    sets = [one_set(options.rounds, options.connections, options.held) for _ in range(options.sets)]
    patched, capped, same, overhead = zip(*(times for times, _ in sets), strict=True)
    plain, _, held = (
        statistics.median(values) for values in zip(*(m for _, m in sets), strict=True)
    )
    print(f"patched   {in_words(patched)} a connection, {plain:,.0f} bytes a held one")
    print(f"capped    {in_words(capped)} a connection, {held:,.0f} bytes a held one")
    print(f"A/A       {in_words(same)}")
    print(
        f"overhead  {in_words(overhead)}, {held - plain:,.0f} bytes a held one; "
        f"target {TARGET_US:g} us: {verdict(*median_and_bounds(overhead)[1:])}"
    )


if __name__ == "__main__":
    main()
