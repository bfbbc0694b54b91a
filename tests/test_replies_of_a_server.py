"""Reply through a server: the busy message arrives, in bounds, and costs no slot."""

from __future__ import annotations

import contextlib
import gc
import http.client
import os
import resource
import ssl
import weakref
from typing import Any

import gevent
import gevent.ssl
import pytest
from gevent import socket
from support import (
    LOCAL,
    Holding,
    client_context,
    clients,
    connect,
    eventually,
    greet,
    load,
    outcome,
    running,
    server_context,
    turn,
)

from gserver import Close, Limits, Reason, Reply, Reset, SettingError, StreamServer
from gserver.replies import BY_NAME


def read_all(sock: Any) -> bytes:
    found = b""
    while chunk := sock.recv(4096):
        found += chunk
    return found


def full(rejection: Any, **arguments: Any) -> StreamServer:
    arguments = {"max_connections": 1, **arguments}
    return StreamServer(LOCAL, greet, rejection=rejection, **arguments)


def test_a_text_of_ones_own_is_read_to_its_end_then_end_of_file() -> None:
    reply = Reply(b"busy, come back later\r\n")
    with running(full(reply)) as server, clients(server, 1), connect(server) as sock:
        assert read_all(sock) == b"busy, come back later\r\n"
        assert server.stats.rejected[Reason.CAPACITY] == 1


def test_a_client_that_has_sent_already_reads_the_reply_and_no_reset() -> None:
    """Closing with its data unread would destroy the reply."""
    with running(full(Reply("redis"))) as server, clients(server, 1):
        for _ in range(50):
            with connect(server) as sock:
                sock.sendall(b"*1\r\n$4\r\nPING\r\n" * 100)
                assert read_all(sock) == b"-ERR max number of clients reached\r\n"


def test_an_http_client_gets_its_503_with_retry_after() -> None:
    with running(full(Reply("http"))) as server, clients(server, 1):
        plain = connect(server)
        connection = http.client.HTTPConnection(*server.address)
        connection.sock = plain
        with contextlib.closing(connection):
            connection.request("POST", "/", body=b"x" * 100_000)
            answer = connection.getresponse()
            assert answer.status == 503
            assert answer.getheader("Retry-After")
            answer.read()


def test_a_client_that_says_nothing_does_not_hold_its_descriptor_for_ever() -> None:
    reply = Reply("http", timeout=0.05)
    with running(full(reply)) as server, clients(server, 1), connect(server) as sock:
        assert outcome(sock) == "closed"
        eventually(lambda: len(server.lingering_descriptors()) == 0)


def test_beyond_the_bound_clients_are_closed_without_a_word_and_counted() -> None:
    reply = Reply(b"busy\r\n", max_lingering=3, timeout=60.0)
    with running(full(reply)) as server, clients(server, 1), contextlib.ExitStack() as stack:
        told = [stack.enter_context(connect(server)) for _ in range(3)]
        for sock in told:
            assert sock.recv(100) == b"busy\r\n"  # and does not close
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with connect(server) as sock:
                assert read_all(sock) == b""
        assert len(server.lingering_descriptors()) == 3
        assert server.stats.replies["degraded"] == 5
        assert len(os.listdir("/proc/self/fd")) == before
        told[0].close()
        eventually(lambda: len(server.lingering_descriptors()) == 2)
        with connect(server) as sock:
            assert read_all(sock) == b"busy\r\n"
        assert server.stats.rejected[Reason.CAPACITY] == 9
        eventually(lambda: server.stats.replies["replied"] == 2)
        assert server.stats.balanced


def test_500_of_500_close_then_reconnect_at_a_full_cap() -> None:
    """G3 with a reply."""
    with running(full(Reply("redis"))) as server, load("reconnect", server, 1, 500) as them:
        assert them.read() == {"served": 500}


def test_of_500_at_the_same_instant_every_one_is_answered() -> None:
    """G2 with a reply: 256 are told, the others closed."""
    reply = Reply("redis")
    with running(full(reply)) as server, clients(server, 1):
        with load("burst", server, 500) as burst:
            seen = burst.read()
            # load.py calls "served" whoever reads a byte.
            assert seen["hung"] == 0
            assert sum(seen.values()) == 500
            assert seen["served"] >= reply.max_lingering
        assert server.stats.rejected[Reason.CAPACITY] == 500
        eventually(lambda: len(server.lingering_descriptors()) == 0)


def test_stop_closes_those_who_are_being_told() -> None:
    reply = Reply("http", timeout=60.0)
    server = full(reply)
    with running(server), clients(server, 1), connect(server) as sock:
        eventually(lambda: len(server.lingering_descriptors()) == 1)
        server.stop(0)
        assert len(server.lingering_descriptors()) == 0
        assert outcome(sock) == "closed"


