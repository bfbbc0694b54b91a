"""The PROXY protocol in the server: who is told to the handler, what takes a slot, how it ends."""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import pytest
from gevent.pool import Pool
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from proxied import (
    GARBAGE,
    LOCAL_CHECK,
    V2,
    behind_proxies,
    by_proxy,
    line,
    served_by_proxy,
    tell_address,
    v1,
    v2,
)
from support import (
    LOCAL,
    Holding,
    OrderedPool,
    client_context,
    connect,
    eventually,
    greet,
    is_open,
    outcome,
    running,
    server_context,
    turn,
    vanish,
)

import gserver.server
from gserver import (
    Limiter,
    Limits,
    Reason,
    Refuse,
    Reply,
    Reset,
    SettingError,
    StreamServer,
    WSGIServer,
)
from gserver.admission.penalties import Offence
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.stats import Ending

# ---- who it is -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (v1("192.0.2.1", 7), ("192.0.2.1", 7)),
        (v1("2001:db8::1", 7), ("2001:db8::1", 7, 0, 0)),
        (v2("192.0.2.1", 7), ("192.0.2.1", 7)),
        (v2("2001:db8::1", 7), ("2001:db8::1", 7, 0, 0)),
        (V2 + b"\x21\x31\x00\xd8" + b"/run/s".ljust(216, b"\0"), "/run/s"),
        (b"PROXY UNKNOWN\r\n", None),
        (LOCAL_CHECK, None),
    ],
    ids=["v1", "v1 IPv6", "v2", "v2 IPv6", "v2 unix", "UNKNOWN", "LOCAL"],
)
@pytest.mark.parametrize("piecemeal", [False, True])
def test_handler_is_told_the_clients_address_and_gets_its_bytes_alone(
    header: bytes, told: Any, piecemeal: bool
) -> None:
    with served_by_proxy(tell_address) as server, connect(server) as sock:
        if piecemeal:
            for byte in header:
                sock.sendall(bytes([byte]))
                turn()
        sock.sendall(b"its own" if piecemeal else header + b"its own")
        assert line(sock) == repr(told or sock.getsockname())  # the socket's own, if it has none
        assert sock.recv(100) == b"its own"


def test_unix_sockets_peers_are_trusted_where_unix_is_listed(tmp_path: Path) -> None:
    for index, (trusted, expected) in enumerate(
        [("unix", "('192.0.2.1', 50000)"), ("127.0.0.1", "closed")]
    ):
        path = str(tmp_path / str(index))
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        server = StreamServer(
            listener, tell_address, max_connections=1, proxy_protocol_from=[trusted]
        )
        with running(server), connect(server) as sock:
            with contextlib.suppress(BrokenPipeError):
                sock.sendall(v1("192.0.2.1"))
            with contextlib.suppress(ConnectionResetError):
                assert line(sock) == expected


def test_peer_outside_the_networks_is_denied_at_once_whatever_it_would_send() -> None:
    with served_by_proxy(greet, proxy_protocol_from=["192.0.2.0/24"]) as server:
        for words in (b"", v1("192.0.2.1")):
            with by_proxy(server, words) as sock:
                assert outcome(sock) in ("closed", "reset")
        assert server.stats.rejected[Reason.DENIED] == 2
        assert server.stats.admitted == server.stats.pending == 0


def test_peer_outside_the_networks_is_denied_at_the_cap_too() -> None:
    """Not held as a candidate: no slot that comes free could be its."""
    with served_by_proxy(Holding(), cap=1, settle=3600.0) as server:
        with by_proxy(server, v1("192.0.2.1")) as holder, connect(server):
            assert outcome(holder) == "served"
            eventually(lambda: server.stats.pending == 1)
            server._proxies = server._accepting.proxies = gserver.accept.Proxies(["192.0.2.0/24"])
            with connect(server) as sock:
                assert outcome(sock) == "closed"
            assert server.stats.rejected[Reason.DENIED] == 1
            assert server.stats.pending == 1


