"""Waiting for a slot, on real sockets: whose turn it is, how long, who has left, and the books."""

from __future__ import annotations

import contextlib
import os
import random
import socket as stdlib_socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import GreenletExit, socket
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
from test_books import checked_at_every_step

import gserver.waiting_room
from gserver import Close, Limiter, Limits, Reason, SettingError, StreamServer
from gserver.candidates import MAX_CANDIDATES, MAX_REJECTIONS_PER_TURN

LONG = 3600.0


class Told:
    """A handler that serves one after the other, each until it is told to leave."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self._leave: dict[int, Event] = {}

    def __call__(self, sock: Any, address: Any) -> None:
        port = address[1]
        self._leave[port] = Event()
        self.served.append(port)
        sock.sendall(b"+")
        self._leave[port].wait()

    def next_leaves(self, number: int) -> None:
        """The ``number``-th of those served leaves, and another one comes in."""
        self._leave[self.served[number]].set()


def waiting_server(handler: Any, cap: int = 1, **rules: Any) -> StreamServer:
    limits = Limits(**{"max_connections": cap, "wait": LONG, **rules})
    return StreamServer(LOCAL, handler, limits=limits)


@contextlib.contextmanager
def queue(server: Any, count: int) -> Iterator[list[Any]]:
    """So many clients that wait, in order."""
    with contextlib.ExitStack() as stack:
        found = []
        before = server.stats.waiting
        for number in range(count):
            found.append(stack.enter_context(connect(server)))
            eventually(lambda n=number: server.stats.waiting == before + n + 1)
        yield found


def ports(socks: list[Any]) -> list[int]:
    return [sock.getsockname()[1] for sock in socks]


# ---- whose turn it is ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["fifo", "lifo"])
def test_slots_go_to_those_who_wait_in_order(order: str) -> None:
    told = Told()
    with running(waiting_server(told, wait_order=order)) as server, clients(server, 1):
        with queue(server, 5) as waiting:
            for number in range(5):
                told.next_leaves(number)
                eventually(lambda n=number: len(told.served) == n + 2)
            expected = ports(waiting)
            assert told.served[1:] == (expected if order == "fifo" else expected[::-1])
            told.next_leaves(5)


def test_newcomers_never_overtake_those_who_wait() -> None:
    """A newcomer whose SYN is there before the slot comes free, twenty times."""
    told = Told()
    with running(waiting_server(told)) as server, clients(server, 1):
        with queue(server, 3) as waiting, contextlib.ExitStack() as stack:
            expected = ports(waiting)
            for number in range(20):
                expected.append(stack.enter_context(connect(server)).getsockname()[1])
                told.next_leaves(number)
                eventually(lambda n=number: len(told.served) == n + 2)
            assert told.served[1:] == expected[:20]
            server.limiter.max_connections = 100
            eventually(lambda: len(told.served) == 24)
            for number in range(20, 24):
                told.next_leaves(number)


def test_raising_the_cap_admits_those_who_wait_at_once() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1):
        with queue(server, 3) as waiting:
            server.max_connections = 3
            assert [outcome(sock) for sock in waiting[:2]] == ["served"] * 2
            assert server.stats.waiting == 1


def test_a_reserved_slot_goes_past_those_who_may_not_have_it() -> None:
    rules = {"reserved": 1, "reserved_for": ["127.0.0.2"]}
    with running(waiting_server(greet, cap=2, **rules)) as server, clients(server, 1):
        with queue(server, 1):
            operator = socket.create_connection(
                server.address, timeout=20, source_address=("127.0.0.2", 0)
            )
            with operator:
                assert outcome(operator) == "served"
                assert server.stats.waiting == 1


# ---- how long, and how many ----------------------------------------------------------------


def test_who_has_waited_long_enough_is_rejected_for_it() -> None:
    with running(waiting_server(greet, wait=0.05)) as server, clients(server, 1):
        with connect(server) as sock:
            assert outcome(sock) == "closed"
        assert server.stats.rejected[Reason.WAIT_TIMEOUT] == 1
        assert server.stats.waiting == 0


def test_with_all_places_taken_the_next_one_is_rejected_for_that() -> None:
    with running(waiting_server(greet, wait_queue=3)) as server, clients(server, 1):
        with queue(server, 3):
            with connect(server) as sock:
                assert outcome(sock) == "closed"
            assert server.stats.rejected[Reason.WAIT_FULL] == 1
            assert server.stats.waiting == 3


def test_who_may_wait_no_longer_by_new_rules_is_told_in_the_next_turn() -> None:
    with running(waiting_server(greet)) as server, connect(server) as first:
        assert outcome(first) == "served"
        with connect(server) as waiter:
            eventually(lambda: server.stats.waiting == 1)
            server.limiter.limits = Limits(max_connections=1)
            turn()
            turn()
            assert server.stats.rejected[Reason.WAIT_TIMEOUT] == 1
            assert outcome(waiter) == "closed"


def test_shortening_the_wait_holds_for_those_who_wait_already() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 2) as waiting:
        server.limiter.limits = Limits(max_connections=1, wait=0.01)
        assert [outcome(sock) for sock in waiting] == ["closed"] * 2


def test_turning_waiting_off_turns_away_those_who_wait() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 2) as waiting:
        server.limiter.limits = Limits(max_connections=1)
        assert [outcome(sock) for sock in waiting] == ["closed"] * 2
        assert server.stats.rejected[Reason.WAIT_TIMEOUT] == 2


def test_with_waiting_off_and_nobody_left_to_wait_there_is_only_the_cap_to_ask() -> None:
    told = Told()
    with running(waiting_server(told)) as server, clients(server, 1):
        gate = server.limiter.gate
        with queue(server, 2) as (first, second):
            gate.replace(Limits(max_connections=1))
            gate._queue.wait = LONG  # else they would be turned away before a slot comes
            assert not gate.bare  # two wait, and must not be overtaken
            told.next_leaves(0)
            assert outcome(first) == "served"
            assert not gate.bare
            told.next_leaves(1)
            assert outcome(second) == "served"
            assert gate.bare
            told.next_leaves(2)


def test_descriptors_of_clients_that_wait_are_bounded_also_when_they_wait_very_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Overdue ones are told sixteen a turn: until then they keep their places."""
    most = 0
    original = gserver.waiting_room.WaitingRoom._tick

    def tick(self: Any) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        original(self)

    monkeypatch.setattr(gserver.waiting_room.WaitingRoom, "_tick", tick)
    server = waiting_server(greet, wait=0.001, wait_queue=40)
    with running(server), clients(server, 1), load("burst", server, 1000) as burst:
        before = len(os.listdir("/proc/self/fd"))
        seen = burst.read()
        assert seen["closed"] == 1000
    assert most <= before + 40 + MAX_CANDIDATES


