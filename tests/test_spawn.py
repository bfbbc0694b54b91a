"""Which combinations of ``spawn``, ``max_connections`` and ``limiter`` mean what."""

from __future__ import annotations

import os
import resource
from typing import Any

import gevent
import gevent.event
import gevent.server
import pytest
from gevent.pool import Pool
from gevent.threadpool import ThreadPool
from support import (
    DEADLINE,
    LOCAL,
    Holding,
    clients,
    connect,
    echo,
    eventually,
    greet,
    outcome,
    running,
    visit,
)

from gserver import Ending, Limiter, Limits, Reply, Reset, SettingError, StreamServer
from gserver.candidates import MOST_HELD


class MyPool(Pool):
    pass


@pytest.mark.parametrize(
    ("arguments", "cap"),
    [
        ({"max_connections": 2}, 2),
        ({"spawn": 2}, 2),
        ({"spawn": Pool(2)}, 2),
        ({"spawn": MyPool(2)}, 2),
        ({"spawn": Pool(2), "max_connections": 2}, 2),
        ({"spawn": 2, "max_connections": 2}, 2),
        ({"limiter": Limiter(2)}, 2),
    ],
    ids=str,
)
def test_the_cap_holds_however_it_is_given(arguments: Any, cap: int) -> None:
    with running(StreamServer(LOCAL, Holding(), **arguments)) as server:
        assert server.max_connections == server.pool.size == cap
        with clients(server, cap):
            assert len(server.pool) == cap
            assert server.full()
            assert visit(server) == "closed"
        for pool in (arguments.get("spawn"),):
            assert not isinstance(pool, Pool) or server.pool is pool


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"spawn": "default"},
        {"spawn": gevent.spawn},
        {"spawn": gevent.spawn_raw},
        {"spawn": Pool(None)},
        {"spawn": Pool()},
    ],
    ids=str,
)
def test_without_a_cap_everybody_is_served_as_by_gevent(arguments: Any) -> None:
    handler = Holding()
    with running(StreamServer(LOCAL, handler, **arguments)) as server:
        assert server.max_connections is None
        assert server.limiter is None
        assert not server.full()
        with clients(server, 20):
            assert handler.inside == 20
        handler.release.set()
        eventually(lambda: handler.inside == 0)
        for books in (lambda: server.stats, server.audit):
            with pytest.raises((AttributeError, SettingError), match="keeps no books"):
                books()


def test_spawn_none_runs_the_handler_in_the_loop_as_gevent_does() -> None:
    ran = []

    def handler(_sock: Any, _address: Any) -> None:
        ran.append(gevent.getcurrent())

    with running(StreamServer(LOCAL, handler, spawn=None)) as server:
        assert visit(server) == "closed"
    assert ran == [gevent.get_hub()]


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"max_connections": 0}, "max_connections"),
        ({"max_connections": -1}, "max_connections"),
        ({"max_connections": True}, "max_connections"),
        ({"max_connections": 2.0}, "max_connections"),
        ({"max_connections": "2"}, "max_connections"),
        ({"spawn": 0}, "spawn"),
        ({"spawn": -1}, "spawn"),
        ({"spawn": Pool(2), "max_connections": 3}, "max_connections"),
        ({"spawn": 2, "max_connections": 3}, "max_connections"),
        ({"spawn": Pool(None), "max_connections": 3}, "spawn"),
        ({"spawn": None, "max_connections": 3}, "spawn"),
        ({"spawn": gevent.spawn_raw, "max_connections": 3}, "spawn"),
        ({"spawn": gevent.spawn, "max_connections": 3}, "spawn"),
        ({"spawn": lambda *_: None, "max_connections": 3}, "spawn"),
        ({"limiter": Limiter(2), "spawn": Pool(2)}, "spawn"),
        ({"limiter": Limiter(2), "max_connections": 2}, "limiter"),
        ({"limiter": Limiter(2), "settle": 0.1}, "limiter"),
        ({"settle": 0.1}, "settle"),
        ({"max_connections": 2, "settle": -0.1}, "settle"),
        ({"max_connections": 2, "settle": float("nan")}, "settle"),
        ({"max_connections": 2, "settle": "1"}, "settle"),
        ({"max_connections": 2, "settle": True}, "settle"),
        ({"max_connections": 2, "rejection": "close"}, "rejection"),
    ],
    ids=str,
)
def test_what_cannot_hold_is_refused_by_name_and_leaves_nothing_open(
    arguments: Any, setting: str
) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SettingError) as caught:
        StreamServer(LOCAL, greet, **arguments)
    assert caught.value.setting == setting
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert message.startswith(setting)
    assert "\n" not in message
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_an_adopted_listener_is_closed_when_the_arguments_are_refused_as_gevent_does() -> None:
    for server_class, arguments in (
        (gevent.server.StreamServer, {"spawn": -1}),
        (StreamServer, {"max_connections": 0}),
    ):
        listener = gevent.socket.socket()
        listener.bind(LOCAL)
        listener.listen()
        with pytest.raises(ValueError, match=r"."):
            server_class(listener, greet, **arguments)
        assert listener.fileno() == -1


def test_other_work_in_a_shared_pool_counts_against_the_cap() -> None:
    pool = Pool(2)
    done = gevent.event.Event()
    with running(StreamServer(LOCAL, greet, spawn=pool)) as server:
        pool.spawn(done.wait)
        assert server.stats.occupied == 1
        with clients(server, 1):
            assert visit(server) == "closed"
        done.set()
        eventually(lambda: len(pool) == 0)
        with clients(server, 2):
            assert visit(server) == "closed"


