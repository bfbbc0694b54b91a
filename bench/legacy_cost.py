"""What the cap costs an unmodified program: time per accepted connection, memory per held one.

    python -m bench legacy-cost [--connections 20000] [--pairs 3] [--held 3000] [--json FILE]

The same program runs merely monkey-patched and under ``gserver.legacy.install()``, in the order
ABBA.
Time is its own CPU time, user and system, over all its accepts; memory is its resident set before
and after. Clients are a process of their own. What else runs on the machine only adds time, so the
fastest rounds tell most; the medians stand beside them. Prints one line a kind, and the overhead.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
from contextlib import ExitStack

import click

from bench.costs import Sheet, cost
from bench.pairs import abba
from bench.processes import start

__all__ = ["main"]

#: Accepts and closes ``count`` connections, then holds ``held``; says what that cost.
PROGRAM = """
import gevent.monkey; gevent.monkey.patch_all()
import sys
capped, count, held = sys.argv[1] == "capped", int(sys.argv[2]), int(sys.argv[3])
if capped:
    import gserver.legacy
    gserver.legacy.install(max_connections=held + 100)
else:
    import gserver  # the same modules in memory
import gc, json, os, socket, time
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
for _ in range(200):
    listener.accept()[0].close()
began = time.process_time()
for _ in range(count):
    listener.accept()[0].close()
took = time.process_time() - began
before = resident()
kept = []
for _ in range(held):
    conn, _ = listener.accept()
    kept.append(conn)
print(json.dumps([took / count * 1e6, (resident() - before) / held]), flush=True)
"""


def measure(kind: str, count: int, held: int) -> tuple[float, float]:
    """Microseconds an accepted connection, bytes a held one."""
    with ExitStack() as stack:
        program, port = start([sys.executable, "-c", PROGRAM, kind, str(count), str(held)], stack)
        address = ("127.0.0.1", int(port))
        for _ in range(200 + count):
            with socket.create_connection(address) as sock:
                sock.recv(1)  # until the program has closed it: one at a time
        for _ in range(held):
            stack.enter_context(socket.create_connection(address))
        assert program.stdout is not None
        took, size = json.loads(program.stdout.readline())
    return took, size


def about(connections: int, pairs: int, held: int) -> float:
    return 4 * pairs * (0.6 + connections * 6e-5 + held * 1e-4)


@cost("legacy-cost", about)
@click.option("--connections", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--held", type=click.IntRange(1), default=3_000, show_default=True)
def main(sheet: Sheet, connections: int, pairs: int, held: int) -> None:
    """What gserver exec adds to an accepted and to a held connection."""
    found: dict[str, list[tuple[float, float]]] = {"patched": [], "capped": []}

    def one(kind: str) -> tuple[float, float]:
        sheet.tell(f"{kind}, {len(found[kind]) + 1} of {2 * pairs}")
        found[kind].append(measure(kind, connections, held))
        return found[kind][-1]

    for _ in abba(lambda: one("patched"), lambda: one("capped"), pairs):
        pass
    times = {kind: [took for took, _ in results] for kind, results in found.items()}
    sizes = {kind: [size for _, size in results] for kind, results in found.items()}
    for kind in found:
        took = statistics.median(times[kind])
        size = statistics.median(sizes[kind])
        sheet.row(
            f"{kind:8} {took:6.1f} us a connection ({min(times[kind]):.1f} to "
            f"{max(times[kind]):.1f}), {size:,.0f} bytes a held one",
            kind=kind,
            us=times[kind],
            bytes=sizes[kind],
        )
    middle = statistics.median(times["capped"]) - statistics.median(times["patched"])
    least = min(times["capped"]) - min(times["patched"])
    memory = statistics.median(sizes["capped"]) - statistics.median(sizes["patched"])
    sheet.verdict(
        f"overhead {least:6.1f} us a connection between the fastest rounds, {middle:.1f} between "
        f"the medians, {memory:,.0f} bytes a held one"
    )


if __name__ == "__main__":
    main()
