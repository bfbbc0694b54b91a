"""Clients in a process of their own: real races with the server's loop. Standard library only.

    load.py burst HOST PORT COUNT          connect all at the same instant; report each outcome;
                                           hold what was served until standard input ends
    load.py reconnect HOST PORT HELD N     with HELD connections open, N times: close one, connect
                                           again at once, and see whether it is served
    load.py churn HOST PORT TOGETHER N     TOGETHER clients, each closing and reconnecting the
                                           moment it is served, never more of them open; N in all
    load.py flood HOST PORT TOGETHER [FROM]  the same without end, until standard input ends;
                                           from the address FROM

``speaks=HOW`` behind all that: see ``speaking.py``. Each prints one line of JSON: outcomes and how
often. An outcome is "served" (the server's first byte), "replied" (in HTTP), "closed", "reset",
"refused" or "hung" (nothing in 20 s).
"""

from __future__ import annotations

import collections
import contextlib
import json
import select
import sys
import time

from speaking import Client, Manner

HANG_S = 20.0
Address = tuple[str, int]


def report(outcomes: collections.Counter[str]) -> None:
    print(json.dumps(outcomes), flush=True)


class Swarm:
    """Clients, by descriptor, and what they wait for."""

    def __init__(self, address: Address, manner: Manner) -> None:
        self._address = address
        self._manner = manner
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}

    def connect(self, source: str = "", *, watch: bool = True) -> Client:
        client = Client(self._address, self._manner, source)
        self.clients[client.sock.fileno()] = client
        if watch:
            self.poll.register(client.sock, client.wants)
        return client

    def step(self, fd: int) -> tuple[str, Client] | None:
        """Of the client that is ready: its outcome, once it has one."""
        client = self.clients[fd]
        wanted = client.wants
        seen = client.step()
        if seen is None:
            if client.wants != wanted:
                self.poll.modify(fd, client.wants)
            return None
        with contextlib.suppress(OSError):  # ssl has closed it: the server was gone already
            self.poll.unregister(fd)
        del self.clients[fd]
        return seen, client


def burst(swarm: Swarm, count: int) -> None:
    for _ in range(count):
        swarm.connect(watch=False)
    for fd, client in swarm.clients.items():
        swarm.poll.register(fd, client.wants)
    outcomes: collections.Counter[str] = collections.Counter()
    held = []
    deadline = time.monotonic() + HANG_S
    while swarm.clients and time.monotonic() < deadline:
        for fd, _ in swarm.poll.poll(0.1):
            if (ended := swarm.step(fd)) is not None:
                seen, client = ended
                outcomes[seen] += 1
                if seen == "served":
                    held.append(client)
                else:
                    client.close()
    outcomes["hung"] += len(swarm.clients)
    report(outcomes)
    sys.stdin.read()


def reconnect(swarm: Swarm, held: int, count: int) -> None:
    outcomes: collections.Counter[str] = collections.Counter()

    def one() -> tuple[str, Client]:
        client = swarm.connect()
        while swarm.clients:
            events = swarm.poll.poll(HANG_S)
            if not events:
                return "hung", swarm.clients.popitem()[1]
            if (ended := swarm.step(events[0][0])) is not None:
                return ended
        return "hung", client

    others = []
    for _ in range(held):
        seen, client = one()
        assert seen == "served"
        others.append(client)
    last = others.pop()
    for _ in range(count):
        last.close()
        seen, last = one()
        outcomes[seen] += 1
    report(outcomes)
    sys.stdin.read()


def churn(swarm: Swarm, together: int, count: int, source: str = "") -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(together):
        swarm.connect(source)
    if count == 0:
        swarm.poll.register(0, select.EPOLLIN)
    while not count or outcomes.total() < count:
        events = swarm.poll.poll(HANG_S)
        if not events:
            outcomes["hung"] += len(swarm.clients)
            break
        for fd, _ in events:
            if fd == 0:
                report(outcomes)
                return
            if (ended := swarm.step(fd)) is not None:
                seen, client = ended
                outcomes[seen] += 1
                client.close()
                swarm.connect(source)
    report(outcomes)


def main() -> None:
    command, host, port, *numbers = sys.argv[1:]
    speaks = ""
    if numbers[-1].startswith("speaks="):
        speaks = numbers.pop().partition("=")[2]
    swarm = Swarm((host, int(port)), Manner(speaks))
    if command == "burst":
        burst(swarm, *map(int, numbers))
    elif command == "reconnect":
        reconnect(swarm, *map(int, numbers))
    elif command == "churn":
        churn(swarm, *map(int, numbers))
    elif command == "flood":
        churn(swarm, int(numbers[0]), 0, *numbers[1:])


if __name__ == "__main__":
    main()
