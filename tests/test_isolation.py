"""G5: a flood of rejections does not starve the admitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent
import pytest
from support import LOCAL, clients, echo, eventually, load, running, turn

import gserver.accept
import gserver.candidates
from gserver import Close, Reset, StreamServer
from gserver.candidates import MAX_CANDIDATES, MAX_REJECTIONS_PER_TURN
from gserver.net.rejection import Rejection


class Counting(Close):
    """Close, and count."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0

    def on(self, family: int, loop: Any) -> Callable[[int], object]:
        close = super().on(family, loop)

        def counted(fd: int) -> None:
            self.calls += 1
            close(fd)

        return counted


@contextmanager
def rejections_by_turn(rejection: Counting) -> Iterator[list[int]]:
    """How many rejections each turn of the loop made. libev(3): a prepare watcher runs once a
    turn, before the poll."""
    by_turn: list[int] = []
    last = rejection.calls

    def turned() -> None:
        nonlocal last
        by_turn.append(rejection.calls - last)
        last = rejection.calls

    watcher = gevent.get_hub().loop.prepare()
    watcher.start(turned)
    try:
        yield by_turn
    finally:
        watcher.stop()
        watcher.close()


# With a settle, candidates whose time is over and those pushed out at the bound may share a turn.
@pytest.mark.parametrize(("settle", "shares"), [(0.0, 1), (0.02, 2)])
def test_no_turn_of_the_loop_rejects_more_than_its_share(settle: float, shares: int) -> None:
    rejection = Counting()
    server = StreamServer(LOCAL, echo, max_connections=1, rejection=rejection, settle=settle)
    with running(server), clients(server, 1), rejections_by_turn(rejection) as by_turn:
        with load("burst", server, 1000) as burst:
            assert burst.read() == {"closed": 1000, "hung": 0}
    assert sum(by_turn) == 1000
    assert max(by_turn) <= shares * MAX_REJECTIONS_PER_TURN


def test_candidates_whose_settle_ends_together_are_rejected_a_share_a_turn() -> None:
    rejection = Counting()
    server = StreamServer(LOCAL, echo, max_connections=1, rejection=rejection, settle=0.3)
    with running(server), clients(server, 1), rejections_by_turn(rejection) as by_turn:
        with load("burst", server, MAX_CANDIDATES) as burst:
            assert burst.read()["closed"] == MAX_CANDIDATES
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN


@pytest.mark.parametrize("rejection", [Close(), Reset()], ids=str)
def test_a_live_echo_goes_on_during_a_flood(rejection: Rejection) -> None:
    server = StreamServer(LOCAL, echo, max_connections=1, rejection=rejection)
    with running(server), clients(server, 1) as (client,), load("flood", server, 100) as flood:
        eventually(lambda: sum(server.stats.rejected.values()) > 100)
        longest = 0.0
        for number in range(200):
            message = f"{number};".encode()
            began = monotonic()
            client.sendall(message)
            assert client.recv(100) == message
            longest = max(longest, monotonic() - began)
        rejected = sum(server.stats.rejected.values())
        eventually(lambda: sum(server.stats.rejected.values()) > rejected)  # it still floods
        flood.tell()
        flood.read()
    assert longest < 2.0


def test_control_without_the_share_a_turn_rejects_as_many_as_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gserver.accept, "MAX_REJECTIONS_PER_TURN", 10**6)
    monkeypatch.setattr(gserver.candidates, "MAX_REJECTIONS_PER_TURN", 10**6)
    rejection = Counting()
    server = StreamServer(LOCAL, echo, max_connections=1, rejection=rejection)
    # Before the server starts: 90 clients are in the kernel's queue when it does.
    with running(server), clients(server, 1), rejections_by_turn(rejection) as by_turn:
        server.stop_accepting()
        with load("burst", server, 90) as burst:
            eventually(lambda: _queued(server) == 90)
            server.start_accepting()
            burst.read()
    assert max(by_turn) > MAX_REJECTIONS_PER_TURN


def _queued(server: Any) -> int:
    """The listener's queue: tcpi_unacked of struct tcp_info (linux/tcp.h), at byte 24."""
    import socket
    import struct

    turn()
    info = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return int(struct.unpack_from("I", info, 24)[0])


def test_a_flood_does_not_keep_a_freed_slot_from_the_next_client() -> None:
    """However long the flood, the admitted can leave and somebody takes the place."""
    with running(StreamServer(LOCAL, echo, max_connections=2)) as server:
        with load("flood", server, 50) as flood:
            for _ in range(50):
                admitted = server.stats.admitted
                eventually(lambda admitted=admitted: server.stats.admitted > admitted)
            flood.tell()
            flood.read()
