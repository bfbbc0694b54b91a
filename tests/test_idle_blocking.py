"""Idle, where a handler blocks its thread: it is seen to wait for its client, or to compute."""

from __future__ import annotations

import contextlib
import socket as plain
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support import DEADLINE, LOCAL, connect, eventually, outcome, running, turn

from gserver import Ending, Timeouts, drain_servers
from gserver.handlers.adapters import Kind, make_server
from gserver.idleness import idle_seconds
from gserver.net import tcp_info

SHORT = 0.1


def by_recv(sock: Any, _address: Any) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


def by_recv_with_a_timeout(sock: Any, address: Any) -> None:
    sock.settimeout(DEADLINE)
    by_recv(sock, address)


def by_file(sock: Any, _address: Any) -> None:
    with sock.makefile("rwb", buffering=0) as file:
        while data := file.readline():
            file.write(data)


def by_recv_into(sock: Any, _address: Any) -> None:
    buffer = bytearray(100)
    while size := sock.recv_into(buffer, 100):
        sock.sendall(buffer[:size])


def by_recvfrom(sock: Any, _address: Any) -> None:
    while data := sock.recvfrom(100)[0]:
        sock.sendall(data)


def by_recvmsg(sock: Any, _address: Any) -> None:
    while data := sock.recvmsg(100)[0]:
        sock.sendall(data)


@contextlib.contextmanager
def serving(handler: Any, cap: int = 2, **settings: Any) -> Iterator[Any]:
    with running(
        make_server(handler, LOCAL, Kind.BLOCKING, max_connections=cap, **settings)
    ) as server:
        yield server


def exchanged(client: Any) -> None:
    """Some requests, each with an answer in the same tick of the kernel's clock, or the next."""
    for _ in range(5):
        client.sendall(b"?\n")
        assert client.recv(2, plain.MSG_WAITALL) == b"?\n"


@pytest.fixture
def _same_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a client said, its answer was sent within the same tick."""
    original = tcp_info.turn_of

    def turn_of(info: Any, **more: Any) -> Any:
        return tcp_info.Turn.UNCLEAR if info.bytes_received else original(info, **more)

    monkeypatch.setattr(tcp_info, "turn_of", turn_of)


@pytest.mark.usefixtures("_same_tick")
@pytest.mark.parametrize(
    "handler",
    [by_recv, by_recv_with_a_timeout, by_file, by_recv_into, by_recvfrom, by_recvmsg],
    ids=lambda handler: handler.__name__,
)
def test_a_thread_that_waits_to_read_has_an_idle_client_however_fast_its_answer_came(
    handler: Any,
) -> None:
    with serving(handler, timeouts=Timeouts(idle=SHORT, grace=60.0)) as server:
        with connect(server) as client:
            exchanged(client)
            assert outcome(client) == "closed"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.finished[Ending.IDLE_TIMEOUT] == 1


@pytest.mark.usefixtures("_same_tick")
def test_the_longest_idle_of_a_blocking_handlers_clients_makes_room() -> None:
    with serving(by_recv, 1, evict_idle=SHORT) as server, connect(server) as idle:
        exchanged(idle)
        eventually(lambda: server._reaper._longest)
        with connect(server) as newcomer:
            exchanged(newcomer)
        assert outcome(idle) == "closed"


@pytest.mark.usefixtures("_same_tick")
def test_a_drain_nudges_a_blocking_handlers_idle_client() -> None:
    with serving(by_recv) as server, connect(server) as client:
        exchanged(client)
        done = drain_servers([server], server.limiter, 60.0)
        assert (done.active, done.nudged, done.killed) == (1, 1, 0)


@pytest.mark.usefixtures("_same_tick")
def test_a_thread_that_computes_its_answer_is_never_ended_as_idle() -> None:
    answer = threading.Event()

    def computes(sock: Any, _address: Any) -> None:
        while sock.recv(1):
            sock.sendall(b"in part;")
            while not answer.is_set():
                # It looks, all along, whether its client is still there.
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1, plain.MSG_PEEK | plain.MSG_DONTWAIT)
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.recv_into(bytearray(1), 1, plain.MSG_PEEK)
                sock.setblocking(True)
            sock.sendall(b"all")

    try:
        with serving(computes, timeouts=Timeouts(idle=SHORT, grace=0.01)) as server:
            with connect(server) as asking:
                asking.sendall(b"?")
                assert asking.recv(8, plain.MSG_WAITALL) == b"in part;"
                (connection,) = server.limiter.connections
                for _ in range(1000):
                    assert idle_seconds(connection) is None
                turn(3 * SHORT)
                assert server.stats.active == 1
                answer.set()
                assert asking.recv(3, plain.MSG_WAITALL) == b"all"
                assert outcome(asking) == "closed"  # and then it is idle
    finally:
        answer.set()


def test_a_blocking_handler_may_still_dup_and_hand_on_its_socket() -> None:
    def hands_on(sock: Any, _address: Any) -> None:
        with sock.dup() as own, plain.socket(fileno=own.detach()) as other:
            other.sendall(other.recv(2, plain.MSG_WAITALL))

    with serving(hands_on) as server, connect(server) as client:
        client.sendall(b"?\n")
        assert client.recv(2, plain.MSG_WAITALL) == b"?\n"
