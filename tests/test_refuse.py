"""Refuse: while all slots are taken the kernel turns clients away, and nobody here does a thing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
from support import (
    DEADLINE,
    LOCAL,
    Holding,
    Process,
    clients,
    connect,
    connect_to,
    eventually,
    greet,
    load,
    outcome,
    running,
    server_context,
    turn,
)

import gserver.accept
from gserver import Limiter, Limits, Reason, Refuse, Reply, SettingError, StreamServer

LOOPBACKS: dict[str, tuple[Any, list[str]]] = {
    "IPv4": (("127.0.0.1", 0), ["127.0.0.1"]),
    "IPv6": (("::1", 0), ["::1"]),
    "dual-stack": (("", 0), ["127.0.0.1", "::1"]),
}


def refused(address: Any) -> bool:
    """Whether a client that connects now is refused."""
    try:
        with connect_to(address) as sock:
            raise AssertionError(f"connected, and was {outcome(sock)}")
    except ConnectionRefusedError:
        return True


def is_shut(server: StreamServer) -> bool:
    return server._accepting is not None and server._accepting._refusing_since is not None


@contextmanager
def serving(handler: Any = greet, address: Any = LOCAL, **arguments: Any) -> Iterator[Any]:
    arguments = {"rejection": Refuse(), **arguments}
    with running(StreamServer(address, handler, **arguments)) as server:
        yield server


def taken_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door opens at the fourth try, each soon after the one before."""
    monkeypatch.setattr(gserver.accept, "_REOPEN_EVERY_S", 0.01)
    original = gserver.accept.open_door
    failures = [OSError(errno.EADDRINUSE, "taken")] * 3

    def fails(listener: Any, backlog: int) -> None:
        if failures:
            raise failures.pop()
        original(listener, backlog)

    monkeypatch.setattr(gserver.accept, "open_door", fails)


@pytest.mark.parametrize("family", LOOPBACKS)
def test_connections_are_held_across_many_shut_and_open_cycles(family: str) -> None:
    """One is held all along, and 50 times another comes, shuts the door, and leaves."""
    address, hosts = LOOPBACKS[family]
    with serving(address=address, max_connections=2) as server:
        port = server.server_port
        with connect_to((hosts[0], port)) as held:
            assert outcome(held) == "served"
            for cycle in range(50):
                with connect_to((hosts[cycle % len(hosts)], port)) as sock:
                    assert outcome(sock) == "served"
                    assert all(refused((host, port)) for host in hosts)
                eventually(lambda: not is_shut(server))
            held.sendall(b"still here")
            assert server.stats.active == 1
        assert server.server_port == port
        assert server.stats.rejected[Reason.CAPACITY] == 0
        assert server.stats.admitted == 51


def test_it_opens_when_a_slot_comes_back_while_the_others_are_held() -> None:
    with serving(max_connections=3) as server, clients(server, 2):
        for _ in range(10):
            with clients(server, 1):
                assert refused(server.address)
            eventually(lambda: not is_shut(server))


def test_the_time_it_refused_is_counted_and_only_that() -> None:
    with serving(max_connections=1) as server:
        turn(0.01)
        assert server.stats.time_refusing == 0.0
        with clients(server, 1):
            turn(0.01)
            assert server.stats.time_refusing > 0.0
        eventually(lambda: not is_shut(server))
        so_far = server.stats.time_refusing
        turn(0.01)
        assert server.stats.time_refusing == so_far


def test_with_a_reserve_it_refuses_only_when_the_reserved_slots_are_taken_too() -> None:
    limits = Limits(max_connections=2, reserved=1, reserved_for=["127.0.0.2"])
    with serving(limits=limits) as server, clients(server, 1):
        with connect(server) as other:
            assert outcome(other) == "reset"  # not refused: an operator could still come
        operator = socket.create_connection(server.address, DEADLINE, ("127.0.0.2", 0))
        with operator:
            eventually(lambda: is_shut(server))
            assert refused(server.address)


def test_who_is_in_the_queue_when_the_door_shuts_gets_a_reset() -> None:
    with serving(max_connections=1) as server, load("burst", server, 200) as burst:
        seen = burst.read()
        assert seen["served"] == 1
        assert seen["hung"] == 0
        assert set(seen) <= {"served", "hung", "reset", "refused"}


def test_stopped_while_shut_it_gives_the_port_back() -> None:
    address: Any = LOCAL
    for _ in range(3):
        with serving(address=address, max_connections=1) as server, clients(server, 1):
            address = server.address
            assert refused(address)
        assert refused(address)  # nobody listens