def test_no_turn_of_the_loop_rejects_more_overdue_clients_than_its_share() -> None:
    by_turn: list[int] = []
    last = 0

    def turned() -> None:
        nonlocal last
        now = server.stats.rejected[Reason.WAIT_TIMEOUT]
        by_turn.append(now - last)
        last = now

    server = waiting_server(greet, wait=0.2, wait_queue=100)
    watcher = gevent.get_hub().loop.prepare()
    with running(server), clients(server, 1):
        watcher.start(turned)
        try:
            with load("burst", server, 100) as burst:
                assert burst.read()["closed"] == 100
        finally:
            watcher.stop()
            watcher.close()
    assert sum(by_turn) == 100
    assert max(by_turn) <= MAX_REJECTIONS_PER_TURN


# ---- who has left --------------------------------------------------------------------------


def close(sock: Any) -> None:
    sock.close()


def half_close(sock: Any) -> None:
    sock.shutdown(socket.SHUT_WR)


def send_and_half_close(sock: Any) -> None:
    """Unread data must not hide that it has left."""
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [close, vanish, half_close, send_and_half_close])
def test_who_leaves_while_waiting_is_dropped_and_never_handed_to_a_handler(leave: Any) -> None:
    told = Told()
    with running(waiting_server(told)) as server, clients(server, 1):
        with queue(server, 3) as waiting:
            gone, *staying = waiting
            expected = ports(staying)
            leave(gone)
            eventually(lambda: server.stats.abandoned == 1)  # while the slot is still taken
            assert server.stats.waiting == 2
            for number in range(2):
                told.next_leaves(number)
                eventually(lambda n=number: len(told.served) == n + 2)
            assert told.served[1:] == expected
            told.next_leaves(2)