def test_direct_clients_and_proxies_share_a_cap_on_listeners_of_their_own() -> None:
    limiter = Limiter(2)
    direct = StreamServer(LOCAL, tell_address, limiter=limiter)
    with running(direct), served_by_proxy(tell_address, limiter=limiter) as proxied:
        with connect(direct) as one, by_proxy(proxied, v1("192.0.2.1")) as two:
            assert line(one) == repr(one.getsockname())
            assert line(two) == "('192.0.2.1', 50000)"
            for third in (connect(direct), by_proxy(proxied, v1("192.0.2.1"))):
                with third:
                    assert outcome(third) in ("closed", "reset")
        books = direct.stats
        assert (books.admitted, books.rejected[Reason.CAPACITY]) == (2, 2)
        eventually(lambda: proxied.stats.active == 0)


def test_handshake_comes_after_the_header() -> None:
    context = server_context(gevent.ssl.SSLContext)
    with served_by_proxy(tell_address, ssl_context=context) as server:
        with by_proxy(server, v2("192.0.2.1")) as plain:
            with client_context().wrap_socket(plain) as sock:
                assert line(sock) == "('192.0.2.1', 50000)"


def test_wsgi_application_is_told_the_clients_address() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["REMOTE_ADDR"].encode()]

    server = WSGIServer(
        LOCAL,
        application,
        log=None,
        error_log=None,
        max_connections=1,
        proxy_protocol_from=["127.0.0.1"],
    )
    with running(server):
        with by_proxy(server, v1("192.0.2.1") + b"GET / HTTP/1.0\r\n\r\n") as sock:
            assert sock.makefile("rb").read().endswith(b"\r\n\r\n192.0.2.1")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"proxy_protocol_from": "127.0.0.1"}, "must be a list"),
        ({"proxy_protocol_from": ["localhost"]}, "is not a network"),
        ({"proxy_protocol_from": []}, "names nobody"),
        ({"proxy_protocol_from": 5}, "must be a list"),
        ({"proxy_protocol_from": ["all"], "proxy_timeout": 0}, "more than 0"),
        ({"proxy_protocol_from": ["all"], "max_connections": None}, "needs a cap"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_named(arguments: Any, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        StreamServer(LOCAL, greet, **{"max_connections": 1, **arguments})


# ---- the slot ------------------------------------------------------------------------------


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
    made: Counter[str] = Counter()

    class CountedSocket(gevent.socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made["socket"] += 1
            super().__init__(*args, **kwargs)

    class CountedGreenlet(gevent.Greenlet):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made["greenlet"] += 1
            super().__init__(*args, **kwargs)

    limits = Limits(max_connections=3, deny=["203.0.113.0/24"])
    pool = Pool(3, greenlet_class=CountedGreenlet)
    with served_by_proxy(greet, spawn=pool, limits=limits) as server:
        monkeypatch.setattr(gserver.server, "GeventSocket", CountedSocket)  # not the listener
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
    "the cap was lowered": (
        "capacity",
        lambda server, sock: (setattr(server, "max_connections", 1), sock.sendall(v1("192.0.2.1"))),
    ),
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
            held = 0
            if "cap" in name:
                assert outcome(stack.enter_context(by_proxy(server, v1("192.0.2.9")))) == "served"
                held = 1
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
            assert books.admitted == books.active == held
            assert books.abandoned == int(reason is None)
            assert books.rejected == {r: int(r == reason) for r in Reason}
            assert sum(books.header_faults.values()) == int(reason in ("header", None))
            assert books.balanced
            assert pool.closed_first == [True]  # once, and in this order
            assert len(pool) == held
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


def test_burst_of_refused_headers_is_turned_away_some_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 5 * MAX_REJECTIONS_PER_TURN
    turned_away: Counter[int] = Counter()
    limits = Limits(max_connections=count, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits) as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(count)]
        eventually(lambda: server.stats.reading == count)
        close = server._accepting.turn_away[Reason.DENIED]

        def count_it(fd: int) -> None:
            turned_away[gevent.get_hub().loop.iteration] += 1
            close(fd)

        monkeypatch.setitem(server._accepting.turn_away, Reason.DENIED, count_it)
        for sock in socks:
            sock.sendall(v1("203.0.113.1"))
        eventually(lambda: server.stats.rejected[Reason.DENIED] == count)
        assert max(turned_away.values()) <= MAX_REJECTIONS_PER_TURN


# ---- the rules ask who the client is -------------------------------------------------------


def test_source_is_the_clients_not_the_proxys(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(max_connections=9, per_source=1, source_rate=1000)
    with served_by_proxy(greet, limits=limits) as server:
        hosts = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.3"]
        with contextlib.ExitStack() as stack:
            for host in hosts:
                assert outcome(stack.enter_context(by_proxy(server, v2(host)))) == "served"
            for host in ["192.0.2.1", "192.0.2.3", "2001:db8::2", "::ffff:192.0.2.2"]:
                with by_proxy(server, v2(host)) as again:
                    assert outcome(again) == "closed"
            books = server.stats
            assert (books.admitted, books.rejected[Reason.SOURCE]) == (4, 4)
            assert server.limiter.gate.top_sources(1)[0][1] == 1
            # A new prefix counts those who are admitted by who they are, too.
            server.limiter.limits = Limits(max_connections=9, per_source=9, source_prefix_v4=24)
            assert dict(server.limiter.gate.top_sources(9))["192.0.2.0/24"] == 3
        eventually(lambda: server.stats.active == 0)
        assert server.stats.gate.sources_counted == 0


def test_log_names_the_client_not_the_proxy() -> None:
    with served_by_proxy(
        greet, limits=Limits(max_connections=2, deny=["203.0.113.0/24"])
    ) as server:
        with by_proxy(server, v1("203.0.113.1")) as sock:
            assert outcome(sock) == "closed"
        assert server.limiter._log._report._hosts == {"203.0.113.1": 1}


def test_handshake_penalty_is_held_against_the_client() -> None:
    limits = Limits(max_connections=2, penalty=600.0)
    context = server_context(gevent.ssl.SSLContext)
    with served_by_proxy(greet, limits=limits, ssl_context=context) as server:
        with by_proxy(server, v1("192.0.2.1") + GARBAGE) as sock:
            eventually(lambda: server.stats.finished[Ending.HANDSHAKE_FAILED] == 1)
            sock.close()
        with by_proxy(server, v1("192.0.2.1")) as sock:
            assert outcome(sock) == "closed"
        assert server.stats.rejected[Reason.PENALTY] == 1
        with by_proxy(server, v1("192.0.2.2")) as plain:
            with client_context().wrap_socket(plain) as other:
                assert outcome(other) == "served"
        eventually(lambda: server.stats.active == 0)


def test_bad_headers_are_counted_and_held_against_nobody() -> None:
    """Not the proxy, whose checks would fail, nor a client, which nobody has named."""
    limits = Limits(max_connections=2, penalty=600.0)
    with served_by_proxy(greet, limits=limits) as server:
        for _ in range(3):
            with by_proxy(server, GARBAGE) as sock:
                assert outcome(sock) in ("closed", "reset")
        assert server.stats.header_faults == {"no_header": 3}
        assert server.stats.gate.offences[Offence.HEADER] == 3
        assert server.stats.gate.sources_penalised == 0
        for header in (LOCAL_CHECK, v1("192.0.2.1")):
            with by_proxy(server, header) as sock:
                assert outcome(sock) == "served"
        eventually(lambda: server.stats.active == 0)


def test_proxy_without_a_header_gets_no_reply_meant_for_clients() -> None:
    with served_by_proxy(greet, rejection=Reply("http")) as server:
        with by_proxy(server, GARBAGE) as sock:
            assert outcome(sock) == "reset"
        eventually(lambda: server.stats.pending == 0)


def test_reserved_slot_is_held_while_reading_and_kept_only_by_those_it_is_for() -> None:
    limits = Limits(max_connections=2, reserved=1, reserved_for=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with by_proxy(server, v1("192.0.2.2")) as two:
                assert outcome(two) == "closed"
            assert server.stats.rejected[Reason.CAPACITY] == 1
            with by_proxy(server, v1("203.0.113.1")) as three:
                assert outcome(three) == "served"
        eventually(lambda: server.stats.active == 0)


# ---- at the cap ----------------------------------------------------------------------------


def test_candidate_gets_the_slot_that_comes_back_and_then_its_header_is_read() -> None:
    limits = Limits(max_connections=1, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits, settle=3600.0) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with (
                by_proxy(server, v1("203.0.113.1")) as denied,
                by_proxy(server, v1("192.0.2.2")) as two,
            ):
                eventually(lambda: server.stats.pending == 2)
                assert server.stats.reading == 0
                one.close()
                assert outcome(denied) == "closed"
                assert outcome(two) == "served"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.admitted == 2


def test_client_behind_a_proxy_that_leaves_and_comes_again_finds_the_slot_free() -> None:
    with served_by_proxy(greet, cap=1) as server:
        sock = by_proxy(server, v1("192.0.2.1"))
        assert outcome(sock) == "served"
        for _ in range(300):
            sock.close()
            sock = by_proxy(server, v1("192.0.2.1"))
            assert outcome(sock) == "served"
        sock.close()
        eventually(lambda: server.stats.active == 0)
        assert sum(server.stats.rejected.values()) == 0


def test_waiter_is_classified_when_it_has_a_slot_and_its_header_is_read() -> None:
    limits = Limits(max_connections=1, wait=3600.0, per_source=1, deny=["203.0.113.0/24"])
    with served_by_proxy(greet, limits=limits) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with (
                by_proxy(server, v1("203.0.113.1")) as denied,
                by_proxy(server, GARBAGE) as garbage,
                connect(server) as late,
            ):
                eventually(lambda: server.stats.waiting == 3)
                assert server.stats.gate.sources_counted == 1  # nobody knows yet who they are
                one.close()
                assert outcome(denied) == "closed"
                assert outcome(garbage) in ("closed", "reset")
                eventually(lambda: server.stats.reading == 1)
                assert server.stats.waiting == 0
                late.sendall(v1("192.0.2.2"))
                assert outcome(late) == "served"
        eventually(lambda: server.stats.active == 0)
        books = server.stats
        assert (books.rejected[Reason.DENIED], books.rejected[Reason.HEADER]) == (1, 1)


def test_waiter_is_counted_for_no_source_also_under_other_limits() -> None:
    waiting = Limits(max_connections=1, wait=3600.0)
    with served_by_proxy(greet, limits=waiting) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with by_proxy(server, v1("192.0.2.2")) as two:
                eventually(lambda: server.stats.waiting == 1)
                server.limiter.limits = Limits(max_connections=1, wait=3600.0, per_source=1)
                assert dict(server.limiter.gate.top_sources(9)) == {"192.0.2.1": 1}
                one.close()
                assert outcome(two) == "served"
                assert dict(server.limiter.gate.top_sources(9)) == {"192.0.2.2": 1}
        eventually(lambda: server.stats.active == 0)
        assert server.stats.gate.sources_counted == 0


def test_waiters_are_bounded_and_their_time_too() -> None:
    limits = Limits(max_connections=1, wait=0.1, wait_queue=1)
    with served_by_proxy(greet, limits=limits) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            with connect(server) as two:
                eventually(lambda: server.stats.waiting == 1)
                with connect(server) as three:
                    assert outcome(three) == "closed"
                assert outcome(two) == "closed"
        books = server.stats
        assert (books.rejected[Reason.WAIT_FULL], books.rejected[Reason.WAIT_TIMEOUT]) == (1, 1)
        eventually(lambda: server.stats.active == 0)


def test_door_is_shut_while_the_last_slots_header_is_read() -> None:
    if not gserver.net.door.SUPPORTED:
        pytest.skip("needs Linux")
    with served_by_proxy(greet, cap=1, rejection=Refuse()) as server:
        with connect(server) as silent:
            eventually(lambda: server.stats.reading == 1)
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            silent.close()
        eventually(lambda: server.stats.pending == 0)
        with by_proxy(server, v1("192.0.2.1")) as sock:
            assert outcome(sock) == "served"
        eventually(lambda: server.stats.active == 0)


@pytest.mark.parametrize("header", [v1("192.0.2.2"), v2("192.0.2.2")])
def test_reply_that_answers_the_clients_words_skips_the_header_before_them(header: bytes) -> None:
    with served_by_proxy(Holding(), cap=1, rejection=Reply("http")) as server:
        with by_proxy(server, v1("192.0.2.1")) as one:
            assert outcome(one) == "served"
            for words, has_body in ((b"GET / ", True), (b"HEAD / ", False)):
                with by_proxy(server, header + words + b"HTTP/1.1\r\n\r\n") as two:
                    head, _, body = two.makefile("rb").read().partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 503 ")
                    assert bool(body) is has_body
        server.pool.kill()


# ---- whatever arrives ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["close", "reset"])
def test_books_balance_at_every_step_under_random_proxies(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(21)
    checks = 0

    def checked(name: str) -> None:
        step = getattr(Limiter, name)

        def check(limiter: Limiter) -> None:
            nonlocal checks
            checks += 1
            books = limiter.snapshot()
            assert books.balanced, books
            assert books.active + books.reading == len(limiter.pool) <= books.cap

        def wrapper(self: Limiter, *arguments: Any, **more: Any) -> Any:
            check(self)
            result = step(self, *arguments, **more)
            check(self)
            return result

        monkeypatch.setattr(Limiter, name, wrapper)

    for name in ("arrived", "hold", "ended", "leave", "_guest_decided"):
        checked(name)
    headers = [
        *(v1("192.0.2.1"), v2("2001:db8::1"), v1("203.0.113.1"), LOCAL_CHECK),
        *(GARBAGE, V2, b"", v1("192.0.2.2") + b"words"),
    ]
    limits = Limits(max_connections=5, per_source=3, deny=["203.0.113.0/24"], wait_queue=3)
    waiting = Limits(
        max_connections=5, per_source=3, deny=["203.0.113.0/24"], wait=0.02, wait_queue=3
    )
    rejection = Reset() if kind == "reset" else None
    logging.getLogger("gserver").setLevel(logging.CRITICAL)
    try:
        server = behind_proxies(greet, limits=limits, rejection=rejection, proxy_timeout=0.05)
        with running(server):
            mine: list[Any] = []
            while server.stats.accepted < 1000:
                what = dice.random()
                if what < 0.5 or not mine:
                    mine.append(by_proxy(server, dice.choice(headers)))
                elif what < 0.99:
                    leave = dice.choice([vanish, lambda sock: sock.close()])
                    leave(mine.pop(dice.randrange(len(mine))))
                else:
                    server.limiter.limits = dice.choice([limits, waiting])
                if dice.random() < 0.3:
                    turn(dice.choice([0.0] * 10 + [0.001] * 5 + [0.06]))
                if len(mine) > 20:
                    mine.pop(0).close()
                assert server.stats.balanced
            for sock in mine:
                sock.close()
            eventually(lambda: server.stats.pending == server.stats.active == 0)
            books = server.stats
    finally:
        logging.getLogger("gserver").setLevel(logging.NOTSET)
    assert checks > 2000
    for reason in (Reason.CAPACITY, Reason.DENIED, Reason.SOURCE, Reason.HEADER, Reason.WAIT_FULL):
        assert books.rejected[reason], reason
    assert books.abandoned
    assert books.admitted


def _pieces(text: bytes) -> st.SearchStrategy[bytes]:
    """``text`` with some of its bytes changed, cut off, or others behind it."""

    def change(place: int, byte: int, end: int, more: bytes) -> bytes:
        changed = bytearray(text)
        changed[place % len(text)] = byte
        return bytes(changed[:end]) + more

    whole = st.integers(0, len(text))
    return st.builds(change, whole, st.integers(0, 255), whole, st.binary(max_size=50))


WORDS = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=50).map(lambda more: b"PROXY " + more),
    st.binary(max_size=300).map(lambda more: V2 + more),
    *(_pieces(text) for text in (v1("192.0.2.1"), v2("2001:db8::1"), LOCAL_CHECK)),
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(WORDS, min_size=1, max_size=3), leaves=st.booleans())
@example(parts=[v1("192.0.2.1")], leaves=False)
def test_whatever_arrives_each_is_answered_and_nothing_leaks(
    parts: list[bytes], leaves: bool, hub_errors: list[BaseException]
) -> None:
    with served_by_proxy(greet, cap=3, proxy_timeout=0.03) as server:
        with connect(server) as sock:
            for part in parts:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(part)
                turn()
            if leaves:
                sock.close()
            else:
                assert outcome(sock) in ("served", "closed", "reset")
        eventually(lambda: server.stats.active == server.stats.pending == 0)
        books = server.stats
        assert books.accepted == 1
        assert books.balanced
        assert len(server.pool) == 0
        assert not hub_errors
        assert not server.limiter.descriptors()
        report = server.limiter._log
        if report._timer is not None:
            report._timer.stop()
            report._timer.close()
