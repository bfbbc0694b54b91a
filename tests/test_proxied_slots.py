"""A proxy's client takes a slot before its header is read: how that comes back, however it ends."""

from __future__ import annotations

import _socket
import contextlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import gevent.ssl
import pytest
from counting import Made
from proxied import GARBAGE, V2, behind_proxies, by_proxy, served_by_proxy, v1, v2
from support import (
    Holding,
    OrderedPool,
    connect,
    eventually,
    greet,
    is_open,
    outcome,
    running,
    vanish,
)

import gserver.server
from gserver import Limits, Reason
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.stats import Ending


def test_slot_is_taken_before_the_header_and_nobody_is_admitted_yet() -> None:
    with served_by_proxy(greet, cap=1) as server:
        with connect(server) as silent:
            eventually(lambda: server.stats.pending == 1)
            books = server.stats
            assert (books.active, books.reading, books.admitted) == (0, 1, 0)
            assert books.balanced
            assert len(server.pool) == 1
            assert server.full()
            assert server.audit().clean
            assert server.audit().clean
            with by_proxy(server, v1("192.0.2.2")) as second:
                assert outcome(second) in ("closed", "reset")
            assert server.stats.rejected[Reason.CAPACITY] == 1
            silent.sendall(v1("192.0.2.1"))
            assert outcome(silent) == "served"
            books = server.stats
            assert (books.active, books.pending, books.admitted) == (1, 0, 1)
            assert len(server.pool) == 1
        eventually(lambda: server.stats.active == 0)


def test_no_greenlet_and_no_gevent_socket_is_made_before_the_client_is_classified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made()
    limits = Limits(max_connections=3, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, spawn=made.pool(3), limits=limits) as server:
        made.count_sockets(monkeypatch)
        for words in (v1("203.0.113.1"), GARBAGE):
            with by_proxy(server, words) as sock:
                assert outcome(sock) in ("closed", "reset")
        with connect(server) as sock:
            eventually(lambda: server.stats.reading == 1)
            assert not made
            sock.sendall(v2("192.0.2.1"))
            assert outcome(sock) == "served"
        assert made == {"socket": 1, "greenlet": 1}


# ---- every way it can end ------------------------------------------------------------------

ENDINGS: dict[str, tuple[str | None, Callable[[Any, Any], object]]] = {
    "no header": ("header", lambda server, sock: sock.sendall(GARBAGE)),
    "bad version 1": ("header", lambda server, sock: sock.sendall(b"PROXY TCP4 1.2.3 \r\n")),
    "bad version 2": ("header", lambda server, sock: sock.sendall(V2 + b"\x31\x11\0\0")),
    "too long": ("header", lambda server, sock: sock.sendall(V2 + b"\x21\x11\xff\xff")),
    "deadline": ("header", lambda server, sock: None),
    "deadline within": ("header", lambda server, sock: sock.sendall(b"PROXY TC")),
    "closed": (None, lambda server, sock: sock.close()),
    "closed within": (None, lambda server, sock: (sock.sendall(V2), sock.close())),
    "reset": (None, lambda server, sock: vanish(sock)),
    "refused by a rule": ("denied", lambda server, sock: sock.sendall(v1("203.0.113.1"))),
    "the server closes": ("draining", lambda server, sock: server.close()),
    "the server stops": ("draining", lambda server, sock: server.stop(5.0)),
    "the pool is killed": ("draining", lambda server, sock: server.pool.kill()),
    "the pool is killed, and does not wait": (
        "draining",
        lambda server, sock: server.pool.kill(block=False),
    ),
    "killed when the header had come": (
        "draining",
        lambda server, sock: (sock.sendall(v1("192.0.2.1")), _kill_once_read(server)),
    ),
    "closed when the header had come": (
        "draining",
        lambda server, sock: (sock.sendall(v1("192.0.2.1")), _close_once_read(server)),
    ),
}


def _once_read(server: Any, act: Callable[[], object]) -> None:
    """Between the header's coming and the verdict: they are two callbacks of the loop."""
    room = server.limiter._headers
    found = room._found

    def then(*arguments: Any) -> None:
        found(*arguments)
        del room._found
        act()

    room._found = then
    eventually(lambda: "_found" not in vars(room))


