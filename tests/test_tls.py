"""TLS: the handshake takes a slot, has a deadline, stalls nobody and leaks nothing."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

import gevent
import gevent.server
import gevent.ssl
import pytest
from support import (
    CERTIFICATE,
    DEADLINE,
    KEY,
    LOCAL,
    client_context,
    connect,
    eventually,
    greet,
    outcome,
    running,
    server_context,
    turn,
    vanish,
)

from gserver import StreamServer, Timeouts
from gserver.stats import Ending

CONTEXTS = [gevent.ssl.SSLContext, ssl.SSLContext]


# gevent makes the context for certfile= and keyfile= itself.
gevents_own_warning = pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS is deprecated")


def tls_visit(server: Any) -> str:
    with connect(server) as plain, client_context().wrap_socket(plain) as sock:
        return outcome(sock)


@pytest.fixture(params=CONTEXTS, ids=["gevent's context", "the standard library's context"])
def context(request: pytest.FixtureRequest) -> ssl.SSLContext:
    return server_context(request.param)


def test_a_tls_client_is_served_and_its_slot_comes_back(context: ssl.SSLContext) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)) as server:
        for _ in range(3):
            assert tls_visit(server) == "served"
            eventually(lambda: server.stats.active == 0)
        assert server.stats.finished[Ending.RETURNED] == 3


def test_a_silent_tls_client_holds_a_slot_and_stalls_nobody(context: ssl.SSLContext) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=2, ssl_context=context)) as server:
        with connect(server):
            eventually(lambda: server.stats.active == 1)
            assert tls_visit(server) == "served"
            with connect(server):
                eventually(lambda: server.stats.active == 2)
                with connect(server) as extra:  # turned away at once, before any TLS
                    assert outcome(extra) == "closed"


def test_a_silent_tls_client_times_out_and_its_slot_comes_back(context: ssl.SSLContext) -> None:
    server = StreamServer(
        LOCAL, greet, max_connections=1, ssl_context=context, handshake_timeout=0.05
    )
    with running(server), connect(server) as silent:
        assert outcome(silent) == "closed"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.finished[Ending.HANDSHAKE_TIMEOUT] == 1
        server.handshake_timeout = DEADLINE
        assert tls_visit(server) == "served"


def test_a_handshake_timeout_does_not_outlive_the_handshake(context: ssl.SSLContext) -> None:
    """The handler may take longer than the handshake had."""
    timeout = 0.2
    finished = []

    def handler(sock: Any, _address: Any) -> None:
        gevent.get_hub().wait(gevent.get_hub().loop.timer(timeout * 1.5))
        sock.sendall(b"+")
        finished.append(1)

    server = StreamServer(
        LOCAL, handler, max_connections=1, ssl_context=context, handshake_timeout=timeout
    )
    with running(server):
        assert tls_visit(server) == "served"
        eventually(lambda: server.stats.active == 0)
        assert finished
        assert server.stats.finished[Ending.RETURNED] == 1


def test_slot_returns_when_the_handshake_is_garbage(
    context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)) as server:
        with connect(server) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n" * 10)
            eventually(lambda: server.stats.finished[Ending.HANDSHAKE_FAILED] == 1)
        assert server.stats.active == 0
        assert tls_visit(server) == "served"
    assert not caplog.records  # the peer's fault: never a traceback


@pytest.mark.parametrize("leave", [vanish, lambda sock: sock.close()], ids=["reset", "close"])
def test_slot_returns_when_the_peer_leaves_during_the_handshake(
    context: ssl.SSLContext, leave: Any
) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)) as server:
        client = connect(server)
        eventually(lambda: server.stats.active == 1)
        leave(client)
        eventually(lambda: server.stats.finished[Ending.LEFT_SILENT] == 1)
        assert server.stats.active == 0


def test_slot_returns_when_the_peer_was_gone_before_the_handshake(context: ssl.SSLContext) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)) as server:
        for number in range(1, 11):
            vanish(connect(server))
            eventually(lambda number=number: sum(server.stats.finished.values()) == number)
        assert server.stats.active == 0
        assert server.stats.finished[Ending.LEFT_SILENT] == 10


def test_slot_returns_when_killed_during_the_handshake(context: ssl.SSLContext) -> None:
    server = StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)
    with running(server), connect(server) as silent:
        eventually(lambda: server.stats.active == 1)
        server.stop(0.0)
        assert outcome(silent) in ("closed", "reset")
        assert server.stats.active == 0
        assert server.stats.finished[Ending.KILLED] == 1


def test_slot_returns_when_wrapping_the_socket_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = StreamServer(
        LOCAL, greet, max_connections=1, ssl_context=server_context(gevent.ssl.SSLContext)
    )

    def wrap_socket(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("on purpose")

    server.wrap_socket = wrap_socket
    with running(server), connect(server) as client:
        assert outcome(client) == "closed"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.finished[Ending.RAISED] == 1
    assert "on purpose" in caplog.text


@gevents_own_warning
def test_certificate_and_key_files_work_as_gevents_arguments_do() -> None:
    server = StreamServer(
        LOCAL, greet, max_connections=1, certfile=str(CERTIFICATE), keyfile=str(KEY)
    )
    with running(server):
        assert tls_visit(server) == "served"


@gevents_own_warning
def test_a_handler_may_do_the_handshake_itself() -> None:
    def handler(sock: Any, address: Any) -> None:
        sock.do_handshake()
        greet(sock, address)

    server = StreamServer(
        LOCAL,
        handler,
        max_connections=1,
        certfile=str(CERTIFICATE),
        keyfile=str(KEY),
        do_handshake_on_connect=False,
    )
    with running(server):
        assert tls_visit(server) == "served"
        eventually(lambda: server.stats.active == 0)


# ---- the first byte after it ---------------------------------------------------------------

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SHORT = 0.5


def client_of(version: ssl.TLSVersion) -> Any:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    return context


def listens(sock: Any, _address: Any) -> None:
    while sock.recv(4096):
        pass


def first_byte(**more: Any) -> StreamServer:
    more.setdefault("ssl_context", server_context(gevent.ssl.SSLContext))
    timeouts = Timeouts(first_byte=SHORT, grace=60.0)
    return StreamServer(LOCAL, listens, max_connections=2, timeouts=timeouts, **more)


def silent_until_its_end(server: Any, version: ssl.TLSVersion) -> None:
    with connect(server) as plain, client_of(version).wrap_socket(plain) as silent:
        with contextlib.suppress(ssl.SSLError):  # the alert that answers the nudge
            assert outcome(silent) == "closed"
    eventually(lambda: server.stats.finished[Ending.FIRST_BYTE_TIMEOUT] == 1)


@pytest.mark.parametrize("deferred", [False, True], ids=["started", "deferred"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_client_that_is_silent_after_its_handshake_is_ended_at_its_first_byte_timeout(
    version: ssl.TLSVersion, deferred: bool, context: ssl.SSLContext
) -> None:
    with running(first_byte(ssl_context=context, deferred_start=deferred)) as server:
        silent_until_its_end(server, version)
        eventually(lambda: server.stats.active == 0)


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_client_that_speaks_after_its_handshake_has_said_its_first_byte(
    version: ssl.TLSVersion, when: str
) -> None:
    with running(first_byte()) as server:
        with connect(server) as plain, client_of(version).wrap_socket(plain) as talker:
            if when == "later":
                turn(0.02)
            talker.sendall(b"x")
            silent_until_its_end(server, version)
            assert server.stats.active == 1


def test_words_in_the_packet_that_ends_the_handshake_are_the_clients() -> None:
    """TLS 1.3: the request is there before the server knows that the handshake is done."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_of(ssl.TLSVersion.TLSv1_3).wrap_bio(incoming, outgoing)
    with running(first_byte()) as server, connect(server) as talker:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    talker.sendall(outgoing.read())
                incoming.write(talker.recv(65536))
        tls.write(b"x")
        talker.sendall(outgoing.read())  # its Finished, too
        silent_until_its_end(server, ssl.TLSVersion.TLSv1_3)
        assert server.stats.active == 1


