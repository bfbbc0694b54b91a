"""What one rejection costs the server, in µs of its CPU clock: a close, and some replies.

    python bench/reply_cost.py [--clients 5000] [--rounds 3]

A process that only accepts and rejects is driven by clients that come one after the other, read
to the end and close. Prints the best round of each kind. Loopback only; bounded by --clients.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import socket
import time
from multiprocessing.connection import Connection

from gserver.replies import named

OPENINGS = {"http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "redis": b"PING\r\n"}


def serve(kind: str, ours: Connection) -> None:
    import _socket

    import gevent
    from gevent.event import Event

    from gserver.net.linger import Linger

    loop = gevent.get_hub().loop
    linger = Linger(loop)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)

    def accept() -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        if kind == "close":
            _socket.close(fd)
        else:
            linger.start(fd, _socket.AF_INET, script)

    script = named(kind) if kind != "close" else named("redis")
    loop.io(listener.fileno(), 1).start(accept)
    asked = Event()
    loop.io(ours.fileno(), 1).start(asked.set)
    start = time.process_time()
    ours.send(listener.getsockname())
    asked.wait()
    ours.send((time.process_time() - start, linger.replied))


def flood(address: tuple[str, int], opening: bytes, clients: int) -> None:
    for _ in range(clients):
        with socket.create_connection(address, timeout=10.0) as client:
            if opening:
                client.sendall(opening)
            while client.recv(4096):
                pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {options.clients} clients a round")
    for kind in ("close", "redis", "http", "smtp"):
        costs = []
        for _ in range(options.rounds):
            ours, theirs = multiprocessing.Pipe()
            server = multiprocessing.Process(target=serve, args=(kind, theirs))
            server.start()
            flood(ours.recv(), OPENINGS.get(kind, b"") if kind != "close" else b"", options.clients)
            ours.send(None)
            seconds, replied = ours.recv()
            server.join()
            costs.append(seconds / options.clients * 1e6)
        print(f"{kind:6} {min(costs):6.1f} µs   (the whole reply taken: {replied})")


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