def test_who_is_being_told_has_the_time_of_the_drain_also_when_nobody_is_served() -> None:
    server = full(Reply("http", timeout=60.0))
    with running(server), contextlib.ExitStack() as stack:
        with clients(server, 1):
            told = stack.enter_context(connect(server))
            eventually(lambda: len(server.lingering_descriptors()) == 1)
        eventually(lambda: server.stats.active == 0)
        stopping = gevent.spawn(server.stop, 60.0)
        eventually(lambda: server.closed)
        turn()
        told.sendall(b"GET / HTTP/1.1\r\n\r\n")  # this reply waits for it
        assert read_all(told).startswith(b"HTTP/1.1 503 ")
        told.close()
        stopping.get(timeout=20)  # and no longer than that


def test_a_drain_waits_no_longer_for_who_is_being_told_than_it_may() -> None:
    server = full(Reply("http", timeout=60.0))
    with running(server), contextlib.ExitStack() as stack:
        with clients(server, 1):
            told = stack.enter_context(connect(server))
            eventually(lambda: len(server.lingering_descriptors()) == 1)
        server.stop(0.05)
        assert outcome(told) == "closed"


def test_stopping_one_server_leaves_alone_who_another_is_telling() -> None:
    """Also where both were given the same reply."""
    reply = Reply(b"busy")
    first, second = full(reply), full(reply)
    with running(first), running(second), clients(first, 1), clients(second, 1):
        with connect(second) as sock:
            assert sock.recv(4) == b"busy"
            first.stop(0)
            assert len(second.lingering_descriptors()) == 1


def test_a_reply_is_bounded_for_all_its_reasons_together() -> None:
    reply = Reply(b"busy", max_lingering=2, timeout=60.0)
    limits = Limits(max_connections=1, deny=["127.0.0.2"])
    how = {"capacity": reply, "denied": reply}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(full(how, max_connections=None, limits=limits)))
        stack.enter_context(clients(server, 1))
        for source, said in [("127.0.0.1", b"busy"), ("127.0.0.2", b"busy"), ("127.0.0.2", b"")]:
            sock = socket.create_connection(server.address, 20, (source, 0))
            assert stack.enter_context(sock).recv(4) == said
        assert server.stats.replies["degraded"] == 1


def test_a_reply_keeps_nothing_of_the_loop_it_was_used_on() -> None:
    reply = Reply(b"busy")
    linger = weakref.ref(reply.on(socket.AF_INET, gevent.get_hub().loop).linger)
    gc.collect()
    assert linger() is None


@pytest.mark.parametrize("how", [{"capacity": Reply(b"busy")}, Reply(b"busy")], ids=repr)
def test_who_is_denied_is_reset_not_replied_to_unless_asked_for(how: Any) -> None:
    limits = Limits(max_connections=5, deny=["127.0.0.1"])
    with running(StreamServer(LOCAL, greet, limits=limits, rejection=how)) as server:
        with connect(server) as sock:
            assert outcome(sock) == "reset"
    asked = {"capacity": Close(), "denied": Reply(b"go away")}
    with running(StreamServer(LOCAL, greet, limits=limits, rejection=asked)) as server:
        with connect(server) as sock:
            assert read_all(sock) == b"go away"


def test_with_no_descriptor_left_nobody_is_replied_to() -> None:
    """A reply would keep the one descriptor that there is to answer with."""
    reply = Reply(b"busy\r\n", timeout=60.0)
    server = StreamServer(LOCAL, Holding(), max_connections=100, rejection=reply)
    with running(server), contextlib.ExitStack() as stack:
        socks = []
        for _ in range(5):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(20)
            socks.append(sock)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        fillers = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open("/dev/null", os.O_RDONLY))
            for sock in socks:
                sock.connect(server.address)
                assert outcome(sock) == "reset"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        assert server.stats.rejected[Reason.DESCRIPTORS] == 5
        assert len(server.lingering_descriptors()) == 0


# ---- and TLS -------------------------------------------------------------------------------


def test_a_tls_client_gets_an_alert_in_place_of_a_handshake() -> None:
    context = server_context(gevent.ssl.SSLContext)
    server = StreamServer(
        LOCAL, Holding(), max_connections=1, ssl_context=context, rejection=Reply("tls-alert")
    )
    with running(server), connect(server):
        eventually(lambda: server.stats.active == 1)
        with connect(server) as sock:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                client_context().wrap_socket(sock)
        turn()


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - {"tls-alert"}))
def test_a_plain_text_reply_on_a_tls_listener_is_an_error(name: str) -> None:
    context = server_context(ssl.SSLContext)
    before = len(os.listdir("/proc/self/fd"))
    for rejection in (Reply(name), {"capacity": Reset(), "source": Reply(name)}):
        with pytest.raises(SettingError, match="TLS listener") as caught:
            StreamServer(LOCAL, greet, max_connections=1, ssl_context=context, rejection=rejection)
        assert caught.value.setting == "rejection"
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_alert_on_a_plain_listener_is_an_error() -> None:
    with pytest.raises(SettingError, match="only a TLS listener's"):
        StreamServer(LOCAL, greet, max_connections=1, rejection=Reply("tls-alert"))


def test_who_is_being_told_holds_no_slot() -> None:
    with running(full(Reply(b"busy", timeout=60.0))) as server, clients(server, 1):
        with connect(server) as sock:
            assert sock.recv(4) == b"busy"
            assert server.stats.active == len(server.pool) == 1
