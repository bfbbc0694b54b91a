"""G3: a client that closes and then connects again finds its slot free, every time."""

from __future__ import annotations

import os
import signal
import warnings
from collections import deque
from itertools import count
from typing import Any

import gevent
import gevent.os
import pytest
from desk import Desk
from gevent import socket
from gevent.event import Event
from support import (
    LOCAL,
    Holding,
    clients,
    connect,
    eventually,
    greet,
    load,
    outcome,
    running,
    turn,
    vanish,
)

import gserver.accept
import gserver.candidates
from gserver import Close, Ending, Limiter, Limits, Reason, Reset, StreamServer
from gserver.admission.verdict import REJECTED
from gserver.candidates import MAX_CANDIDATES, MAX_REJECTIONS_PER_TURN, iteration
from gserver.net.rejection import Rejection

REJECTIONS = [Close(), Reset()]


@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
@pytest.mark.parametrize("cap", [1, 10])
def test_500_of_500_close_then_reconnect_at_a_full_cap(cap: int, rejection: Rejection) -> None:
    server = StreamServer(LOCAL, greet, max_connections=cap, rejection=rejection)
    with running(server), load("reconnect", server, cap, 500) as clients_:
        assert clients_.read() == {"served": 500}


@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
@pytest.mark.parametrize("cap", [2, 10, 50])
def test_churners_that_together_hold_exactly_the_cap_are_never_turned_away(
    cap: int, rejection: Rejection
) -> None:
    server = StreamServer(LOCAL, greet, max_connections=cap, rejection=rejection)
    with running(server), load("churn", server, cap, 2000) as churn:
        seen = churn.read()
    assert set(seen) == {"served"}


@pytest.mark.long
@pytest.mark.parametrize("rejection", REJECTIONS, ids=str)
@pytest.mark.parametrize("cap", [1, 3, 10, 100])
def test_churners_are_never_turned_away_in_ten_thousand(cap: int, rejection: Rejection) -> None:
    server = StreamServer(LOCAL, greet, max_connections=cap, rejection=rejection)
    with running(server), load("churn", server, cap, 10_000) as churn:
        seen = churn.read(within=100.0)
    assert seen == {"served": seen["served"]}
    assert seen["served"] >= 10_000


def test_in_a_turn_that_admitted_somebody_nobody_is_turned_away_by_a_look_alone() -> None:
    """That connection is not in the loop's epoll set yet: its ending could not be seen."""
    with running(StreamServer(LOCAL, greet, max_connections=1)) as server:
        limiter = server.limiter
        turn()
        assert limiter.may_shed(iteration()) == 0  # there is a slot
        with clients(server, 1):
            turn()
            assert limiter.may_shed(iteration()) == MAX_REJECTIONS_PER_TURN
            turn()
            limiter._candidates.admitted_one()
            assert limiter.may_shed(iteration()) == 0


def test_in_a_turn_that_admitted_one_who_waited_nobody_is_turned_away_by_a_look_alone() -> None:
    limiter = Limiter(Limits(max_connections=1, wait=3600.0))
    desk = Desk(limiter)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        turn()
        assert limiter.arrived((-1, ("192.0.2.1", 1)), desk) is True
        assert limiter.arrived((ours.fileno(), ("192.0.2.1", 2)), desk) is True
        turn()
        assert limiter.may_decide_at_once()
        limiter.ended(-1, *desk.inside.pop(-1), Ending.RETURNED)
        assert list(desk.inside) == [ours.fileno()]
        assert not limiter.may_decide_at_once()
        limiter.ended(ours.fileno(), *desk.inside.pop(ours.fileno()), Ending.RETURNED)


class Blind:
    """A look that never sees an ending."""

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        return []

    def close(self) -> None:
        pass


def test_control_without_a_poll_after_the_accept_churners_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mechanism removed: decide at once, as the article's ``try_acquire`` does."""
    monkeypatch.setattr(gserver.accept, "_loops_epoll", Blind)
    monkeypatch.setattr(gserver.candidates, "iteration", count().__next__)
    with running(StreamServer(LOCAL, greet, max_connections=10)) as server:
        for _ in range(10):  # it takes two in one batch, which a busy machine may not see soon
            with load("churn", server, 10, 20000) as churn:
                if churn.read().get("closed", 0):
                    return
    pytest.fail("nobody was turned away: the poll is not what keeps the promise")


