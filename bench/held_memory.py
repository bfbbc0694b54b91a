"""What a silent connection costs the server's memory, started and deferred, in KiB.

    python -m bench held-memory [--held 5000] [--json FILE]

A server process each; its clients connect and say nothing. Memory is the process's PSS and, as
the part that only it has, Private_Dirty (/proc/PID/smaps_rollup; proc(5)), with the connections
minus without, over their number: Python and gevent only, the kernel's sockets are not in it.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench.costs import Sheet, cost
from bench.processes import ask, start

__all__ = ["main"]

TARGET_KIB = 1.5  # the most that a silent client may cost before its handler is started
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
    with ExitStack() as stack:
        server, port = start([sys.executable, "-c", SERVER, str(held + WARM), how], stack)
        address = ("127.0.0.1", int(port))
        clients: list[socket.socket] = []

        def connect(count: int) -> dict[str, int]:
            for _ in range(count):
                clients.append(stack.enter_context(socket.create_connection(address)))
            while int(ask(server, "")) < len(clients):
                time.sleep(0.05)
            return memory_kib(server.pid)

        before = connect(WARM)
        after = connect(held)
    return {name: (after[name] - before[name]) / held for name in before}


def verdict(row: dict[str, Any]) -> str:
    """Whether a deferred start saves what it should, by the larger of both measures."""
    kib = max(row["Pss"], row["Private_Dirty"])
    met = "met" if kib <= TARGET_KIB else "missed"
    return f"{row['how']}: {kib:.2f} KiB of {TARGET_KIB:g}: {met}"


@cost("held-memory", lambda held: 2 * (1.5 + held * 2e-4))
@click.option("--held", type=click.IntRange(1), default=5_000, show_default=True)
def main(sheet: Sheet, held: int) -> None:
    """The memory of a silent connection, its handler started and deferred."""
    for how in ("started", "deferred"):
        sheet.tell(how)
        found = measure(held, how)
        text = "; ".join(f"{name} {kib:.2f} KiB each" for name, kib in found.items())
        sheet.row(f"{how:9} {text}", how=how, held=held, **found)
    sheet.verdict(verdict(sheet.rows[-1]))


if __name__ == "__main__":
    main()
