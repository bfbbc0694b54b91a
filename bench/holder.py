"""Holds N admitted connections to a server, and measures the echo latency of one of them.

    python -m bench.holder PORT N

Prints ``held`` when all N have been answered. Then each line on standard input, ``SECONDS``,
echoes one byte every 2 ms on one connection for that long, and prints the latencies in ns as a
JSON list. One that is due while the answer before is awaited is sent late, and timed from when it
was due. Ends at end-of-file.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import time
from time import monotonic_ns

PERIOD_NS = 2_000_000


def echo(victim: socket.socket, seconds: float) -> list[int]:
    """Return the latency of each byte."""
    latencies = []
    due = monotonic_ns()
    until = due + round(seconds * 1e9)
    while due < until:
        early = due - monotonic_ns()
        if early > 0:
            time.sleep(early / 1e9)
            due = monotonic_ns()  # that the sleep was too long is not the server's fault
        victim.sendall(b"x")
        victim.recv(1)
        latencies.append(monotonic_ns() - due)
        due += PERIOD_NS
    return latencies


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    held = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"x")
        if client.recv(1) != b"x":
            sys.exit("a connection within the cap was not served")
        held.append(client)
    print("held", flush=True)
    gc.disable()
    victim = held[-1]
    victim.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for line in sys.stdin:
        print(json.dumps(echo(victim, float(line))), flush=True)


if __name__ == "__main__":
    main()