def test_accepting_stopped_while_shut_and_started_again_after_a_slot_came_back() -> None:
    with serving(max_connections=1) as server:
        with clients(server, 1):
            server.stop_accepting()
            assert refused(server.address)
        eventually(lambda: server.stats.active == 0)
        server.start_accepting()
        with clients(server, 1):
            assert refused(server.address)


def test_raising_the_cap_while_shut_opens_the_door() -> None:
    with serving(max_connections=1) as server, clients(server, 1):
        assert refused(server.address)
        server.max_connections = 2
        with clients(server, 1):
            assert refused(server.address)
            server.limiter.limits = Limits(max_connections=3)
            with clients(server, 1):
                assert refused(server.address)


def test_lowering_the_cap_to_what_is_in_use_shuts_it() -> None:
    with serving(max_connections=3) as server, clients(server, 2):
        server.max_connections = 2
        assert refused(server.address)


def test_servers_that_share_a_limiter_refuse_together_and_open_together() -> None:
    limiter = Limiter(2)
    with (
        serving(limiter=limiter) as first,
        serving(limiter=limiter) as second,
        serving(limiter=limiter, rejection=None) as closes,
        clients(first, 1),
    ):
        with clients(closes, 1):
            assert refused(first.address)
            assert refused(second.address)
            with connect(closes) as sock:
                assert outcome(sock) == "closed"
        eventually(lambda: not is_shut(first) and not is_shut(second))
        with clients(second, 1):
            assert refused(first.address)


def test_started_while_the_shared_limiter_is_full_it_refuses_from_the_first_moment() -> None:
    limiter = Limiter(1)
    with running(StreamServer(LOCAL, greet, limiter=limiter)) as first, clients(first, 1):
        with serving(limiter=limiter) as second:
            assert refused(second.address)


def test_a_closed_server_is_told_no_more_of_the_limiter_it_shared() -> None:
    limiter = Limiter(1)
    with running(StreamServer(LOCAL, greet, limiter=limiter)) as first:
        with serving(limiter=limiter) as second:
            second.stop()
            with clients(first, 1):
                pass
        assert limiter.snapshot().time_refusing == 0.0
        limiter.limits = Limits(max_connections=1, wait=0.1)  # nobody refuses any more


def test_when_the_port_is_taken_meanwhile_opening_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken_three_times(monkeypatch)
    with serving(max_connections=1) as server:
        with clients(server, 1):
            pass
        eventually(lambda: not is_shut(server))
        with clients(server, 1):
            pass
    assert caplog.text.count("cannot listen again") == 3


def test_accepting_stopped_while_opening_is_tried_again_and_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = gserver.accept.open_door
    tried = []

    def fails_once(listener: Any, backlog: int) -> None:
        tried.append(listener)
        if len(tried) == 1:
            raise OSError(errno.EADDRINUSE, "taken")
        original(listener, backlog)

    monkeypatch.setattr(gserver.accept, "open_door", fails_once)
    with serving(max_connections=1) as server:
        with clients(server, 1):
            pass
        eventually(lambda: tried)
        server.stop_accepting()
        server.start_accepting()
        with clients(server, 1):
            assert refused(server.address)


def test_another_process_cannot_take_the_port_while_the_door_is_shut() -> None:
    with serving(max_connections=1) as server, clients(server, 1):
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind(server.address)
                thief.listen()


def test_a_listener_that_is_shut_does_not_keep_the_loop_busy() -> None:
    turns = 0

    def turned() -> None:
        nonlocal turns
        turns += 1

    with serving(max_connections=1) as server, clients(server, 1):
        watcher = gevent.get_hub().loop.prepare()
        watcher.start(turned)
        try:
            turn(0.2)
        finally:
            watcher.stop()
            watcher.close()
    assert turns < 20


@pytest.mark.parametrize("refuses", [True, False])
def test_a_flood_of_refused_clients_costs_the_server_nothing(refuses: bool) -> None:
    """3,000 connects; and the control: turning them away costs microseconds each."""
    with Process("refusing.py", "refuse" if refuses else "close") as process:
        address = tuple(process.read())
        with socket.create_connection(address, DEADLINE) as held:
            assert held.recv(1) == b"+"
            seconds = 0.0
            before = _cpu_ns(process)
            for _ in range(3000):
                with socket.socket() as sock:
                    if refuses:
                        assert sock.connect_ex(address) == errno.ECONNREFUSED
                    else:
                        sock.connect(address)
                        assert sock.recv(1) == b""
            seconds = (_cpu_ns(process) - before) / 1e9
    if refuses:
        assert seconds < 0.005
    else:
        assert seconds > 0.015


