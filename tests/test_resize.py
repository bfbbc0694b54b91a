"""The cap can be changed at any time: raising admits at once, lowering ends nobody."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
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
    visit,
)

from gserver import Limiter, Limits, SettingError, StreamServer, slots


def test_raising_admits_a_waiting_candidate_at_once() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1, settle=3600.0)) as server:
        with clients(server, 1), connect(server) as candidate:
            eventually(lambda: server.stats.pending == 1)
            server.max_connections = 2
            assert outcome(candidate) == "served"
            assert server.stats.cap == server.max_connections == server.pool.size == 2


def test_raising_admits_the_next_clients_up_to_the_new_cap() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=1)) as server:
        with clients(server, 1):
            assert visit(server) == "closed"
            server.max_connections = 4
            with clients(server, 3):
                assert visit(server) == "closed"
                assert server.stats.active == 4


def test_lowering_ends_nobody_and_admits_nobody_until_enough_have_left() -> None:
    with running(StreamServer(LOCAL, greet, max_connections=4)) as server:
        with clients(server, 4) as socks:
            server.max_connections = 2
            assert server.stats.active == 4
            for left in 3, 2:
                assert visit(server) == "closed"
                socks.pop().close()
                eventually(lambda left=left: server.stats.active == left)
            assert visit(server) == "closed"  # at the new cap
            socks.pop().close()
            assert visit(server) == "served"
            for sock in socks:
                sock.close()
        eventually(lambda: server.stats.active == 0)
        assert server.pool._semaphore.counter == 2


def test_the_cap_holds_while_it_changes_under_load() -> None:
    most = 0
    inside = 0

    with running(StreamServer(LOCAL, greet, max_connections=5)) as server:
        with load("flood", server, 20) as flood:
            for cap in [5, 1, 8, 3, 2, 7] * 5:
                before = server.stats.active
                server.max_connections = cap
                accepted = server.stats.accepted
                while server.stats.accepted < accepted + 50:
                    turn()
                    inside = server.stats.active
                    most = max(most, inside)
                    assert inside <= max(cap, before)
                    assert slots.semaphore_error(server.pool) == 0
            flood.tell()
            flood.read()
    assert most > 1


@pytest.mark.parametrize("cap", [0, -1, True, 1.5, "3", None])
def test_a_cap_that_is_none_is_refused_and_changes_nothing(cap: object) -> None:
    server = StreamServer(LOCAL, greet, max_connections=2)
    with pytest.raises(SettingError, match="max_connections"):
        server.max_connections = cap
    assert server.max_connections == server.pool.size == 2


def test_a_cap_that_leaves_nothing_but_the_reserve_is_refused_and_changes_nothing() -> None:
    limiter = Limiter(Limits(max_connections=9, reserved=5, reserved_for=["192.0.2.1"]))
    with pytest.raises(SettingError, match=r"^reserved 5: leaves nothing of max_connections 3"):
        limiter.max_connections = 3
    assert limiter.max_connections == limiter.limits.max_connections == limiter.pool.size == 9
    limiter.max_connections = 6
    assert limiter.max_connections == limiter.limits.max_connections == limiter.pool.size == 6


def test_another_rule_leaves_the_cap_as_it_was_set() -> None:
    limiter = Limiter(100)
    limiter.max_connections = 200
    assert limiter.limits.max_connections == 200
    limiter.limits = replace(limiter.limits, per_source=5)
    assert limiter.max_connections == limiter.limits.max_connections == limiter.pool.size == 200


def test_an_early_drop_that_would_never_be_used_is_refused_and_changes_nothing() -> None:
    limiter = Limiter(Limits(max_connections=10, early_drop="8:30:10"))
    for never in {"early_drop": "11:30:20"}, {"max_connections": 7}:
        with pytest.raises(SettingError, match=r"^early_drop .*would never be used"):
            limiter.limits = replace(limiter.limits, per_source=1, **never)
        assert limiter.limits == Limits(max_connections=10, early_drop="8:30:10")
        assert limiter.pool.size == 10


def test_another_rule_may_be_set_while_the_cap_is_lower_than_early_drop_begins() -> None:
    limiter = Limiter(Limits(max_connections=10, early_drop="8:30:10"))
    limiter.max_connections = 7
    limiter.limits = replace(limiter.limits, per_source=1)
    assert limiter.limits == Limits(max_connections=7, early_drop="8:30:10", per_source=1)


def test_a_server_without_a_cap_cannot_be_given_one() -> None:
    server = StreamServer(LOCAL, greet)
    assert server.max_connections is None
    with pytest.raises(SettingError, match="without a cap"):
        server.max_connections = 2


def test_servers_that_share_a_limiter_share_the_change() -> None:
    limiter = Limiter(1)
    first = StreamServer(LOCAL, Holding(), limiter=limiter)
    second = StreamServer(LOCAL, Holding(), limiter=limiter)
    with running(first), running(second), clients(first, 1):
        assert visit(second) == "closed"
        first.max_connections = 2
        assert second.max_connections == 2
        with clients(second, 1):
            assert visit(first) == "closed"


def test_other_work_in_a_shared_pool_is_resized_with_it() -> None:
    """Waiters for a place in the pool get theirs when the cap is raised."""
    pool = Pool(1)
    release = Event()
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        pool.spawn(release.wait)
        waiting = gevent.spawn(pool.spawn, release.wait)  # blocks: the pool is full
        eventually(lambda: pool._semaphore.linkcount() == 1)
        server.max_connections = 2
        waiting.get(timeout=5)
        assert len(pool) == 2
        assert visit(server) == "closed"
        release.set()
        pool.join()
        assert visit(server) == "served"
