"""Deferred start: a silent client holds its slot without a greenlet, and each end gives it back."""

from __future__ import annotations

import ssl
from typing import Any

import gevent
import gevent.ssl
import pytest
from counting import Made
from gevent.greenlet import Greenlet
from gevent.pool import Pool
from support import (
    CERTIFICATE,
    KEY,
    LOCAL,
    connect,
    echo,
    eventually,
    inode_of,
    is_open,
    outcome,
    running,
    turn,
    vanish,
)

from gserver import Ending, Reason, StreamServer, Timeouts
from gserver.tls_files import TlsFiles


class Handler:
    """Answers each read, and counts how often it was started."""

    def __init__(self) -> None:
        self.started = 0

    def __call__(self, sock: Any, _address: Any) -> None:
        self.started += 1
        while data := sock.recv(100):
            sock.sendall(data)


def deferred(handler: Any, cap: int = 1, **more: Any) -> StreamServer:
    return StreamServer(LOCAL, handler, max_connections=cap, deferred_start=True, **more)


def ended(server: Any, ending: Ending) -> None:
    eventually(lambda: server.stats.finished[ending] == 1)
    assert server.stats.active == 0
    assert not server.limiter.connections
    server.audit()
    assert server.audit().clean


def test_the_handler_starts_with_the_first_byte_and_reads_it() -> None:
    handler = Handler()
    with running(deferred(handler)) as server, connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        turn(0.01)
        assert handler.started == 0
        client.sendall(b"first")
        assert client.recv(100) == b"first"
        assert handler.started == 1
        client.close()
        ended(server, Ending.RETURNED)


def test_a_silent_client_makes_no_greenlet() -> None:
    made = Made()
    server = StreamServer(LOCAL, echo, spawn=made.pool(1), deferred_start=True)
    with running(server), connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        assert not made
        client.sendall(b"x")
        assert outcome(client) == "served"
        assert made == {"greenlet": 1}


def test_a_silent_client_holds_its_slot() -> None:
    with running(deferred(echo)) as server, connect(server) as silent:
        eventually(lambda: server.stats.active == 1)
        with connect(server) as extra:
            assert outcome(extra) == "closed"
        assert server.stats.rejected[Reason.CAPACITY] == 1
        silent.sendall(b"x")
        assert outcome(silent) == "served"


@pytest.mark.parametrize("leave", [vanish, lambda sock: sock.close()], ids=["reset", "close"])
def test_a_client_that_leaves_without_a_word_never_meets_the_handler(leave: Any) -> None:
    handler = Handler()
    with running(deferred(handler)) as server:
        client = connect(server)
        eventually(lambda: server.stats.active == 1)
        leave(client)
        ended(server, Ending.LEFT_SILENT)
        assert handler.started == 0


def test_a_client_that_speaks_and_leaves_at_once_is_served() -> None:
    handler = Handler()
    with running(deferred(handler)) as server:
        with connect(server) as client:
            client.sendall(b"x")
        eventually(lambda: handler.started == 1)
        eventually(lambda: server.stats.active == 0)


def test_silent_clients_that_close_and_come_back_are_never_turned_away() -> None:
    with running(deferred(Handler())) as server:
        for _ in range(500):
            with connect(server) as client:
                eventually(lambda: server.stats.active == 1)
            with connect(server) as client:
                client.sendall(b"x")
                assert outcome(client) == "served"
        assert server.stats.rejected[Reason.CAPACITY] == 0


def test_slot_and_descriptor_return_when_the_server_stops() -> None:
    server = deferred(echo, cap=3)
    with running(server):
        held = [connect(server) for _ in range(3)]
        eventually(lambda: server.stats.active == 3)
        server.stop(0.0)
        assert server.stats.active == 0
        assert server.stats.finished[Ending.KILLED] == 3
        assert not server.pool.dying
        for client in held:
            assert outcome(client) in ("closed", "reset")
            client.close()


def test_slot_returns_when_killed_before_the_first_byte() -> None:
    """Also when somebody waits for it as for a greenlet."""
    with running(deferred(echo)) as server, connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        (holder,) = server.pool
        holder.kill()
        assert gevent.joinall([holder], timeout=5) == [holder]
        assert outcome(client) == "closed"
        ended(server, Ending.KILLED)


