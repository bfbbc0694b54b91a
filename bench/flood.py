"""Clients over the cap, at a rate, driven by lines on standard input.

    python -m bench.flood PORT RATE SOURCES

Each line is ``SECONDS close|reset``: for so long, so many a second connect, wait for the verdict
and close, normally or with a reset; each comes from the next of so many addresses of loopback.
Prints a JSON line: :class:`Flooded`. Plain sockets over
epoll: the probe's own client (gserver.probe.engine) cannot do as many from one core, and how many
the server finds in a turn of its loop is what is measured here.

An arrival is late, never skipped, while :data:`AT_ONCE` are under way: a server or a client that
does not keep up has started fewer than were planned.
"""

from __future__ import annotations

import _socket
import gc
import json
import select
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from errno import EINPROGRESS
from itertools import cycle
from time import monotonic_ns

from gserver.probe.outcomes import REJECTIONS, Outcome, of_close
from gserver.probe.pacing import ConstantRate
from gserver.probe.target import parse_target, source_addresses
from gserver.probe.timerfd import TimerFd

__all__ = ["AT_ONCE", "SOURCES", "Flooded", "flood", "spread"]

#: Clients under way at most.
AT_ONCE = 32

#: Source addresses at least: the ports of one would run out.
SOURCES = 8

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


@dataclass(slots=True)
class Flooded:
    """What a flood came to: seconds, this process's CPU seconds, arrivals, and outcomes by name
    (the ``admitted`` are whoever was sent something)."""

    seconds: float
    cpu: float
    planned: int
    started: int
    outcomes: dict[str, int]

    @property
    def rejected(self) -> int:
        return sum(self.outcomes.get(kind, 0) for kind in REJECTIONS)


def spread(port: int, count: int = SOURCES) -> Iterator[str]:
    """Return ``count`` source addresses, in turn, for ever."""
    return cycle(source_addresses(parse_target(f"127.0.0.1:{port}"), count))


def flood(port: int, pace: ConstantRate, reset: bool, sources: Iterator[str]) -> Flooded:
    """Send one flood to a port of loopback. Raises :class:`OSError` without descriptors."""
    address = ("127.0.0.1", port)
    outcomes: Counter[Outcome] = Counter()
    clients: dict[int, _socket.socket] = {}
    poller, timer = select.epoll(), TimerFd()
    poller.register(timer.fileno(), select.EPOLLIN)

    def connect() -> None:
        client = _socket.socket()
        client.setblocking(False)
        client.setsockopt(_socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if reset:
            client.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, RESET)
        client.bind((next(sources), 0))
        number = client.connect_ex(address)
        if number not in (0, EINPROGRESS):
            outcomes[of_close(b"", number)] += 1
            client.close()
            return
        poller.register(client.fileno(), select.EPOLLIN)
        clients[client.fileno()] = client

    def verdict(client: _socket.socket) -> None:
        try:
            outcomes[Outcome.ADMITTED if client.recv(1) else Outcome.FIN] += 1
        except OSError as error:
            outcomes[of_close(b"", error.errno or 0)] += 1
        client.close()

    started = armed = 0
    cpu, began = time.process_time(), monotonic_ns()
    ends = round(pace.duration_s * 1e9)
    while (passed := monotonic_ns() - began) < ends:
        due = pace.due(passed)
        while started < due and len(clients) < AT_ONCE:
            connect()
            started += 1
        # All that were due have come: until the next. Else there is no room until a verdict comes.
        wakes = began + (pace.at(started) if started >= due else ends)
        if wakes != armed:
            timer.arm(wakes)
            armed = wakes
        for fd, _ in poller.poll():
            if fd == timer.fileno():
                timer.clear()
                armed = 0
            else:
                verdict(clients.pop(fd))
    seconds = (monotonic_ns() - began) / 1e9
    cpu = time.process_time() - cpu
    for client in clients.values():
        client.close()
    poller.close()
    timer.close()
    found = {outcome.value: count for outcome, count in outcomes.items()}
    return Flooded(seconds, cpu, pace.planned, started, found)


def main() -> None:
    port, rate, count = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    sources = spread(port, count)
    gc.disable()
    for line in sys.stdin:
        seconds, how = line.split()
        found = flood(port, ConstantRate(rate, float(seconds)), how == "reset", sources)
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
