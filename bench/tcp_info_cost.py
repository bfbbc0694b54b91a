"""What one look at ``TCP_INFO`` costs, in µs of this thread's CPU clock.

    python bench/tcp_info_cost.py [--calls 200000]

Prints, for the best of five rounds: the bare system call, ``tcp_info.read`` with and without the
question of idleness, and ``read_descriptor``. Then how often the kernel's clocks cannot tell whose
turn it is, 300 connections each: answered at once, and asked again at once after the answer.
Loopback only.
"""

from __future__ import annotations

import argparse
import platform
import socket
import time
from collections.abc import Callable

from gserver.net import tcp_info

ROUNDS = 5
CONNECTIONS = 300
TICKS_S = 0.025  # a few of the kernel's


def cost_us(call: Callable[[], object], calls: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(calls):
            call()
        best = min(best, time.thread_time() - start)
    return best / calls * 1e6


def unclear(listener: socket.socket, *, asked_again: bool) -> int:
    """How many connections' turns are unclear a few ticks after the last word."""
    pairs = []
    for _ in range(CONNECTIONS):
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        pairs.append((client, served))
        for sender, receiver in ((client, served), (served, client)):
            sender.sendall(b"x")
            receiver.recv(1)
        if asked_again:
            client.sendall(b"x")
            served.recv(1)
    time.sleep(TICKS_S)
    count = 0
    for client, served in pairs:
        info = tcp_info.read(served)
        count += info is not None and tcp_info.turn_of(info) is tcp_info.Turn.UNCLEAR
        client.close()
        served.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    calls = parser.parse_args().calls
    if not tcp_info.SUPPORTED:
        parser.exit(1, "TCP_INFO is Linux only\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        served, _ = listener.accept()
        with served:
            client.sendall(b"x")
            served.recv(1)
            fd, family = served.fileno(), served.family

            def look() -> bool:
                info = tcp_info.read(served)
                return info is not None and tcp_info.is_idle(info, reading=True)

            print(f"Python {platform.python_version()}, Linux {platform.release()}")
            for name, call in {
                "empty call": lambda: None,
                "getsockopt alone": lambda: served.getsockopt(socket.IPPROTO_TCP, 11, 136),
                "read": lambda: tcp_info.read(served),
                "read + is_idle": look,
                "read_descriptor": lambda: tcp_info.read_descriptor(fd, family),
                "read_listen_queue": lambda: tcp_info.read_listen_queue(listener),
            }.items():
                print(f"{name:20} {cost_us(call, calls):6.2f} µs")
        for name, again in {"answered": False, "asked again": True}.items():
            print(f"unclear, {name:11} {unclear(listener, asked_again=again):6} of {CONNECTIONS}")


if __name__ == "__main__":
    main()
