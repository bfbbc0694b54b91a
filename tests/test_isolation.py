"""G5: a flood of rejections does not starve the admitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gevent
import pytest
from gevent import socket
from support import (
    DEADLINE,
    LOCAL,
    clients,
    echo,
    eventually,
    load,
    outcome,
    running,
    slowest_echo,
    turn,
)

import gserver.candidates
from gserver import Close, Limiter, Limits, Reason, Reset, StreamServer
from gserver.candidates import MAX_CANDIDATES, MAX_REJECTIONS_PER_TURN, Candidates
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


@pytest.mark.parametrize("settle", [0.0, 0.02])
def test_no_turn_of_the_loop_rejects_more_than_its_share(settle: float) -> None:
    rejection = Counting()
    server = StreamServer(LOCAL, echo, max_connections=1, rejection=rejection, settle=settle)
    with running(server), clients(server, 1), rejections_by_turn(rejection) as by_turn:
        with load("burst", server, 1000) as burst:
            assert burst.read() == {"closed": 1000, "hung": 0}
    assert sum(by_turn) == 1000
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN


LISTENERS = 8


# Without a settle, at its bound, and with rules that turn away at once.
@pytest.mark.parametrize(
    ("limits", "settle"),
    [
        (Limits(max_connections=1), 0.0),
        (Limits(max_connections=1), 0.3),
        (Limits(max_connections=1, deny=["127.0.0.2"]), 0.0),
    ],
    ids=["bare", "settle", "denied"],
)
def test_listeners_of_one_limiter_have_one_share_and_none_of_them_starves(
    limits: Limits, settle: float
) -> None:
    rejection = Counting()
    limiter = Limiter(limits, settle=settle)
    each = 60
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                running(StreamServer(LOCAL, echo, limiter=limiter, rejection=rejection))
            )
            for _ in range(LISTENERS)
        ]
        stack.enter_context(clients(servers[0], 1))
        for server in servers:
            server.stop_accepting()
        waiting = []
        for server in servers:
            for _ in range(each):
                sock = stack.enter_context(socket.socket())
                sock.bind(("127.0.0.2", 0))
                sock.connect(server.address)
                waiting.append(sock)
        with rejections_by_turn(rejection) as by_turn:
            for server in servers:
                server.start_accepting()
            eventually(lambda: rejection.calls == len(waiting))
        for sock in waiting:
            sock.settimeout(DEADLINE)
            assert outcome(sock) == "closed"
    assert sum(by_turn) == LISTENERS * each
    # None starves: each may turn away one, whatever the others do.
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN + LISTENERS


def test_flood_on_one_listener_does_not_keep_out_the_clients_of_another() -> None:
    limiter = Limiter(Limits(max_connections=100, deny=["127.0.0.2"]))
    with ExitStack() as stack:
        flooded, *others = [
            stack.enter_context(running(StreamServer(LOCAL, echo, limiter=limiter)))
            for _ in range(3)
        ]
        flood = stack.enter_context(load("flood", flooded, 100, "127.0.0.2"))
        eventually(lambda: limiter.snapshot().rejected[Reason.DENIED] > 100)
        for _ in range(20):
            for server in others:
                with clients(server, 1):
                    pass
        flood.tell()
        flood.read()


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
        longest = slowest_echo(client, 200)
        rejected = sum(server.stats.rejected.values())
        eventually(lambda: sum(server.stats.rejected.values()) > rejected)  # it still floods
        flood.tell()
        flood.read()
    assert longest < 2.0


def test_control_without_the_share_a_turn_rejects_as_many_as_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_a_candidate_whose_time_is_over_does_not_wait_for_one_ahead_with_more_time() -> None:
    """As one does for whom an idle connection is evicted."""
    decided: list[tuple[int, bool]] = []

    def decide(fd: int, address: Any, front: Any, over: bool, now: float) -> bool | None:
        decided.append((fd, over))
        return over or None

    candidates = Candidates(decide, lambda fd, _address, _front: fd <= 2, lambda: None, 0.0)
    front: Any = object()
    candidates.hold(deque([(1, None), (2, None), (3, None)]), front, quiet=False)
    candidates.hold(deque([(4, None)]), front, quiet=False)
    eventually(lambda: len(candidates) == 2)
    assert [fd for fd, over in decided if over] == [3, 4]
    assert candidates.descriptors() == [1, 2]
    candidates.leave(front)


def test_a_listener_that_closes_while_candidates_are_decided_on_takes_its_own_out() -> None:
    """A callback of the one being decided on may do that: nobody is decided on twice."""
    decided: list[int] = []
    closing: Any = object()
    other: Any = object()

    def decide(fd: int, address: Any, front: Any, over: bool, now: float) -> bool | None:
        decided.append(fd)
        if fd == 1:
            left.extend(fd for fd, _ in candidates.leave(closing))
        return True

    left: list[int] = []
    candidates = Candidates(decide, lambda *_client: False, lambda: None, 0.0)
    candidates.hold(deque([(1, None), (2, None)]), closing, quiet=False)
    candidates.hold(deque([(3, None)]), other, quiet=False)
    candidates.hold(deque([(4, None)]), closing, quiet=False)
    eventually(lambda: not candidates)
    assert decided == [1, 3]
    assert left == [2, 4]
