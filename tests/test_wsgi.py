"""WSGIServer: the cap counts connections; a kept-alive one holds its slot between requests."""

from __future__ import annotations

import http.client
from contextlib import closing
from typing import Any

import gevent
import gevent.pywsgi
import gevent.server
import gevent.ssl
import pytest
from support import (
    DEADLINE,
    LOCAL,
    client_context,
    connect,
    eventually,
    load,
    outcome,
    running,
    server_context,
)

from gserver import Reset, WSGIServer
from gserver.stats import Ending


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.url_scheme']} {environ['PATH_INFO']}".encode()]


def make(**arguments: Any) -> WSGIServer:
    return WSGIServer(LOCAL, application, log=None, error_log=None, **arguments)


class Http:
    """A client that keeps its connection alive."""

    def __init__(self, server: Any, sock: Any = None) -> None:
        self.sock = connect(server) if sock is None else sock
        self._file = self.sock.makefile("rb")

    def get(self, path: str, keep: bool = True) -> tuple[int, bytes]:
        connection = "keep-alive" if keep else "close"
        self.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode()
        )
        status = int(self._file.readline().split()[1])
        length = 0
        while line := self._file.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self._file.read(length)

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()
        self.sock.close()


def test_requests_are_answered_and_slots_come_back() -> None:
    with running(make(max_connections=2)) as server:
        for _ in range(5):
            with Http(server) as client:
                assert client.get("/a", keep=False) == (200, b"http /a")
                assert outcome(client.sock) == "closed"
        eventually(lambda: server.stats.active == 0)
        assert server.stats.finished[Ending.RETURNED] == 5


def test_the_standard_librarys_client_is_served_or_told_at_once() -> None:
    def fetch(port: int) -> tuple[list[bytes], str]:
        """Two requests on one connection, and a second client meanwhile."""
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as client:
            bodies = []
            for path in "/1", "/2":
                client.request("GET", path)
                bodies.append(client.getresponse().read())
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as extra:
                try:
                    extra.request("GET", "/")
                    extra.getresponse()
                    told = "served"
                except (http.client.RemoteDisconnected, ConnectionError) as error:
                    told = type(error).__name__
        return bodies, told

    with running(make(max_connections=1)) as server:
        # A thread: these are blocking sockets.
        bodies, told = gevent.get_hub().threadpool.apply(fetch, (server.server_port,))
        assert bodies == [b"http /1", b"http /2"]
        assert told in ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")


def test_a_kept_alive_connection_holds_its_slot_between_requests() -> None:
    with running(make(max_connections=1)) as server:
        with Http(server) as client:
            for number in range(3):
                assert client.get(f"/{number}") == (200, f"http /{number}".encode())
                with connect(server) as extra:
                    assert outcome(extra) == "closed"
                assert server.stats.active == 1
        eventually(lambda: server.stats.active == 0)
        with Http(server) as client:
            assert client.get("/again") == (200, b"http /again")


def test_an_application_error_is_a_500_and_frees_the_slot(
    hub_errors: list[BaseException],
) -> None:
    with running(make(max_connections=1)) as server:
        with Http(server) as client:
            status, _ = client.get("/error", keep=False)
            assert status == 500
        eventually(lambda: server.stats.active == 0)
    assert [str(error) for error in hub_errors] == ["on purpose"]
    hub_errors.clear()


@pytest.mark.parametrize("spawn", [2, gevent.pool.Pool(2)], ids=["int", "Pool"])
def test_spawn_means_the_same_cap_as_for_a_stream_server(spawn: Any) -> None:
    with running(make(spawn=spawn)) as server:
        assert server.max_connections == 2
        with Http(server) as first, Http(server) as second:
            assert first.get("/1") == (200, b"http /1")
            assert second.get("/2") == (200, b"http /2")
            with connect(server) as extra:
                assert outcome(extra) == "closed"


def test_of_a_burst_at_the_cap_all_are_answered() -> None:
    with running(make(max_connections=1, rejection=Reset())) as server:
        with Http(server) as client, load("burst", server, 300) as burst:
            assert client.get("/") == (200, b"http /")
            assert burst.read() == {"reset": 300, "hung": 0}


def test_https_takes_a_slot_for_the_handshake_and_serves() -> None:
    context = server_context(gevent.ssl.SSLContext)
    server = make(max_connections=1, ssl_context=context, handshake_timeout=0.1)
    with running(server):
        with connect(server) as silent:
            eventually(lambda: server.stats.active == 1)
            with connect(server) as extra:
                assert outcome(extra) == "closed"
            assert outcome(silent) == "closed"
        server.handshake_timeout = DEADLINE
        eventually(lambda: server.stats.active == 0)
        with connect(server) as plain:
            with Http(server, client_context().wrap_socket(plain)) as client:
                assert client.get("/s") == (200, b"https /s")


def test_without_a_cap_it_is_gevents_own() -> None:
    with running(make()) as server:
        assert server.max_connections is None
        with Http(server) as client:
            assert client.get("/") == (200, b"http /")
    assert issubclass(WSGIServer, gevent.pywsgi.WSGIServer)