def test_a_pool_that_raises_what_its_members_raised_can_be_joined() -> None:
    with running(deferred(echo)) as server, connect(server):
        eventually(lambda: server.stats.active == 1)
        (holder,) = server.pool
        holder.kill()
        assert server.pool.join(timeout=5, raise_error=True)
        ended(server, Ending.KILLED)


def test_slot_returns_when_killed_as_the_first_byte_comes() -> None:
    handler = Handler()
    with running(deferred(handler)) as server, connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        (holder,) = server.pool
        client.sendall(b"x")
        holder.kill()
        ended(server, Ending.KILLED)


def test_slot_returns_when_killed_between_its_first_byte_and_its_first_run() -> None:
    handler = Handler()
    with running(deferred(handler)) as server, connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        (connection,) = server.limiter.connections
        connection.begin(lambda _connection: None, ())
        (greenlet,) = server.pool
        greenlet.kill(block=False)
        ended(server, Ending.KILLED)
        assert outcome(client) == "closed"
        assert handler.started == 0


def test_slot_returns_when_the_holder_is_killed_after_its_greenlet_has_started() -> None:
    with running(deferred(echo)) as server, connect(server) as client:
        eventually(lambda: server.stats.active == 1)
        (holder,) = server.pool
        client.sendall(b"x")
        assert outcome(client) == "served"
        holder.kill()  # by somebody who has kept it
        ended(server, Ending.KILLED)


def test_the_first_byte_timeout_needs_no_greenlet() -> None:
    handler = Handler()
    timeouts = Timeouts(first_byte=0.05, grace=60.0)
    with running(deferred(handler, timeouts=timeouts)) as server:
        with connect(server) as client:
            assert outcome(client) == "closed"
        ended(server, Ending.FIRST_BYTE_TIMEOUT)
        assert handler.started == 0


def test_slot_returns_when_the_greenlet_cannot_be_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Greenlet):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any) -> None:
            raise MemoryError("on purpose")

    pool = Pool(1, greenlet_class=Broken)
    server = StreamServer(LOCAL, echo, spawn=pool, deferred_start=True)
    with running(server), connect(server) as client:
        client.sendall(b"x")
        assert outcome(client) in ("closed", "reset")
        ended(server, Ending.NOT_STARTED)
    assert "on purpose" in caplog.text


def test_slot_returns_when_the_greenlet_cannot_be_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Greenlet):  # type: ignore[type-arg]
        def start(self) -> None:
            raise MemoryError("on purpose")

    pool = Pool(1, greenlet_class=Broken)
    server = StreamServer(LOCAL, echo, spawn=pool, deferred_start=True)
    with running(server), connect(server) as client:
        client.sendall(b"x")
        assert outcome(client) in ("closed", "reset")
        ended(server, Ending.NOT_STARTED)
    assert "on purpose" in caplog.text


def test_the_socket_is_closed_before_the_slot_comes_back() -> None:
    order = []

    class Ordered(Pool):
        def discard(self, member: Any) -> None:
            order.append(is_open(*key))
            super().discard(member)

    server = StreamServer(LOCAL, echo, spawn=Ordered(1), deferred_start=True)
    with running(server):
        client = connect(server)
        eventually(lambda: server.stats.active == 1)
        (connection,) = server.limiter.connections
        key = connection.socket.fileno(), inode_of(connection.socket)
        client.close()
        ended(server, Ending.LEFT_SILENT)
    assert order == [False]


def test_a_tls_handshake_starts_with_the_first_byte() -> None:
    ours = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.check_hostname = False
    ours.verify_mode = ssl.CERT_NONE
    context = TlsFiles(str(CERTIFICATE), str(KEY)).context()
    with running(deferred(echo, ssl_context=context, handshake_timeout=0.2)) as server:
        with connect(server) as plain:
            turn(0.3)  # silent for longer than a handshake may take
            with ours.wrap_socket(plain) as client:
                assert outcome(client) == "served"