def _cpu_ns(process: Process) -> int:
    """CPU time of a process that sleeps: /proc/PID/task/TID/schedstat, proc(5)."""
    tasks = Path(f"/proc/{process._process.pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())


# ---- what it does not go with --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"max_connections": 1, "settle": 0.1}, "goes without settle"),
        ({"limits": Limits(max_connections=1, wait=0.1)}, "goes without wait"),
        ({"limiter": Limiter(Limits(max_connections=1, wait=0.1))}, "goes without wait"),
        ({"max_connections": 1, "rejection": {"denied": Refuse()}}, "for the reason capacity"),
    ],
    ids=str,
)
def test_what_it_does_not_go_with_is_refused_and_leaves_nothing_open(
    arguments: Any, problem: str
) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SettingError, match=problem) as caught:
        StreamServer(LOCAL, greet, **{"rejection": Refuse(), **arguments})
    assert caught.value.setting == "rejection"
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_listener_that_is_handed_in_is_refused_as_its_port_may_be_lost() -> None:
    listener = socket.create_server(LOCAL)
    with pytest.raises(SettingError, match="needs an address, not a socket"):
        StreamServer(listener, greet, max_connections=1, rejection=Refuse())
    assert listener.fileno() == -1


def test_a_unix_socket_is_refused_as_it_would_not_open_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = gevent.socket.socket(socket.AF_UNIX)
        stack.callback(listener.close)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        with pytest.raises(SettingError, match="needs TCP"):
            StreamServer(listener, greet, max_connections=1, rejection=Refuse())


def test_with_tls_it_refuses_all_the_same_and_a_plain_reply_is_an_error() -> None:
    context = server_context(gevent.ssl.SSLContext)
    with serving(max_connections=1, ssl_context=context, handler=Holding()) as server:
        with connect(server):
            eventually(lambda: is_shut(server))
            assert refused(server.address)
    with pytest.raises(SettingError, match="plain text"):
        StreamServer(LOCAL, greet, max_connections=1, ssl_context=context, rejection=Reply("http"))


def test_waiting_turned_on_before_the_start_is_an_error_at_the_start() -> None:
    before = os.listdir("/proc/self/fd")
    server = StreamServer(LOCAL, greet, max_connections=1, rejection=Refuse())
    assert server.limiter is not None
    server.limiter.limits = Limits(max_connections=1, wait=0.1)
    with pytest.raises(SettingError, match="goes without wait"):
        server.start()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_turning_waiting_on_while_it_refuses_is_an_error() -> None:
    with serving(max_connections=1) as server:
        with pytest.raises(SettingError, match="goes without") as caught:
            server.limiter.limits = Limits(max_connections=1, wait=0.1)
        assert caught.value.setting == "wait"
        assert not server.limiter.gate.may_wait


@pytest.mark.parametrize("before", [True, False], ids=["before the start", "while it runs"])
def test_door_opens_when_other_work_in_the_pool_gives_back_its_slot(before: bool) -> None:
    pool, end = Pool(1), Event()
    work = pool.spawn(end.wait) if before else None
    with running(StreamServer(LOCAL, greet, spawn=pool, rejection=Refuse())) as server:
        if work is None:
            work = pool.spawn(end.wait)
            assert server.stats.occupied == 1  # nobody else tells
        assert is_shut(server)
        end.set()
        work.join()
        eventually(lambda: not is_shut(server))
        with connect(server) as client:
            assert outcome(client) == "served"


def test_door_shuts_at_the_first_client_that_comes_while_other_work_has_filled_the_pool() -> None:
    end = Event()
    with serving(max_connections=1) as server:
        work = server.pool.spawn(end.wait)
        # Both are in the queue before the loop turns: the second is there when the door shuts.
        with (
            socket.create_connection(server.address, DEADLINE) as one,
            socket.create_connection(server.address, DEADLINE) as two,
        ):
            eventually(lambda: is_shut(server))
            assert outcome(one) in ("closed", "reset")
            assert outcome(two) == "reset"
        assert server.stats.accepted == 1
        end.set()
        work.join()
        eventually(lambda: not is_shut(server))
        with connect(server) as client:
            assert outcome(client) == "served"


def test_listener_that_cannot_be_shut_is_a_listener_that_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_listener: Any) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(gserver.accept, "shut_door", broken)
    with serving(max_connections=1) as server, connect(server) as client:
        assert outcome(client) == "served"  # the admitted go on
        assert server.closed
        assert "the listener failed" in caplog.text
