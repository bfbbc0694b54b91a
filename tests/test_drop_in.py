"""The surface of gevent.server.StreamServer: what works there works here, capped or not."""

from __future__ import annotations

import os
import socket as stdlib_socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.server
import pytest
from gevent import socket
from support import (
    LOCAL,
    Holding,
    clients,
    connect,
    connect_to,
    eventually,
    free_port,
    greet,
    outcome,
    running,
    visit,
)

from gserver import StreamServer

#: gevent's class is the reference: each test holds for all three.
KINDS = {
    "gevent": (gevent.server.StreamServer, {}),
    "uncapped": (StreamServer, {}),
    "capped": (StreamServer, {"max_connections": 3}),
}


# Where starting fails, gevent's own server leaves its listener to the collector.
gevents_own_leak = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Any:
    server_class, more = KINDS[request.param]
    return lambda *args, **kwargs: server_class(*args, **more, **kwargs)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


def test_port_zero_is_replaced_by_the_port_at_start(make: Any) -> None:
    server = make(LOCAL, greet)
    assert not server.started
    assert server.closed
    assert server.server_port == 0
    with running(server):
        assert server.started
        assert not server.closed
        assert server.server_host == "127.0.0.1"
        assert server.server_port == server.address[1] != 0
        assert visit(server) == "served"
    assert not server.started
    assert server.closed


@pytest.mark.parametrize(
    "form",
    [
        lambda p: f"127.0.0.1:{p}",
        lambda p: ("127.0.0.1", p),
        lambda p: f"[::1]:{p}",
        lambda p: f":{p}",  # of gevent's own: IPv4 only
        lambda p: f"*:{p}",
    ],
    ids=["text", "pair", "IPv6", "any", "star"],
)
def test_an_address_is_a_pair_or_a_text(make: Any, form: Any) -> None:
    port = free_port()
    with running(make(form(port), greet)) as server:
        assert server.server_port == port
        assert visit(server) == "served"


@pytest.mark.parametrize("form", [int, str, lambda p: ("", p)], ids=["int", "str", "pair"])
def test_a_port_alone_listens_on_both_families(make: Any, form: Any) -> None:
    port = free_port()
    with running(make(form(port), greet)):
        for host in "127.0.0.1", "::1":
            with connect_to((host, port)) as client:
                assert outcome(client) == "served"


