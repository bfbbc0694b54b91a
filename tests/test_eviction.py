"""Idle eviction: at the cap the longest idle makes room for a newcomer, if idle long enough."""

from __future__ import annotations

import contextlib
import socket as socket_module
from collections import deque
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from support import (
    DEADLINE,
    LOCAL,
    clients,
    connect,
    echo,
    eventually,
    greet,
    outcome,
    running,
    turn,
)

from gserver import Ending, Limiter, Limits, Reason, Refuse, SettingError, StreamServer, slots
from gserver.candidates import EVICTION_WAIT_S
from gserver.reaper import Reaper
from gserver.timeouts import Timeouts

AGE = 0.1


def remembered(server: Any, count: int) -> None:
    """Wait until the sweep has found so many that may be evicted."""
    eventually(lambda: len(server._reaper._longest) == count)


@pytest.mark.parametrize("deferred", [False, True], ids=["started", "deferred"])
def test_the_longest_idle_makes_room_for_a_newcomer(deferred: bool) -> None:
    server = StreamServer(LOCAL, echo, max_connections=3, evict_idle=AGE, deferred_start=deferred)
    with running(server), contextlib.ExitStack() as stack:
        held = []
        for _ in range(3):
            client = stack.enter_context(connect(server))
            held.append(client)
            eventually(lambda: server.stats.active == len(held))
            turn(0.03)  # several ticks of the kernel's clocks apart
        remembered(server, 3)
        with connect(server) as newcomer:
            newcomer.sendall(b"n")
            assert outcome(newcomer) == "served"
            if not deferred:
                assert outcome(held[0]) == "served"
            assert outcome(held[0]) == "closed"  # the first, and only that one
            for client in held[1:]:
                client.sendall(b"x")
                assert outcome(client) == "served"
        assert server.stats.finished[Ending.EVICTED] == 1
        assert server.stats.rejected[Reason.CAPACITY] == 0


def test_nobody_younger_than_the_age_is_evicted() -> None:
    with running(StreamServer(LOCAL, echo, max_connections=2, evict_idle=60.0)) as server:
        with clients(server, 2) as held:
            with connect(server) as newcomer:
                assert outcome(newcomer) == "closed"
            for client in held:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        assert server.stats.finished[Ending.EVICTED] == 0


def test_nobody_who_has_become_busy_since_the_sweep_is_evicted() -> None:
    answer = Event()

    def slow(sock: Any, _address: Any) -> None:
        while sock.recv(1):
            answer.wait()
            sock.sendall(b"+")

    with running(StreamServer(LOCAL, slow, max_connections=1, evict_idle=AGE)) as server:
        with connect(server) as busy:
            eventually(lambda: server.stats.active == 1)
            remembered(server, 1)
            server._reaper._set_timer(None)  # that sweep was the last one
            busy.sendall(b"?")
            turn(0.01)
            with connect(server) as newcomer:
                assert outcome(newcomer) == "closed"
            answer.set()
            assert outcome(busy) == "served"
            busy.sendall(b"?")
            assert outcome(busy) == "served"  # and was not nudged either
        assert server.stats.finished[Ending.EVICTED] == 0
        assert server.stats.rejected[Reason.CAPACITY] == 1


def test_whose_answer_pauses_for_so_long_may_be_evicted_and_whose_has_not_begun_may_not() -> None:
    def pauses(sock: Any, _address: Any) -> None:
        words = sock.recv(10)
        turn(0.02)  # several ticks of the kernel's clocks
        if words == b"in part":
            sock.sendall(b"+")
        Event().wait()

    server = StreamServer(
        LOCAL, pauses, max_connections=2, evict_idle=AGE, timeouts=Timeouts(grace=0.01)
    )
    with running(server), connect(server) as first, connect(server) as second:
        first.sendall(b"at the end")
        second.sendall(b"in part")
        assert outcome(second) == "served"
        remembered(server, 1)
        with connect(server) as newcomer:
            newcomer.sendall(b"in part")
            assert outcome(newcomer) == "served"
            assert outcome(second) == "closed"
            assert server.stats.active == 2
        assert server.stats.finished[Ending.EVICTED] == 1


@pytest.mark.parametrize("deferred", [False, True], ids=["started", "deferred"])
def test_as_many_newcomers_as_there_are_idle_are_served(deferred: bool) -> None:
    server = StreamServer(LOCAL, echo, max_connections=20, evict_idle=AGE, deferred_start=deferred)
    with running(server), contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(server))
        remembered(server, 20)
        # At once: a plain socket's connect() does not let the loop turn.
        plain = [socket_module.create_connection(server.address) for _ in range(20)]
        came = [stack.enter_context(socket.socket(fileno=sock.detach())) for sock in plain]
        for client in came:
            client.settimeout(DEADLINE)
            with contextlib.suppress(OSError):  # turned away already
                client.sendall(b"x")
        assert [outcome(client) for client in came] == ["served"] * 20
        assert server.stats.finished[Ending.EVICTED] == 20
        assert server.stats.peak == 20