def _kill_once_read(server: Any) -> None:
    _once_read(server, lambda: [guest.kill() for guest in server.pool])


def _close_once_read(server: Any) -> None:
    _once_read(server, server.close)


@pytest.mark.parametrize("name", ENDINGS)
def test_socket_closes_then_slot_comes_back_when(name: str) -> None:
    reason, act = ENDINGS[name]
    pool = OrderedPool(2)
    limits = Limits(max_connections=2, deny=["203.0.113.0/24"])
    timeout = 0.05 if "deadline" in name else 3600.0
    server = behind_proxies(Holding(), spawn=pool, limits=limits, proxy_timeout=timeout)
    with running(server):
        with contextlib.ExitStack() as stack:
            pool.closed_first.clear()
            sock = stack.enter_context(connect(server))
            eventually(lambda: server.stats.reading == 1)
            [fd] = server.limiter.descriptors()
            pool.sockets.append((fd, inode_of_fd(fd)))
            act(server, sock)
            eventually(lambda: server.stats.pending == 0)
            if sock.fileno() != -1:
                assert outcome(sock) in ("closed", "reset")
            books = server.limiter.snapshot()
            assert books.admitted == books.active == 0
            assert books.abandoned == int(reason is None)
            assert books.rejected == {r: int(r == reason) for r in Reason}
            assert sum(books.header_faults.values()) == int(reason in ("header", None))
            assert books.balanced
            assert pool.closed_first == [True]  # once, and in this order
            assert len(pool) == 0
            assert not pool.dying
            assert not any(is_open(*key) for key in pool.sockets)


def inode_of_fd(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_books_balance_when_reading_cannot_begin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError("on purpose")

    with served_by_proxy(greet, cap=1) as server:
        monkeypatch.setattr(gserver.accept.ProxyReader, "read", fail)
        with connect(server) as sock:
            assert outcome(sock) == "closed"
        assert server.stats.finished[Ending.NOT_STARTED] == 1
        assert server.stats.balanced
        assert len(server.pool) == 0
        monkeypatch.undo()
        with by_proxy(server, v1("192.0.2.1")) as sock:
            assert outcome(sock) == "served"
        eventually(lambda: server.stats.active == 0)
    assert "on purpose" in caplog.text


def test_slot_of_a_client_that_fails_to_start_goes_to_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(max_connections=1, wait=3600.0)
    with served_by_proxy(greet, limits=limits) as server:
        with connect(server) as first, by_proxy(server, v1("192.0.2.2")) as second:
            eventually(lambda: server.stats.waiting == 1)
            start = server._accepting._start

            def fail(fd: int, *_arguments: Any) -> None:
                server._accepting._start = start
                _socket.close(fd)
                raise RuntimeError("on purpose")

            server._accepting._start = fail
            first.sendall(v1("192.0.2.1"))
            assert outcome(first) == "closed"
            assert outcome(second) == "served"
        eventually(lambda: server.stats.active == 0)
    assert "on purpose" in caplog.text


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"deny": ["203.0.113.0/24"]}, Reason.DENIED),
        ({"reserved": 159, "reserved_for": ["192.0.2.0/24"]}, Reason.CAPACITY),
    ],
    ids=["denied", "held first"],
)
def test_burst_of_refused_headers_is_turned_away_some_each_turn(
    rules: Any, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 10 * MAX_REJECTIONS_PER_TURN  # more than there may be candidates
    turned_away: Counter[int] = Counter()
    limits = Limits(max_connections=count, **rules)
    with served_by_proxy(greet, limits=limits) as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(count)]
        eventually(lambda: server.stats.reading == count)
        if reason is Reason.CAPACITY:
            socks[0].sendall(v1("203.0.113.1"))
            eventually(lambda: server.stats.active == 1)
            del socks[0]
        close = server._accepting.turn_away[reason]

        def count_it(fd: int) -> None:
            turned_away[gevent.get_hub().loop.iteration] += 1
            close(fd)

        monkeypatch.setitem(server._accepting.turn_away, reason, count_it)
        for sock in socks:
            sock.sendall(v1("203.0.113.1"))
        eventually(lambda: server.stats.rejected[reason] == len(socks))
        assert max(turned_away.values()) <= MAX_REJECTIONS_PER_TURN
