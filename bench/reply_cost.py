"""What one rejection costs the server, in µs of its CPU clock: a close, and some replies.

    python -m bench reply-cost [--clients 5000] [--rounds 3] [--json FILE]

A process that only accepts and rejects is driven by clients that come one after the other, read
to the end and close. Prints the best round of each kind. Loopback only; bounded by --clients.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from multiprocessing.connection import Connection

import click

from bench.costs import Sheet, cost
from gserver.replies import named
from gserver.stats import Telling

__all__ = ["main"]

KINDS = ("close", "redis", "http", "smtp")
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
    ours.send((time.process_time() - start, linger.counts[Telling.REPLIED]))


def flood(address: tuple[str, int], opening: bytes, clients: int) -> None:
    for _ in range(clients):
        with socket.create_connection(address, timeout=10.0) as client:
            if opening:
                client.sendall(opening)
            while client.recv(4096):
                pass


def measure(kind: str, clients: int) -> tuple[float, bool]:
    """Seconds of CPU, and whether every client took the whole reply."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(kind, theirs), daemon=True)
    server.start()
    try:
        flood(ours.recv(), OPENINGS.get(kind, b"") if kind != "close" else b"", clients)
        ours.send(None)
        seconds, replied = ours.recv()
    finally:
        server.kill()
        server.join()
    return seconds, replied


@cost("reply-cost", lambda clients, rounds: len(KINDS) * rounds * (0.4 + clients * 1e-4))
@click.option("--clients", type=click.IntRange(1), default=5_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(sheet: Sheet, clients: int, rounds: int) -> None:
    """A rejection with a message beside one without."""
    sheet.say(f"{clients:,} clients a round, the best of {rounds}")
    for kind in KINDS:
        costs = []
        for number in range(rounds):
            sheet.tell(f"{kind}, round {number + 1} of {rounds}")
            seconds, replied = measure(kind, clients)
            costs.append(seconds / clients * 1e6)
        text = f"{kind:6} {min(costs):6.1f} µs   (the whole reply taken: {replied})"
        sheet.row(text, kind=kind, us=costs, replied=replied)


if __name__ == "__main__":
    main()
