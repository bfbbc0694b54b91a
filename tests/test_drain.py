"""G7: the drain tells everyone, nudges the idle, finishes what is in flight, and is bounded."""

from __future__ import annotations

import hashlib
import os
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from support import (
    LOCAL,
    Holding,
    Stubborn,
    clients,
    connect,
    echo,
    eventually,
    outcome,
    running,
    turn,
)

from gserver import Ending, Limiter, Reason, StreamServer, drain_servers
from gserver.drain import KILL_S

LONG = 60.0
SLACK = 5.0  # for a machine under load
BODY = os.urandom(4_000_000)  # more than the kernel's buffers of a loopback connection hold


def test_idle_clients_are_nudged_and_the_drain_ends_at_once() -> None:
    with running(StreamServer(LOCAL, echo, max_connections=3)) as server:
        with clients(server, 3) as held:
            began = monotonic()
            done = drain_servers([server], server.limiter, LONG)
            assert monotonic() - began < SLACK
            assert [outcome(client) for client in held] == ["closed"] * 3
        assert (done.active, done.nudged, done.killed, done.left) == (3, 3, 0, 0)
        assert server.stats.finished[Ending.RETURNED] == 3


def test_stopping_a_server_drains_it() -> None:
    with running(StreamServer(LOCAL, echo, max_connections=1)) as server:
        with clients(server, 1) as (client,):
            began = monotonic()
            server.stop(LONG)
            assert monotonic() - began < SLACK
            assert outcome(client) == "closed"
        assert server.closed
        assert server.stats.finished[Ending.RETURNED] == 1


def test_clients_without_a_verdict_are_told() -> None:
    with running(StreamServer(LOCAL, echo, max_connections=1, settle=LONG)) as server:
        with clients(server, 1), connect(server) as candidate:
            eventually(lambda: server.stats.pending == 1)
            drain_servers([server], server.limiter, LONG)
            assert outcome(candidate) == "closed"
        assert server.stats.rejected[Reason.DRAINING] == 1


def test_an_answer_in_flight_completes_byte_exact() -> None:
    """Also one that the client reads slowly, and one that is still being computed."""
    compute = Event()

    def answer(sock: Any, _address: Any) -> None:
        if sock.recv(1) == b"c":
            compute.wait()
        sock.sendall(BODY)
        assert sock.recv(1) == b""

    with running(StreamServer(LOCAL, answer, max_connections=2)) as server:
        with connect(server) as reading, connect(server) as waiting:
            reading.sendall(b"r")
            waiting.sendall(b"c")
            first = reading.recv(1)
            turn(0.01)
            draining = gevent.spawn(drain_servers, [server], server.limiter, LONG)
            turn(0.05)
            compute.set()
            for client, begun in (reading, first), (waiting, b""):
                assert read_all(client, begun) == BODY
            assert draining.get(timeout=SLACK).killed == 0


def test_a_request_in_flight_is_read_and_answered_byte_exact() -> None:
    def digest(sock: Any, _address: Any) -> None:
        got = hashlib.sha256()
        for _ in range(len(BODY) // 1000):
            left = 1000
            while left:
                data = sock.recv(left)
                left -= len(data)
                got.update(data)
                if not data:
                    return
        sock.sendall(got.digest())
        sock.recv(1)

    with running(StreamServer(LOCAL, digest, max_connections=1)) as server:
        with connect(server) as client:
            client.sendall(BODY[:1000])
            eventually(lambda: server.stats.active == 1)
            turn(0.01)
            draining = gevent.spawn(drain_servers, [server], server.limiter, LONG)
            turn(0.15)  # more than one look at who is idle
            client.sendall(BODY[1000:])
            assert read_all(client) == hashlib.sha256(BODY).digest()
            assert draining.get(timeout=SLACK).killed == 0


def read_all(client: Any, begun: bytes = b"") -> bytes:
    parts = [begun]
    while data := client.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_whoever_becomes_idle_during_the_drain_is_nudged_then() -> None:
    answer = Event()

    def slow(sock: Any, _address: Any) -> None:
        while sock.recv(1):
            answer.wait()
            sock.sendall(b"+")

    with running(StreamServer(LOCAL, slow, max_connections=1)) as server:
        with connect(server) as client:
            client.sendall(b"?")
            eventually(lambda: server.stats.active == 1)
            turn(0.01)
            draining = gevent.spawn(drain_servers, [server], server.limiter, LONG)
            turn(0.05)
            assert server.stats.active == 1
            answer.set()
            assert outcome(client) == "served"
            assert outcome(client) == "closed"
            done = draining.get(timeout=SLACK)
        assert (done.nudged, done.killed) == (1, 0)


def test_a_client_that_has_said_nothing_yet_is_ended_when_deferred() -> None:
    with running(StreamServer(LOCAL, echo, max_connections=1, deferred_start=True)) as server:
        with connect(server) as silent:
            eventually(lambda: server.stats.active == 1)
            assert drain_servers([server], server.limiter, LONG).killed == 0
            assert outcome(silent) == "closed"


def test_those_that_do_not_finish_are_killed_when_the_time_is_over() -> None:
    with running(StreamServer(LOCAL, Holding(), max_connections=2)) as server:
        with clients(server, 2) as held:
            began = monotonic()
            done = drain_servers([server], server.limiter, 0.2)
            assert 0.2 <= monotonic() - began < SLACK
            assert [outcome(client) for client in held] == ["closed"] * 2
        assert (done.active, done.killed, done.left) == (2, 2, 0)
        assert server.stats.finished[Ending.KILLED] == 2


def test_the_time_is_bounded_when_a_handler_swallows_its_kill() -> None:
    handler = Stubborn()
    with running(StreamServer(LOCAL, handler, max_connections=1)) as server:
        with clients(server, 1) as (client,):
            began = monotonic()
            done = drain_servers([server], server.limiter, 0.1)
            assert monotonic() - began < 0.1 + KILL_S + SLACK
            assert (done.killed, done.left) == (1, 1)
            assert outcome(client) == "closed"  # cut off all the same
            handler.release.set()
            eventually(lambda: server.stats.active == 0)


def test_many_servers_with_one_cap_are_drained_together() -> None:
    limiter = Limiter(2)
    first, second = (StreamServer(LOCAL, echo, limiter=limiter) for _ in range(2))
    with running(first), running(second):
        with clients(first, 1), clients(second, 1):
            done = drain_servers([first, second], limiter, LONG)
        assert (done.active, done.nudged, done.killed) == (2, 2, 0)
        assert first.closed
        assert second.closed


def test_on_a_unix_socket_nobody_is_nudged(tmp_path: Any) -> None:
    """There is no way to tell whether one is idle; the deadline holds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with running(StreamServer(listener, echo, max_connections=1)) as server:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                assert outcome(client) == "served"
                done = drain_servers([server], server.limiter, 0.1)
        assert (done.nudged, done.killed, done.left) == (0, 1, 0)


def test_a_walk_over_many_lets_the_loop_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gserver.drain.BUDGET_S", 0.0)
    turns = []
    original = gevent.sleep

    def sleep(seconds: float = 0) -> None:
        turns.append(seconds)
        original(seconds)

    monkeypatch.setattr(gevent, "sleep", sleep)
    with running(StreamServer(LOCAL, echo, max_connections=5)) as server:
        with clients(server, 5):
            done = drain_servers([server], server.limiter, LONG)
    assert done.nudged == 5
    assert turns == [0] * 5