def test_a_place_that_other_work_gives_up_admits_a_candidate() -> None:
    pool = Pool(1)
    done = gevent.event.Event()
    with running(StreamServer(LOCAL, greet, spawn=pool, settle=0.2)) as server:
        pool.spawn(done.wait)
        with connect(server) as candidate:
            eventually(lambda: server.stats.pending == 1)
            done.set()
            assert outcome(candidate) == "served"


def test_a_threadpool_is_not_a_pool_that_counts() -> None:
    pool = ThreadPool(2)
    try:
        with pytest.raises(SettingError, match="spawn"):
            StreamServer(LOCAL, greet, spawn=pool, max_connections=2)
    finally:
        pool.kill()


def test_each_server_of_a_shared_limiter_rejects_in_its_own_way() -> None:
    limiter = Limiter(1)
    closes = StreamServer(LOCAL, Holding(), limiter=limiter)
    resets = StreamServer(LOCAL, Holding(), limiter=limiter, rejection=Reset())
    with running(closes), running(resets), clients(closes, 1):
        assert visit(closes) == "closed"
        assert visit(resets) == "reset"
        assert limiter.snapshot().accepted == 3


def test_stopping_one_server_of_a_shared_limiter_ends_its_own_connections_only() -> None:
    limiter = Limiter(4)
    first = StreamServer(LOCAL, greet, limiter=limiter)
    second = StreamServer(LOCAL, echo, limiter=limiter)
    with (
        running(first),
        running(second),
        clients(first, 2) as leaving,
        clients(second, 2) as staying,
    ):
        first.stop(0.0)
        assert [outcome(sock) for sock in leaving] == ["closed"] * 2
        assert limiter.snapshot().active == 2
        assert limiter.snapshot().finished[Ending.KILLED] == 2
        for sock in staying:
            sock.sendall(b"!")
            assert sock.recv(1) == b"!"


def test_a_server_of_a_shared_limiter_waits_for_its_own_connections() -> None:
    limiter = Limiter(2)
    handler = Holding()
    first = StreamServer(LOCAL, handler, limiter=limiter)
    second = StreamServer(LOCAL, greet, limiter=limiter)
    with running(first), running(second), clients(second, 1), clients(first, 1) as (sock,):
        gevent.spawn(handler.release.set)
        first.stop(DEADLINE)
        assert outcome(sock) == "closed"
        assert limiter.snapshot().finished[Ending.RETURNED] == 1
        assert limiter.snapshot().active == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("limits", 5),
        ("limiter", 5),
        ("deferred_start", "no"),
        ("settle", float("inf")),
        ("settle", 1e12),
    ],
)
def test_a_setting_of_another_kind_or_beyond_reason_is_refused_by_its_name(
    setting: str, value: Any
) -> None:
    others = {} if setting.startswith("limit") else {"max_connections": 1}
    with pytest.raises(SettingError, match=f"^{setting} "):
        StreamServer(LOCAL, echo, **others, **{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"), [("timeout", float("inf")), ("timeout", 1e12), ("max_lingering", True)]
)
def test_a_reply_without_bounds_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"^{setting} "):
        Reply(b"busy", **{setting: value})


@pytest.mark.parametrize("value", [5, None])
def test_rules_of_another_kind_are_refused_while_it_runs(value: Any) -> None:
    limiter = Limiter(1)
    with pytest.raises(SettingError, match=r"^limits "):
        limiter.limits = value


@pytest.mark.parametrize(
    "arguments", [{"rejection": Reset()}, {"handshake_timeout": 3.0}, {"handshake_timeout": None}]
)
def test_what_would_be_ignored_without_a_cap_is_refused(arguments: Any) -> None:
    (setting,) = arguments
    with pytest.raises(SettingError, match=f"^{setting} .*: needs a cap"):
        StreamServer(LOCAL, greet, **arguments)


def test_handshake_may_be_given_for_ever() -> None:
    server = StreamServer(LOCAL, greet, max_connections=1, handshake_timeout=None)
    assert server.handshake_timeout is None
    assert StreamServer(LOCAL, greet, max_connections=1).handshake_timeout == 10.0


def test_server_without_a_cap_has_no_stats_to_find() -> None:
    assert not hasattr(StreamServer(LOCAL, greet), "stats")
    assert hasattr(StreamServer(LOCAL, greet, max_connections=1), "stats")


@pytest.mark.parametrize("waiting", [False, True])
def test_slot_that_other_work_in_a_shared_pool_gives_back_is_the_next_clients(
    waiting: bool,
) -> None:
    pool, end = Pool(1), gevent.event.Event()
    rules: dict[str, Any] = {"settle": 3600.0}
    if waiting:
        rules = {"limits": Limits(max_connections=1, wait=600.0, wait_queue=1)}
    with running(StreamServer(LOCAL, greet, spawn=pool, **rules)) as server:
        for _ in range(2):
            work = pool.spawn(end.wait)
            with connect(server) as client:
                eventually(lambda: server.stats.pending + server.stats.waiting == 1)
                books = server.stats
                assert books.balanced
                assert (books.active, books.occupied, books.peak) == (0, 1, 1)
                assert server.stats.time_full > 0.0
                end.set()
                assert outcome(client) == "served"
            work.join()
            end.clear()
            eventually(lambda: server.stats.occupied == 0)


def test_cap_that_the_descriptor_limit_does_not_allow_is_warned_of_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for cap, warnings in (soft - MOST_HELD, 1), (soft - MOST_HELD - 1, 0):
        caplog.clear()
        server = StreamServer(LOCAL, greet, max_connections=cap)
        assert not caplog.records
        with running(server):
            assert len(caplog.records) == warnings
            assert all("RLIMIT_NOFILE" in record.getMessage() for record in caplog.records)
