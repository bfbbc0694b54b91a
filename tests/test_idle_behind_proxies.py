"""Who is silent or idle behind a PROXY proxy: its header is none of the client's words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from proxied import LOCAL_CHECK, by_proxy, served_by_proxy, v1, v2
from support import eventually, outcome

from gserver import Ending, Reason, Timeouts, drain_servers

SHORT = 0.05
LONG = 5.0
HEADERS = [v1("192.0.2.1"), v2("2001:db8::1"), LOCAL_CHECK]

pytestmark = pytest.mark.parametrize("deferred", [False, True], ids=["started", "deferred"])


def listen(sock: Any, _address: Any) -> None:
    """A handler whose client speaks first."""
    while data := sock.recv(4096):
        sock.sendall(data)


@contextlib.contextmanager
def silent_client(header: bytes, **settings: Any) -> Iterator[tuple[Any, Any]]:
    with served_by_proxy(listen, cap=1, **settings) as server:
        with by_proxy(server, header) as client:
            eventually(lambda: server.stats.active == 1)
            yield server, client
        eventually(lambda: server.stats.active == 0)


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2", "LOCAL"])
def test_a_client_that_says_nothing_is_ended_at_its_first_byte_timeout(
    header: bytes, deferred: bool
) -> None:
    timeouts = Timeouts(first_byte=SHORT)
    with silent_client(header, timeouts=timeouts, deferred_start=deferred) as (server, client):
        assert outcome(client) == "closed"
        assert server.stats.finished[Ending.FIRST_BYTE_TIMEOUT] == 1


def test_a_client_whose_words_come_with_the_header_has_spoken(deferred: bool) -> None:
    timeouts = Timeouts(first_byte=SHORT, idle=4 * SHORT)
    header = v1("192.0.2.1") + b"x"
    with silent_client(header, timeouts=timeouts, deferred_start=deferred) as (server, client):
        assert client.recv(1) == b"x"
        assert outcome(client) == "closed"
        assert server.stats.finished[Ending.IDLE_TIMEOUT] == 1


def test_a_client_that_says_nothing_is_ended_when_idle(deferred: bool) -> None:
    timeouts = Timeouts(idle=SHORT)
    header = v1("192.0.2.1")
    with silent_client(header, timeouts=timeouts, deferred_start=deferred) as (server, client):
        assert outcome(client) == "closed"
        assert server.stats.finished[Ending.IDLE_TIMEOUT] == 1


def test_a_client_that_says_nothing_makes_room_for_a_newcomer(deferred: bool) -> None:
    with silent_client(v1("192.0.2.1"), evict_idle=SHORT, deferred_start=deferred) as (
        server,
        client,
    ):
        eventually(lambda: len(server._reaper._longest) == 1)
        with by_proxy(server, v1("192.0.2.2") + b"x") as newcomer:
            assert newcomer.recv(1) == b"x"
        assert outcome(client) == "closed"
        assert server.stats.finished[Ending.EVICTED] == 1
        assert server.stats.rejected[Reason.CAPACITY] == 0


def test_a_client_that_says_nothing_is_nudged_by_the_drain(deferred: bool) -> None:
    with silent_client(v1("192.0.2.1"), deferred_start=deferred) as (server, client):
        done = drain_servers([server], server.limiter, LONG)
        assert (done.active, done.nudged, done.killed) == (1, 1, 0)
        assert outcome(client) == "closed"
