"""G10: rejecting is cheap: no greenlet, no gevent socket, and no work that grows with the cap."""

from __future__ import annotations

import _socket
import os
import sys
from collections import Counter
from typing import Any

import gevent
import gevent.server
import pytest
from counting import Made, which_run
from gevent.pool import Pool
from support import LOCAL, Holding, clients, load, running, turn, visit

from gserver import Close, Reason, Reset, StreamServer, slots
from gserver.accept import AcceptLoop
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.limiter import Limiter
from gserver.net.rejection import Rejection, by_reason

LISTENER = 99


@pytest.mark.parametrize("rejection", [Close(), Reset()], ids=str)
def test_no_greenlet_and_no_gevent_socket_is_made_for_a_rejected_client(
    rejection: Rejection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made()
    with running(StreamServer(LOCAL, Holding(), spawn=made.pool(3), rejection=rejection)) as server:
        made.count_sockets(monkeypatch)
        with clients(server, 3):
            assert made == {"socket": 3, "greenlet": 3}
            with which_run() as ran, load("burst", server, 500) as burst:
                assert burst.read().get("served", 0) == 0
            assert made == {"socket": 3, "greenlet": 3}
            # Of whatever kind: only the test and the loop ran.
            assert ran == {id(gevent.getcurrent()), id(gevent.get_hub())}


class Queue:
    """A listener with clients in its queue: pairs of unix sockets stand for them."""

    family, type, proto = _socket.AF_UNIX, _socket.SOCK_STREAM, 0

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str]] = []

    def add(self, count: int) -> None:
        for _ in range(count):
            ours, theirs = _socket.socketpair()
            theirs.close()
            self.waiting.append((ours.detach(), ""))

    def _accept(self) -> tuple[int, str]:
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop()


class OnlyTheListener:
    """The loop's epoll set, when all it has to report is more clients."""

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        return [(LISTENER, 1)]

    def close(self) -> None:
        pass


class Uncounted(set[Any]):
    """A set that nobody may walk through."""

    def __iter__(self) -> Any:
        raise AssertionError("walked through all that is held")


def steps_of_a_turn(held: int, rejection: Rejection, *, short: bool) -> Counter[str]:
    """The lines that a turn of rejections runs, by function, while so many are held.

    :param short: each is turned away after a look at the kernel, or all of them as candidates.
    """
    pool = Pool(held)
    limiter = Limiter(held, pool=pool)
    holders = [gevent.Greenlet() for _ in range(held)]
    for holder in holders:
        slots.take(pool, holder)
    pool.greenlets = Uncounted(pool.greenlets)
    limiter.connections = Uncounted(holders)
    queue = Queue()

    def unexpected(*_arguments: Any) -> None:
        raise AssertionError

    loop = AcceptLoop(
        queue,
        limiter,
        unexpected,
        by_reason(rejection),
        unexpected,
        backlog=1,
        max_accept=100,
        delays=(1.0, 1.0),
    )
    loop._watcher = gevent.get_hub().loop.timer(0.0)  # as if started
    if short:
        loop._fd, loop._epoll, loop._process = LISTENER, OnlyTheListener(), os.getpid()
    steps: Counter[str] = Counter()

    def note(frame: Any, event: str, _argument: Any) -> Any:
        steps[frame.f_code.co_qualname] += event == "line"
        return note

    # The first turn also begins a report; in the next two Python 3.12 only starts to tell.
    for trace in (None, note, note, note):
        steps.clear()
        turn()  # each turn of the loop has its share
        queue.add(MAX_REJECTIONS_PER_TURN)
        sys.settrace(trace)
        try:
            loop._readable()
            limiter._candidates._settled()
        finally:
            sys.settrace(None)
        assert limiter.pending == 0
    rejected = limiter.snapshot().rejected
    assert rejected[Reason.CAPACITY] == 4 * MAX_REJECTIONS_PER_TURN
    for holder in holders:
        slots.give_back(pool, holder)
    limiter.connections.clear()
    loop.close()
    return steps


@pytest.mark.parametrize("short", [True, False], ids=["short", "candidates"])
@pytest.mark.parametrize("rejection", [Close(), Reset()], ids=str)
def test_the_work_of_a_rejection_does_not_depend_on_how_many_connections_are_held(
    rejection: Rejection, short: bool
) -> None:
    few = steps_of_a_turn(1, rejection, short=short)
    many = steps_of_a_turn(5000, rejection, short=short)
    assert few == many
    assert few["Limiter._turn_away"] > MAX_REJECTIONS_PER_TURN  # it did see the work


def test_control_stock_gevent_makes_a_greenlet_and_a_socket_for_each_client_it_turns_away() -> None:
    """Turning away in the handler, as one must there, costs both."""
    made = Made()
    pool = made.pool(1000)
    with running(gevent.server.StreamServer(LOCAL, lambda *_: None, spawn=pool)) as server:
        for _ in range(20):
            assert visit(server) == "closed"
    assert made["greenlet"] == 20
