"""Clients in a process of their own: real races with the server's loop. Standard library only.

    load.py burst HOST PORT COUNT          connect all at the same instant; report each outcome;
                                           hold what was served until standard input ends
    load.py reconnect HOST PORT HELD N     with HELD connections open, N times: close one, connect
                                           again at once, and see whether it is served
    load.py churn HOST PORT TOGETHER N     TOGETHER clients, each closing and reconnecting the
                                           moment it is served, never more of them open; N in all
    load.py flood HOST PORT TOGETHER       the same without end, until standard input ends

Each prints one line of JSON: outcomes and how often. An outcome is "served" (the server's first
byte), "closed", "reset", "refused" or "hung" (nothing in 20 s).
"""

from __future__ import annotations

import collections
import json
import select
import socket
import sys
import time

HANG_S = 20.0


def outcome(sock: socket.socket) -> str:
    try:
        return "served" if sock.recv(1) else "closed"
    except ConnectionResetError:
        return "reset"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "hung"


def report(outcomes: collections.Counter[str]) -> None:
    print(json.dumps(outcomes), flush=True)


def burst(address: tuple[str, int], count: int) -> None:
    poll = select.epoll()
    waiting = {}
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        waiting[sock.fileno()] = sock
    for fd in waiting:
        poll.register(fd, select.EPOLLIN)
    outcomes: collections.Counter[str] = collections.Counter()
    held = []
    deadline = time.monotonic() + HANG_S
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(0.1):
            sock = waiting.pop(fd)
            poll.unregister(fd)
            seen = outcome(sock)
            outcomes[seen] += 1
            if seen == "served":
                held.append(sock)
            else:
                sock.close()
    outcomes["hung"] += len(waiting)
    report(outcomes)
    sys.stdin.read()


def reconnect(address: tuple[str, int], held: int, count: int) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    others = [socket.create_connection(address, HANG_S) for _ in range(held)]
    for sock in others:
        assert outcome(sock) == "served"
    last = others.pop()
    for _ in range(count):
        last.close()
        last = socket.create_connection(address, HANG_S)
        outcomes[outcome(last)] += 1
    report(outcomes)
    sys.stdin.read()


def churn(address: tuple[str, int], together: int, count: int) -> None:
    poll = select.epoll()
    clients = {}
    outcomes: collections.Counter[str] = collections.Counter()

    def connect() -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        clients[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)

    for _ in range(together):
        connect()
    if count == 0:
        poll.register(0, select.EPOLLIN)
    while not count or outcomes.total() < count:
        events = poll.poll(HANG_S)
        if not events:
            outcomes["hung"] += len(clients)
            break
        for fd, _ in events:
            if fd == 0:
                report(outcomes)
                return
            sock = clients.pop(fd)
            outcomes[outcome(sock)] += 1
            poll.unregister(fd)
            sock.close()
            connect()
    report(outcomes)


def main() -> None:
    command, host, port, *numbers = sys.argv[1:]
    address = (host, int(port))
    if command == "burst":
        burst(address, *map(int, numbers))
    elif command == "reconnect":
        reconnect(address, *map(int, numbers))
    elif command == "churn":
        churn(address, *map(int, numbers))
    elif command == "flood":
        churn(address, int(numbers[0]), 0)


if __name__ == "__main__":
    main()
