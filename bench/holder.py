"""Holds N admitted connections to a server, and measures the echo latency of one of them.

    python -m bench.holder PORT N

Prints ``held`` when all N have been answered. Then each line on standard input, ``SECONDS``,
echoes one byte every 2 ms on one connection for that long, and prints the latencies in µs as a
JSON list. Ends at end-of-file.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import time


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
        until = time.perf_counter() + float(line)
        latencies = []
        while (began := time.perf_counter()) < until:
            victim.sendall(b"x")
            victim.recv(1)
            took = time.perf_counter() - began
            latencies.append(round(took * 1e6, 1))
            time.sleep(max(0.0, 0.002 - took))
        print(json.dumps(latencies), flush=True)


if __name__ == "__main__":
    main()
