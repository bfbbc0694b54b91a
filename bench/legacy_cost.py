"""What the cap costs an unmodified program: time per accepted connection, memory per held one.

    python bench/legacy_cost.py [--connections 20000] [--rounds 5] [--held 3000]

The same program runs merely monkey-patched and under ``gserver.legacy.install()``, alternately.
Time is its own CPU time, user and system, over all its accepts; memory is its resident set before
and after. Clients are a process of their own. What else runs on the machine only adds time, so the
fastest rounds tell most; the medians stand beside them. Prints one line a kind, and the overhead.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
from typing import Any

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
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, str(count), str(held)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    clients = []
    try:
        address = ("127.0.0.1", int(program.stdout.readline()))
        for _ in range(200 + count):
            with socket.create_connection(address) as sock:
                sock.recv(1)  # until the program has closed it: one at a time
        for _ in range(held):
            clients.append(socket.create_connection(address))
        took, size = json.loads(program.stdout.readline())
    finally:
        for sock in clients:
            sock.close()
        program.kill()
        program.wait()
        program.stdout.close()
    return took, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--held", type=int, default=3_000)
    options = parser.parse_args()
    found: dict[str, list[Any]] = {"patched": [], "capped": []}
    for _ in range(options.rounds):
        for kind, results in found.items():
            results.append(measure(kind, options.connections, options.held))
    times = {kind: [took for took, _ in results] for kind, results in found.items()}
    sizes = {kind: [size for _, size in results] for kind, results in found.items()}
    for kind in found:
        took = statistics.median(times[kind])
        size = statistics.median(sizes[kind])
        print(
            f"{kind:8} {took:6.1f} us a connection ({min(times[kind]):.1f} to "
            f"{max(times[kind]):.1f}), {size:,.0f} bytes a held one"
        )
    middle = statistics.median(times["capped"]) - statistics.median(times["patched"])
    least = min(times["capped"]) - min(times["patched"])
    memory = statistics.median(sizes["capped"]) - statistics.median(sizes["patched"])
    print(
        f"overhead {least:6.1f} us a connection between the fastest rounds, {middle:.1f} between "
        f"the medians, {memory:,.0f} bytes a held one"
    )


if __name__ == "__main__":
    main()