@pytest.mark.parametrize("leave", [close, vanish, half_close, send_and_half_close])
def test_who_has_left_is_seen_when_its_turn_comes_also_before_the_next_look(
    leave: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gserver.waiting_room, "_LOOK_EVERY_S", LONG)
    told = Told()
    with running(waiting_server(told)) as server, clients(server, 1):
        with queue(server, 2) as waiting:
            expected = ports(waiting)[1]
            leave(waiting[0])
            turn(0.01)
            told.next_leaves(0)
            eventually(lambda: len(told.served) == 2)
            assert told.served[1] == expected
            assert server.stats.abandoned == 1
            told.next_leaves(1)


def test_no_turn_of_the_loop_looks_at_more_than_its_share_of_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gserver.waiting_room, "_LOOKS_PER_TURN", 3)
    looked_at: list[int] = []
    original = gserver.waiting_room._those_who_left

    def those_who_left(fds: Any) -> list[int]:
        looked_at.append(len(list(fds)))
        return original(fds)

    monkeypatch.setattr(gserver.waiting_room, "_those_who_left", those_who_left)
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 10) as them:
        for sock in them[:8]:
            sock.close()
        eventually(lambda: server.stats.abandoned == 8)
        assert server.stats.waiting == 2
        assert max(looked_at) == 3
        assert server.stats.balanced


def test_newcomers_do_not_put_off_the_look_at_who_has_left() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 2) as them:
        them[0].close()
        with contextlib.ExitStack() as stack:
            for _ in range(50):  # one every 20 ms, for a second
                stack.enter_context(connect(server))
                turn(0.02)
                if server.stats.abandoned:
                    break
            assert server.stats.abandoned == 1


def test_who_has_left_is_not_counted_as_timed_out() -> None:
    with running(waiting_server(greet, wait=0.05)) as server, clients(server, 1):
        connect(server).close()
        eventually(lambda: server.stats.abandoned == 1)
        assert server.stats.rejected[Reason.WAIT_TIMEOUT] == 0


def test_who_sends_while_waiting_has_its_data_read_by_the_handler() -> None:
    def echo_one(sock: Any, _address: Any) -> None:
        sock.sendall(sock.recv(100))

    with running(waiting_server(echo_one)) as server:
        with connect(server) as first:
            eventually(lambda: server.stats.active == 1)
            with queue(server, 1) as (sock,):
                sock.sendall(b"early")
                turn(0.15)  # somebody has looked at it
                first.sendall(b"go")
                assert sock.recv(100) == b"early"


# ---- what a waiter holds -------------------------------------------------------------------


def test_who_waits_holds_its_sources_count_and_gives_it_back() -> None:
    rules = {"per_source": 2}
    with running(waiting_server(greet, **rules)) as server, clients(server, 1):
        with queue(server, 1) as (waiting,):
            with connect(server) as third:
                assert outcome(third) == "closed"
            assert server.stats.rejected[Reason.SOURCE] == 1
            waiting.close()
            eventually(lambda: server.stats.abandoned == 1)
            with queue(server, 1):
                assert server.stats.gate.sources_counted == 1


def test_rules_in_force_anew_count_those_who_wait() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 1):
        server.limiter.limits = Limits(max_connections=1, wait=LONG, per_source=2)
        with connect(server) as third:
            assert outcome(third) == "closed"
        assert server.stats.rejected[Reason.SOURCE] == 1


