"""The PROXY protocol in the server: who the handler, the rules and the log are told it is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import pytest
from proxied import GARBAGE, LOCAL_CHECK, V2, by_proxy, line, served_by_proxy, tell_address, v1, v2
from support import (
    LOCAL,
    Holding,
    client_context,
    connect,
    eventually,
    greet,
    outcome,
    running,
    server_context,
    turn,
)

import gserver.server
from gserver import Limiter, Limits, Reason, Reply, SettingError, StreamServer, WSGIServer
from gserver.admission.penalties import Offence
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


@pytest.mark.parametrize(("allow", "told"), [("192.0.2.0/24", ""), ("unix", "'/run/s'")])
def test_an_allow_list_of_networks_lets_no_proxys_unix_client_in(allow: str, told: str) -> None:
    limits = Limits(max_connections=1, allow=[allow])
    header = V2 + b"\x21\x31\x00\xd8" + b"/run/s".ljust(216, b"\0")
    with served_by_proxy(tell_address, limits=limits) as server, by_proxy(server, header) as sock:
        if told:
            assert line(sock) == told
        else:
            assert outcome(sock) == "closed"
        assert server.stats.rejected[Reason.DENIED] == (not told)


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
        ({"proxy_timeout": -5}, "needs proxy_protocol_from"),
        ({"proxy_protocol_from": ["all"], "max_connections": None}, "needs a cap"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_named(arguments: Any, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        StreamServer(LOCAL, greet, **{"max_connections": 1, **arguments})


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