def test_nobody_is_evicted_for_a_client_that_an_ending_under_way_makes_room_for() -> None:
    def lingering(sock: Any, address: Any) -> None:
        echo(sock, address)
        turn(0.003)

    # Long enough for that handler also on a machine that is busy with other things.
    server = StreamServer(LOCAL, lingering, max_connections=4, settle=5.0, evict_idle=AGE)
    with running(server), clients(server, 3) as bystanders:
        remembered(server, 3)
        for _ in range(3):
            with connect(server) as client:
                client.sendall(b"x")
                assert outcome(client) == "served"
                assert outcome(client) == "served"
        for client in bystanders:
            client.sendall(b"x")
            assert outcome(client) == "served"
        assert server.stats.finished[Ending.EVICTED] == 0


@pytest.mark.parametrize("settle", [0.0, 0.01])
@pytest.mark.parametrize("comes_back", [True, False])
def test_eviction_is_asked_for_only_once_every_ending_under_way_is_over(
    settle: float, comes_back: bool
) -> None:
    """Also one that the poll of the next turn of the loop tells of."""
    limiter = Limiter(1, settle=settle)
    holder = gevent.Greenlet()
    slots.take(limiter.pool, holder)
    verdicts = []
    evictor: Any = SimpleNamespace(longest_idle=lambda: verdicts.append("asked"))
    limiter.evictors.append(evictor)
    front: Any = SimpleNamespace(
        proxies=None,
        admit=lambda *_client: verdicts.append("admitted"),
        turn_away={Reason.CAPACITY: lambda _fd: verdicts.append("rejected")},
    )
    limiter.hold(deque([(-1, ("192.0.2.1", 1))]), front, quiet=False)
    assert verdicts == []
    if comes_back:
        slots.give_back(limiter.pool, holder)
    eventually(lambda: not limiter.pending)
    assert verdicts == (["admitted"] if comes_back else ["asked", "rejected"])


def test_a_newcomer_waits_for_a_handler_that_takes_a_moment_to_end() -> None:
    def lingering(sock: Any, address: Any) -> None:
        echo(sock, address)
        turn(0.02)

    with running(StreamServer(LOCAL, lingering, max_connections=1, evict_idle=AGE)) as server:
        with clients(server, 1):
            remembered(server, 1)
            with connect(server) as newcomer:
                assert outcome(newcomer) == "served"


def test_a_newcomer_waits_as_long_as_handlers_are_said_to_need_to_end() -> None:
    def lingering(sock: Any, address: Any) -> None:
        echo(sock, address)
        turn(2 * EVICTION_WAIT_S)

    server = StreamServer(LOCAL, lingering, max_connections=1, settle=1.0, evict_idle=AGE)
    with running(server), clients(server, 1):
        remembered(server, 1)
        with connect(server) as newcomer:
            assert outcome(newcomer) == "served"
        assert server.stats.finished[Ending.EVICTED] == 1


def test_a_newcomer_waits_only_so_long_for_a_handler_that_does_not_leave() -> None:
    """And the slot is not given twice: the evicted one still holds it."""
    never = Event()

    def deaf(sock: Any, _address: Any) -> None:
        sock.sendall(b"+")
        never.wait()

    server = StreamServer(
        LOCAL, deaf, max_connections=1, evict_idle=AGE, timeouts=Timeouts(grace=60.0)
    )
    with running(server), clients(server, 1):
        remembered(server, 1)
        with connect(server) as newcomer:
            assert outcome(newcomer) == "closed"
        assert server.stats.active == server.stats.peak == 1


def test_servers_that_share_a_cap_evict_for_each_other() -> None:
    limiter = Limiter(1)
    first = StreamServer(LOCAL, echo, limiter=limiter, evict_idle=AGE)
    second = StreamServer(LOCAL, echo, limiter=limiter)
    with running(first), running(second):
        with clients(first, 1):
            remembered(first, 1)
            with connect(second) as newcomer:
                assert outcome(newcomer) == "served"
        first.close()
        assert not limiter.evictors