@gevents_own_leak
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:x", None, 1.5, ("127.0.0.1",)])
def test_a_bad_address_raises_what_gevent_raises(address: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011  # the reference
        gevent.server.StreamServer(address, greet).start()
    for arguments in {}, {"max_connections": 1}:
        with pytest.raises(theirs.type):
            StreamServer(address, greet, **arguments).start()


@gevents_own_leak
def test_a_taken_port_raises_at_start_with_the_address_in_its_text(make: Any) -> None:
    with running(make(LOCAL, greet)) as first:
        second = make(first.address, greet)
        with pytest.raises(OSError, match=str(first.server_port)):
            second.start()
        assert not second.started
        second.close()


def test_the_backlog_is_taken_for_an_address_and_refused_for_a_socket(make: Any) -> None:
    with running(make(LOCAL, greet, backlog=7)) as server:
        assert queue_limit(server.socket) == 7
    with socket.socket() as listener:
        listener.bind(LOCAL)
        listener.listen()
        with pytest.raises(TypeError):
            make(listener, greet, backlog=7)


def queue_limit(listener: Any) -> int:
    """tcpi_sacked of a listener's struct tcp_info is its backlog (linux/tcp.h, tcp_diag.c)."""
    info = listener.getsockopt(socket.IPPROTO_TCP, stdlib_socket.TCP_INFO, 32)
    return int(struct.unpack_from("I", info, 28)[0])


def test_a_handler_is_needed(make: Any) -> None:
    with pytest.raises(TypeError, match="handle"):
        make(LOCAL)


def test_a_subclass_has_its_handle_method(kind: Any) -> None:
    server_class, more = kind

    class Greeter(server_class):
        greeted = 0

        def handle(self, sock: Any, address: Any) -> None:
            self.greeted += 1
            greet(sock, address)

    with running(Greeter(LOCAL, **more)) as server:
        assert visit(server) == "served"
        assert server.greeted == 1


def test_the_handler_can_be_set_while_serving(make: Any) -> None:
    def other(sock: Any, _address: Any) -> None:
        sock.sendall(b"other")

    with running(make(LOCAL, greet)) as server:
        assert visit(server) == "served"
        server.set_handle(other)
        with connect(server) as client:
            assert client.recv(5) == b"other"


def test_the_handler_gets_a_gevent_socket_and_the_address(make: Any) -> None:
    seen: list[Any] = []

    def handler(*client: Any) -> None:
        seen.append((type(client[0]), client[0].gettimeout(), client[1]))

    with running(make(LOCAL, handler)) as server, connect(server) as client:
        assert outcome(client) == "closed"
        assert seen == [(socket.socket, None, client.getsockname())]


def test_the_context_manager_stops(make: Any) -> None:
    with make(LOCAL, greet) as server:
        server.start()
        assert visit(server) == "served"
    assert server.closed


def test_an_ssl_socket_is_no_listener(make: Any) -> None:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with socket.socket() as plain:
        with context.wrap_socket(plain) as wrapped, pytest.raises(TypeError):
            make(wrapped, greet)


def test_stop_from_another_greenlet_ends_serve_forever(make: Any) -> None:
    server = make(LOCAL, greet)
    serving = gevent.spawn(server.serve_forever)
    eventually(lambda: server.started)
    assert visit(server) == "served"
    server.stop()
    serving.get(timeout=5)
    assert server.closed


def test_serve_forever_after_start_and_its_stop_timeout(make: Any) -> None:
    server = make(LOCAL, greet)
    server.start()
    serving = gevent.spawn(server.serve_forever, stop_timeout=0.0)
    assert visit(server) == "served"
    serving.kill()
    assert server.closed


def test_stop_waits_for_the_admitted_then_kills_them_as_with_a_pool() -> None:
    for server_class, arguments in (
        (gevent.server.StreamServer, {"spawn": 3}),
        (StreamServer, {"max_connections": 3}),
    ):
        quick, slow = Holding(), Holding()
        for handler, killed in (quick, False), (slow, True):
            server = server_class(LOCAL, handler, **arguments)
            with running(server), clients(server, 3):
                if not killed:
                    gevent.spawn(handler.release.set)
                server.stop(timeout=0.05 if killed else 20.0)
                assert handler.inside == 0
                assert len(server.pool) == 0


def test_stop_of_a_server_that_never_started_or_has_stopped_does_nothing(make: Any) -> None:
    server = make(LOCAL, greet)
    server.stop()
    assert server.closed
    server.set_handle(greet)
    server.start()
    server.stop()
    server.stop()
    assert server.closed


def test_accepting_can_be_stopped_and_begun_again(make: Any) -> None:
    with running(make(LOCAL, greet)) as server:
        server.stop_accepting()
        with connect(server, timeout=0.1) as waiting:
            assert outcome(waiting) == "hung"
            server.start_accepting()
            waiting.settimeout(5)
            assert outcome(waiting) == "served"


def test_start_after_stop_needs_a_handler_again_as_gevents_does(make: Any) -> None:
    server = make(LOCAL, greet)
    with running(server):
        assert visit(server) == "served"
    with pytest.raises(AttributeError, match="handle"):
        server.start()
    server.close()
    server.set_handle(greet)
    with running(server):
        assert visit(server) == "served"


def test_a_subclass_with_a_handle_method_starts_again_after_stop(kind: Any) -> None:
    server_class, more = kind

    class Greeter(server_class):
        def handle(self, sock: Any, address: Any) -> None:
            greet(sock, address)

    server = Greeter(LOCAL, **more)
    for _ in range(3):
        with running(server):
            assert visit(server) == "served"
    if more:
        assert server.stats.admitted == 3


def test_a_listener_given_as_a_gevent_socket_is_adopted_and_closed(make: Any) -> None:
    listener = socket.socket()
    listener.bind(LOCAL)
    listener.listen()
    with running(make(listener, greet)) as server:
        assert server.address == listener.getsockname()
        assert visit(server) == "served"
    assert listener.fileno() == -1


def test_a_blocking_listener_of_the_standard_library_does_not_block_the_loop() -> None:
    listener = stdlib_socket.socket()
    listener.bind(LOCAL)
    listener.listen()
    for arguments in ({"max_connections": 2},):
        with running(StreamServer(listener, greet, **arguments)) as server:
            for _ in range(3):
                assert visit(server) == "served"
            with clients(server, 2):
                assert visit(server) == "closed"
    assert listener.fileno() == -1


def test_an_adopted_listeners_small_backlog_is_made_the_systems_longest() -> None:
    listener = socket.socket()
    listener.bind(LOCAL)
    listener.listen(1)
    with running(StreamServer(listener, greet, max_connections=2)) as server:
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert queue_limit(server.socket) == somaxconn


def test_a_dual_stack_listener_has_one_cap_for_both_families() -> None:
    with running(StreamServer(("", 0), Holding(), max_connections=2)) as server:
        port = server.server_port
        with connect_to(("127.0.0.1", port)) as four, connect_to(("::1", port)) as six:
            assert outcome(four) == outcome(six) == "served"
            for host in "127.0.0.1", "::1":
                with connect_to((host, port)) as extra:
                    assert outcome(extra) == "closed"
            assert server.audit().clean
            assert server.audit().clean


@pytest.fixture(params=["path", "abstract"])
def unix_listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    name = str(tmp_path / "s") if request.param == "path" else f"\0gserver-test-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(name)
    listener.listen()
    yield listener
    listener.close()


def test_a_unix_listener_is_capped_like_any_other(unix_listener: Any) -> None:
    with running(StreamServer(unix_listener, greet, max_connections=2)) as server:
        with clients(server, 2):
            assert visit(server) == "closed"
            assert server.audit().clean
            assert server.audit().clean
        for _ in range(50):  # and no false rejection
            with clients(server, 2):
                pass
        assert server.server_port is None
        assert sum(server.stats.rejected.values()) == 1


def test_import_patches_nothing() -> None:
    from gevent import monkey

    assert not monkey.is_module_patched("socket")
    assert not monkey.is_module_patched("os")
