"""What one look at ``TCP_INFO`` costs, in µs of this thread's CPU clock.

    python -m bench tcp-info-cost [--calls 200000] [--json FILE]

Prints, for the best of five rounds: the bare system call, ``tcp_info.read`` with and without the
question of idleness, and ``read_descriptor``. Then how often the kernel's clocks cannot tell whose
turn it is, 300 connections each: answered at once, and asked again at once after the answer.
Loopback only.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import click

from bench.costs import Sheet, cost
from gserver.net import tcp_info

__all__ = ["main"]

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


@cost("tcp-info-cost", lambda calls: 2 + 6 * ROUNDS * calls * 1.2e-6)
@click.option("--calls", type=click.IntRange(1), default=200_000, show_default=True)
def main(sheet: Sheet, calls: int) -> None:
    """One look at TCP_INFO, and how often it can't tell whose turn it is. Linux only."""
    if not tcp_info.SUPPORTED:
        raise click.ClickException("TCP_INFO is Linux only")
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

            looks: dict[str, Callable[[], object]] = {
                "empty call": lambda: None,
                "getsockopt alone": lambda: served.getsockopt(socket.IPPROTO_TCP, 11, 136),
                "read": lambda: tcp_info.read(served),
                "read + is_idle": look,
                "read_descriptor": lambda: tcp_info.read_descriptor(fd, family),
                "read_listen_queue": lambda: tcp_info.read_listen_queue(listener),
            }
            for name, call in looks.items():
                sheet.tell(name)
                each = cost_us(call, calls)
                sheet.row(f"{name:20} {each:6.2f} µs", look=name, us=each)
        for name, again in {"answered": False, "asked again": True}.items():
            count = unclear(listener, asked_again=again)
            text = f"unclear, {name:11} {count:6} of {CONNECTIONS}"
            sheet.row(text, unclear=name, count=count, of=CONNECTIONS)


if __name__ == "__main__":
    main()