def test_the_longest_idle_of_all_servers_that_share_a_cap_makes_room() -> None:
    """Whichever of them that is, and whichever was started first."""
    limiter = Limiter(4)
    first = StreamServer(LOCAL, echo, limiter=limiter, evict_idle=AGE)
    second = StreamServer(LOCAL, echo, limiter=limiter, evict_idle=AGE)
    with running(first), running(second), contextlib.ExitStack() as stack:
        held = []
        for server in (second, first, first, second):
            held.append(stack.enter_context(connect(server)))
            eventually(lambda: limiter.snapshot().active == len(held))
            turn(0.03)  # several ticks of the kernel's clocks apart
        remembered(first, 2)
        remembered(second, 2)
        for client in held:
            with connect(first) as newcomer:
                assert outcome(newcomer) == "served"
                assert outcome(client) == "served"
                assert outcome(client) == "closed"
            eventually(lambda: limiter.snapshot().active == 3)
            stack.enter_context(connect(first))  # too young to be evicted
            eventually(lambda: limiter.snapshot().active == 4)


def test_an_eviction_looks_at_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    class Gone:
        ended = False

    def not_idle(connection: Any) -> None:
        looks.append(connection)

    monkeypatch.setattr("gserver.reaper.idle_seconds", not_idle)
    reaper = Reaper(Timeouts(), evict_idle=1.0)
    reaper._longest = [(0.0, number, Gone()) for number in range(1000)]  # type: ignore[misc]
    assert not reaper.evict_one()
    assert len(looks) == 16


@pytest.mark.parametrize("cap", [1, 3])
def test_nobody_is_evicted_for_a_client_whose_source_has_too_many(cap: int) -> None:
    """Full or not: a slot more would not let it in."""
    limits = Limits(max_connections=cap, per_source=1)
    with running(StreamServer(LOCAL, echo, limits=limits, evict_idle=AGE)) as server:
        with connect(server) as held:
            eventually(lambda: server.stats.active == 1)
            remembered(server, 1)
            with connect(server) as another:
                assert outcome(another) == "closed"
            held.sendall(b"x")
            assert outcome(held) == "served"
        assert server.stats.rejected[Reason.SOURCE] == 1
        assert server.stats.finished[Ending.EVICTED] == 0


def test_nobody_is_evicted_for_a_client_that_may_not_have_the_slot() -> None:
    """The last is reserved, and operators hold all: the one that came free would stay free."""
    rules: Any = {"reserved": 1, "reserved_for": ["127.0.0.1"]}
    limits = Limits(max_connections=2, **rules)
    with running(StreamServer(LOCAL, echo, limits=limits, evict_idle=AGE)) as server:
        with clients(server, 2) as operators:
            remembered(server, 2)
            other = socket.create_connection(
                server.address, timeout=20, source_address=("127.0.0.2", 0)
            )
            with other:
                assert outcome(other) == "closed"
            for operator in operators:
                operator.sendall(b"x")
                assert outcome(operator) == "served"
        assert server.stats.rejected[Reason.CAPACITY] == 1
        assert server.stats.finished[Ending.EVICTED] == 0


def test_evict_idle_and_waiting_do_not_go_together() -> None:
    limits = Limits(max_connections=1, wait=1.0)
    with pytest.raises(SettingError, match=r"^evict_idle .*goes without wait"):
        StreamServer(LOCAL, greet, limits=limits, evict_idle=AGE)
    limiter = Limiter(1)
    server = StreamServer(LOCAL, greet, limiter=limiter, evict_idle=AGE)
    with running(server):
        with pytest.raises(SettingError, match=r"^wait .*goes without evict_idle"):
            limiter.limits = limits
    limiter.limits = limits
    with pytest.raises(SettingError, match=r"^evict_idle .*goes without wait"):
        StreamServer(LOCAL, greet, limiter=limiter, evict_idle=AGE)


def test_evict_idle_and_refuse_do_not_go_together() -> None:
    with pytest.raises(SettingError, match="evict_idle"):
        StreamServer(LOCAL, echo, max_connections=1, rejection=Refuse(), evict_idle=AGE)


EVICTS: Any = {"evict_idle": AGE}
REFUSES: Any = {"rejection": Refuse()}


@pytest.mark.parametrize(("first", "second"), [(EVICTS, REFUSES), (REFUSES, EVICTS)], ids=str)
def test_nor_do_they_in_two_servers_that_share_a_cap(first: Any, second: Any) -> None:
    """Whichever was started first; and made before that or after."""
    limiter = Limiter(1)
    (setting,) = second
    made_before = StreamServer(LOCAL, echo, limiter=limiter, **second)
    with running(StreamServer(LOCAL, echo, limiter=limiter, **first)):
        with pytest.raises(SettingError, match=rf"^{setting} .*another server of this limiter"):
            made_before.start()
        assert made_before.closed
        with pytest.raises(SettingError, match=rf"^{setting} .*another server of this limiter"):
            StreamServer(LOCAL, echo, limiter=limiter, **second)
    with running(StreamServer(LOCAL, echo, limiter=limiter, **second)):
        assert limiter.refuses is (second is REFUSES)  # the other is closed