class Lingering:
    """Ends only some turns of the loop after the client has left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, sock: Any, address: Any) -> None:
        greet(sock, address)
        turn(self.seconds)


def test_settle_admits_a_client_whose_predecessors_handler_needs_3_ms_to_end() -> None:
    server = StreamServer(LOCAL, Lingering(0.003), max_connections=1, settle=5.0)
    with running(server), load("reconnect", server, 1, 100) as clients_:
        assert clients_.read() == {"served": 100}


def test_control_without_settle_that_client_is_turned_away() -> None:
    server = StreamServer(LOCAL, Lingering(0.2), max_connections=1)
    with running(server):
        with connect(server) as first:
            assert outcome(first) == "served"
        with connect(server) as second:
            assert outcome(second) == "closed"


def test_a_candidate_is_admitted_the_moment_a_slot_comes_back_not_at_the_end_of_its_settle() -> (
    None
):
    handler = Holding()
    with running(StreamServer(LOCAL, handler, max_connections=1, settle=3600.0)) as server:
        with clients(server, 1), connect(server) as candidate:
            eventually(lambda: server.stats.pending == 1)
            handler.release.set()
            assert outcome(candidate) == "served"


def test_newcomers_never_overtake_candidates() -> None:
    """First come, first served, also when a slot comes back as a newcomer arrives."""
    order: list[int] = []
    leave = Event()

    def handler(sock: Any, address: Any) -> None:
        order.append(address[1])
        sock.sendall(b"+")
        if len(order) == 1:
            leave.wait()

    with running(StreamServer(LOCAL, handler, max_connections=1, settle=60.0)) as server:
        waiting = []
        with clients(server, 1):
            for number in range(1, 21):
                waiting.append(connect(server))
                eventually(lambda number=number: server.stats.pending == number)
            leave.set()
            newcomer = connect(server)  # its SYN is there before the first has left
            waiting.append(newcomer)
            expected = [sock.getsockname()[1] for sock in waiting]
            for sock in waiting:
                assert outcome(sock) == "served"
                sock.close()
        assert order[1:] == expected


def test_candidates_are_bounded_and_at_the_bound_the_oldest_gets_its_verdict() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1, settle=3600.0)) as server:
        with clients(server, 1):
            waiting = []
            for _ in range(MAX_CANDIDATES):
                waiting.append(connect(server))
            eventually(lambda: server.stats.pending == MAX_CANDIDATES)
            with connect(server):
                assert outcome(waiting[0]) == "closed"
                assert server.stats.pending == MAX_CANDIDATES
                assert server.stats.rejected[Reason.CAPACITY] == 1
            server.max_connections = 2  # those after it kept their places
            assert outcome(waiting[1]) == "served"
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize("stop", ["stop", "close"])
def test_stop_turns_candidates_away_at_once_as_draining(stop: str) -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1, settle=3600.0)) as server:
        with clients(server, 1), connect(server) as candidate:
            eventually(lambda: server.stats.pending == 1)
            stopping = gevent.spawn(getattr(server, stop))
            assert outcome(candidate) == "closed"
            assert server.stats.rejected[Reason.DRAINING] == 1
            assert server.stats.pending == 0
            stopping.join()


def test_stopping_one_of_two_servers_leaves_the_others_candidates_alone() -> None:
    limiter = Limiter(1, settle=3600.0)
    handler = Holding()
    first = StreamServer(LOCAL, handler, limiter=limiter)
    second = StreamServer(LOCAL, handler, limiter=limiter)
    with running(first), running(second), clients(first, 1):
        with connect(first) as leaving, connect(second) as staying:
            eventually(lambda: limiter.pending == 2)
            first.close()
            assert outcome(leaving) == "closed"
            assert limiter.pending == 1
            handler.release.set()
            assert outcome(staying) == "served"


def test_a_candidate_whose_source_holds_too_many_keeps_nobody_else_from_a_slot() -> None:
    limiter = Limiter(Limits(max_connections=2, per_source=1), settle=3600.0)
    first = StreamServer(LOCAL, greet, limiter=limiter)
    second = StreamServer(("::1", 0), greet, limiter=limiter)
    with running(first), running(second), clients(first, 1):
        with connect(first) as leaving:  # its source holds all it may
            eventually(lambda: limiter.pending == 1)
            with connect(second) as staying:
                assert outcome(staying) == "served"
                assert limiter.pending == 1
            first.close()
            assert outcome(leaving) == "closed"


def test_who_waits_behind_candidates_has_their_slots_when_their_listener_closes() -> None:
    limiter = Limiter(Limits(max_connections=2, per_source=1, wait=3600.0))
    first, second = Desk(limiter), Desk(limiter)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number, source in enumerate(["192.0.2.1", "192.0.2.1"]):
            client = -1 - number, (source, 1)
            if limiter.arrived(client, first) is not True:
                limiter.hold(deque([client]), first, quiet=False)
        assert limiter.arrived((ours.fileno(), ("192.0.2.2", 1)), second) is True
        assert (limiter.pending, limiter.snapshot().waiting) == (1, 1)
        limiter.leave(first, REJECTED[Reason.DRAINING])
        assert list(second.inside) == [ours.fileno()]
        for desk in first, second:
            for fd, (greenlet, receipt) in desk.inside.items():
                limiter.ended(fd, greenlet, receipt, Ending.RETURNED)


@pytest.mark.parametrize("leave", [lambda sock: sock.close(), vanish], ids=["closed", "reset"])
def test_a_candidate_that_left_meets_a_handler_that_learns_so_at_once(leave: Any) -> None:
    learnt: list[object] = []

    def handler(sock: Any, address: Any) -> None:
        try:
            greet(sock, address)
            learnt.append("end of file")
        except ConnectionError as error:
            learnt.append(type(error))

    with running(StreamServer(LOCAL, handler, max_connections=1, settle=3600.0)) as server:
        with clients(server, 1):
            leave(connect(server))
            eventually(lambda: server.stats.pending == 1)
        with connect(server) as next_one:
            assert outcome(next_one) == "served"
            assert len(learnt) == 2  # the holder, and the one that had left


def test_forked_server_looks_into_its_own_loop_for_endings() -> None:
    """Its parent's epoll set would never show one: each candidate would be rejected at once."""
    with running(StreamServer(LOCAL, greet, max_connections=1)) as server, clients(server, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the loop's threads
            child = gevent.os.fork()
        if not child:
            try:
                signal.alarm(20)
                os._exit(_looks_into_its_own_loop(server._accepting))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _looks_into_its_own_loop(accepting: Any) -> int:
    reader, writer = os.pipe()
    watcher = gevent.get_hub().loop.io(reader, 1)
    watcher.start(lambda: None)
    turn()
    accepting._only_clients()
    if accepting._only_clients() != []:
        return 1
    os.write(writer, b".")
    return 0 if accepting._only_clients() is None else 2
