"""What a silent connection costs the server's memory, started and deferred, in KiB.

    python -m bench.held_memory [--held 5000]

A server process each; its clients connect and say nothing. Memory is the process's PSS and, as
the part that only it has, Private_Dirty (/proc/PID/smaps_rollup; proc(5)), with the connections
minus without, over their number: Python and gevent only, the kernel's sockets are not in it.
"""

from __future__ import annotations

import argparse
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

WARM = 50  # connections that come first, so that what is made once is there

SERVER = """
import gevent, sys
gevent.config.track_greenlet_tree = False  # as the daemon
from gserver import StreamServer
from gserver.handlers.echo import echo
server = StreamServer(("127.0.0.1", 0), echo, max_connections=int(sys.argv[1]),
                      deferred_start=sys.argv[2] == "deferred")
server.start()
print(server.address[1], flush=True)
reader = gevent.get_hub().loop.io(0, 1)
def answer():
    if not sys.stdin.readline():
        sys.exit()
    print(server.stats.active, flush=True)
def serve():
    while True:
        gevent.get_hub().wait(reader)
        answer()
serve()
"""


def memory_kib(pid: int) -> dict[str, int]:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss", "Private_Dirty"):
            found[name] = int(rest.split()[0])
    return found


def measure(held: int, how: str) -> dict[str, float]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(held + WARM), how],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = ("127.0.0.1", int(server.stdout.readline()))
        clients = []

        def connect(count: int) -> dict[str, int]:
            clients.extend(socket.create_connection(address) for _ in range(count))
            active = 0
            while active < len(clients):
                server.stdin.write("\n")  # type: ignore[union-attr]
                server.stdin.flush()  # type: ignore[union-attr]
                active = int(server.stdout.readline())  # type: ignore[union-attr]
                time.sleep(0.05)
            return memory_kib(server.pid)

        before = connect(WARM)
        after = connect(held)
        for client in clients:
            client.close()
        server.stdin.close()
    return {name: (after[name] - before[name]) / held for name in before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--held", type=int, default=5000)
    held = parser.parse_args().held
    print(f"Python {platform.python_version()}, Linux {platform.release()}, {held} silent clients")
    for how in ("started", "deferred"):
        cost = measure(held, how)
        print(f"{how:9} " + "; ".join(f"{name} {kib:.2f} KiB each" for name, kib in cost.items()))


if __name__ == "__main__":
    main()