@pytest.mark.parametrize("sources", [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")])
def test_who_is_held_for_its_sources_slots_takes_no_slot_away_from_those_who_come_after(
    sources: tuple[str, str],
) -> None:
    """A candidate counts as ahead of newcomers, who then wait; its rejection lets them in. The
    loop turns to one of two listeners first: the other's client is the newcomer."""
    rules = {"per_source": 1, "source_exempt": ["127.0.0.2"]}
    limiter = Limiter(Limits(max_connections=2, wait=LONG, **rules))
    first = StreamServer(LOCAL, greet, limiter=limiter)
    second = StreamServer(LOCAL, greet, limiter=limiter)
    with running(first), running(second), clients(first, 1), contextlib.ExitStack() as stack:
        for server in first, second:
            server.stop_accepting()
        for server, source in zip((first, second), sources, strict=True):
            # Plain sockets, in the kernel's queues: the loop does not run in between.
            sock = stdlib_socket.create_connection(server.address, 20, (source, 0))
            stack.enter_context(sock)
        for server in first, second:
            server.start_accepting()
        eventually(lambda: limiter.snapshot().active == 2)
        eventually(lambda: limiter.snapshot().rejected[Reason.SOURCE] == 1)
        books = limiter.snapshot()
        assert books.waiting == 0


# ---- the books, and the end ----------------------------------------------------------------


def test_the_books_balance_at_every_instant_while_clients_wait_leave_and_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = random.Random(3)
    server = waiting_server(greet, cap=3, wait=0.05, wait_queue=10, per_source=1000)
    with checked_at_every_step(monkeypatch) as checks, running(server):
        mine: list[Any] = []
        for _ in range(600):
            if dice.random() < 0.6 or not mine:
                mine.append(connect(server))
            else:
                how = dice.choice([close, vanish, half_close])
                sock = mine.pop(dice.randrange(len(mine)))
                with contextlib.suppress(OSError):
                    how(sock)
                sock.close()
            if dice.random() < 0.1:
                turn(0.02)
            assert server.stats.balanced
        for sock in mine:
            sock.close()
        eventually(lambda: server.stats.active == server.stats.waiting == 0)
        books = server.stats
    assert len(checks) > 600
    assert books.abandoned
    assert books.rejected[Reason.WAIT_TIMEOUT]
    assert books.rejected[Reason.WAIT_FULL]


@pytest.mark.parametrize("stop", ["stop", "close"])
def test_stop_turns_those_who_wait_away_at_once_as_draining(stop: str) -> None:
    handler = Holding()
    with running(waiting_server(handler)) as server, clients(server, 1):
        with queue(server, 3) as waiting:
            stopping = gevent.spawn(getattr(server, stop))
            assert [outcome(sock) for sock in waiting] == ["closed"] * 3
            assert server.stats.rejected[Reason.DRAINING] == 3
            assert server.stats.waiting == 0
            handler.release.set()
            stopping.join()


def test_stopping_one_of_two_servers_leaves_those_who_wait_for_the_other_alone() -> None:
    limiter = Limiter(Limits(max_connections=1, wait=LONG))
    handler = Holding()
    first = StreamServer(LOCAL, handler, limiter=limiter)
    second = StreamServer(LOCAL, handler, limiter=limiter)
    with running(first), running(second), clients(first, 1):
        with queue(first, 1) as (leaving,), queue(second, 1) as (staying,):
            first.close()
            assert outcome(leaving) == "closed"
            handler.release.set()
            assert outcome(staying) == "served"


def test_the_audit_does_not_take_those_who_wait_for_leaks() -> None:
    with running(waiting_server(greet)) as server, clients(server, 1), queue(server, 3):
        assert server.audit().clean
        assert server.audit().clean


def test_waiting_and_settle_do_not_go_together() -> None:
    limits = Limits(max_connections=1, wait=1.0)
    with pytest.raises(SettingError, match="settle"):
        StreamServer(LOCAL, greet, limits=limits, settle=0.1)
    limiter = Limiter(1, settle=0.1)
    with pytest.raises(SettingError, match="goes without settle"):
        limiter.limits = limits
    assert not limiter.gate.may_wait


def test_no_error_of_ours_forgets_those_who_wait(hub_errors: list[BaseException]) -> None:
    """Whose time is over together: the first one's rejection is interrupted."""
    failures = [GreenletExit()]

    class Interrupted(Close):
        def on(self, family: int, loop: Any) -> Any:
            close = super().on(family, loop)

            def turn_away(fd: int) -> None:
                close(fd)
                if failures:
                    raise failures.pop()

            return turn_away

    limits = Limits(max_connections=1, wait=0.05)
    server = StreamServer(LOCAL, Holding(), limits=limits, rejection=Interrupted())
    with running(server), clients(server, 1), connect(server) as first, connect(server) as second:
        assert [outcome(first), outcome(second)] == ["closed", "closed"]
        eventually(lambda: server.stats.waiting == 0)
        assert server.stats.balanced
    hub_errors.clear()
