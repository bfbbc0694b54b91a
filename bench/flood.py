"""A closed-loop flood of clients over the cap, driven by lines on standard input.

    python -m bench.flood PORT

Each line is ``SECONDS close|reset``: for so long, 32 clients at a time connect, wait for the
verdict, and close normally or with a reset. Prints one JSON line: how many were turned away, how
many got anything else, and the seconds it took. Plain sockets over epoll: no gevent.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import struct
import sys
import time
from itertools import cycle

CLIENTS = 32
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
SOURCES = [f"127.0.0.{n}" for n in range(1, 9)]  # 28,000 ports each: they must not run out


def flood(port: int, seconds: float, reset: bool) -> dict[str, float]:
    poller = select.epoll()
    clients: dict[int, socket.socket] = {}
    sources = cycle(SOURCES)

    def connect() -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.bind((next(sources), 0))
        client.connect_ex(("127.0.0.1", port))
        poller.register(client.fileno(), select.EPOLLIN)
        clients[client.fileno()] = client

    rejected = other = 0
    began = time.perf_counter()
    for _ in range(CLIENTS):
        connect()
    while time.perf_counter() - began < seconds:
        for fd, _ in poller.poll(1.0):
            client = clients.pop(fd)
            try:
                data = client.recv(1)
            except OSError:
                data = b""
            if data:
                other += 1
            else:
                rejected += 1
            client.close()
            connect()
    elapsed = time.perf_counter() - began
    for client in clients.values():
        client.close()
    poller.close()
    return {"rejected": rejected, "other": other, "seconds": elapsed}


def main() -> None:
    port = int(sys.argv[1])
    gc.disable()
    for line in sys.stdin:
        seconds, how = line.split()
        print(json.dumps(flood(port, float(seconds), how == "reset")), flush=True)


if __name__ == "__main__":
    main()