def test_behind_a_proxy_neither_its_header_nor_the_handshake_is_the_first_byte() -> None:
    server = first_byte(proxy_protocol_from=["127.0.0.1"])
    with running(server), connect(server) as plain:
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n")
        with client_context().wrap_socket(plain) as silent:
            with contextlib.suppress(ssl.SSLError):
                assert outcome(silent) == "closed"
        eventually(lambda: server.stats.finished[Ending.FIRST_BYTE_TIMEOUT] == 1)


def test_control_stock_gevent_lets_a_silent_tls_client_hold_its_place_for_ever(
    hub_errors: list[BaseException],
) -> None:
    server = gevent.server.StreamServer(
        LOCAL, greet, spawn=1, ssl_context=server_context(gevent.ssl.SSLContext)
    )
    with running(server), connect(server), connect(server, timeout=0.3) as second:
        with pytest.raises(TimeoutError):
            client_context().wrap_socket(second)
    eventually(lambda: hub_errors)  # the silent client's end, as a traceback
    hub_errors.clear()


def test_churning_tls_clients_at_the_cap_are_never_turned_away(context: ssl.SSLContext) -> None:
    with running(StreamServer(LOCAL, greet, max_connections=1, ssl_context=context)) as server:
        assert [tls_visit(server) for _ in range(20)] == ["served"] * 20
