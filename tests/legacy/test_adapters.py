"""Handlers written for something else, under the cap."""

from __future__ import annotations

import asyncio
import http.server
import select
import socketserver
import subprocess
import sys
import threading
import time
import wsgiref.simple_server
import xmlrpc.server
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import gevent
import gevent.pywsgi
import gevent.server
import pytest
from gevent import socket
from support import vanish

from gserver import SettingError, StreamServer
from gserver.handlers.adapters import Kind, detect, make_server

LOCAL = ("127.0.0.1", 0)


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"port {self.server.server_port}".encode())  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        pass


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


class Framework:
    def wsgi_app(self, environ: Any, start_response: Any) -> Any:
        return application(environ, start_response)

    def __call__(self, *args: Any) -> Any:
        return self.wsgi_app(*args)


class Application:
    """PEP 3333's second example: an instance is the answer."""

    def __init__(self, environ: Any, start_response: Callable[..., Any]) -> None:
        self.answer = application(environ, start_response)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.answer)


class Session:
    """Serves its client while it is made."""

    def __init__(self, sock: Any, address: Any) -> None:
        handle(sock, address)


class Three:
    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        raise AssertionError("never made")


def blocking(sock: Any, address: Any) -> None:
    """Blocks its thread, as code that knows no gevent does."""
    sock.sendall(b"+")
    while data := sock.recv(100):
        time.sleep(0.01)
        sock.sendall(data)


def handle(sock: Any, address: Any) -> None:
    sock.sendall(b"+")
    sock.recv(1)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (Echo, Kind.REQUEST_HANDLER),
        (Hello, Kind.REQUEST_HANDLER),
        (application, Kind.WSGI),
        (Application, Kind.WSGI),
        (Session, Kind.CALLABLE),
        (Framework(), Kind.WSGI),
        (lambda env, start_response: [], Kind.WSGI),
        (handle, Kind.CALLABLE),
        (blocking, Kind.CALLABLE),
        (print, Kind.CALLABLE),
    ],
)
def test_a_handler_is_detected_from_what_it_is(target: object, kind: Kind) -> None:
    assert detect(target) is kind


@pytest.mark.parametrize("target", [object(), int, socketserver.DatagramRequestHandler, None])
def test_what_cannot_serve_is_the_users_mistake(target: object) -> None:
    with pytest.raises(SettingError, match="handler"):
        detect(target)


class Answers(asyncio.Protocol):
    def __init__(self, sock: Any, address: Any) -> None:
        raise AssertionError("never made")


class TakesConnections:
    """As cheroot's servers."""

    def __init__(self, address: Any, application: Any) -> None:
        raise AssertionError("never made")

    def prepare(self) -> None: ...

    def serve(self) -> None: ...

    def stop(self) -> None: ...


SERVERS = [
    socketserver.BaseServer,
    socketserver.TCPServer,
    socketserver.ThreadingTCPServer,
    socketserver.ForkingTCPServer,
    http.server.HTTPServer,
    http.server.ThreadingHTTPServer,
    wsgiref.simple_server.WSGIServer,
    xmlrpc.server.SimpleXMLRPCServer,
    gevent.server.StreamServer,
    gevent.pywsgi.WSGIServer,
    StreamServer,
    asyncio.AbstractServer,
    socket.socket,
    TakesConnections,
]


@pytest.mark.parametrize("target", SERVERS, ids=lambda it: f"{it.__module__}.{it.__name__}")
def test_a_server_is_no_handler_whatever_arguments_it_takes(target: Any) -> None:
    with pytest.raises(SettingError, match="is a server, which listens by itself") as found:
        detect(target)
    assert "\n" not in str(found.value)


def test_a_server_that_was_made_already_is_no_handler() -> None:
    with socketserver.ThreadingTCPServer(LOCAL, Echo) as server:
        with pytest.raises(SettingError, match="is a server"):
            detect(server)


def test_a_server_named_as_the_handler_is_one_line_and_status_2() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gserver", "serve", "http.server:ThreadingHTTPServer"),
            *("--max-connections", "1", "--listen", "127.0.0.1:0"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is a server, which listens by itself" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_protocol_of_asyncio_is_no_handler() -> None:
    with pytest.raises(SettingError, match="is an asyncio protocol"):
        detect(Answers)


@pytest.mark.parametrize("target", [int, Three, Framework])
def test_a_class_of_which_nothing_is_known_may_be_told_by_its_kind(target: object) -> None:
    with pytest.raises(SettingError, match="if it does, say so by --kind"):
        detect(target)


@pytest.mark.parametrize(
    ("target", "kind", "settings", "said"),
    [
        (handle, Kind.REQUEST_HANDLER, {"max_connections": 1}, "handler"),
        (blocking, Kind.BLOCKING, {}, "max_connections"),
        (blocking, Kind.BLOCKING, {"max_connections": 1, "certfile": "x"}, "TLS"),
    ],
)
def test_what_does_not_go_together_is_the_users_mistake(
    target: Any, kind: Kind, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        make_server(target, LOCAL, kind, **settings)


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    servers: list[Any] = []

    def start(target: Any, kind: Kind | None = None, **settings: Any) -> Any:
        server = make_server(target, LOCAL, kind, max_connections=2, **settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


def connect(server: Any) -> Any:
    return socket.create_connection(("127.0.0.1", server.server_port), 20.0)


def ended(sock: Any) -> bool:
    """Whether the server ends the connection, one way or the other."""
    try:
        return not sock.recv(100)
    except ConnectionResetError:
        return True


def free(server: Any, within: float = 20.0) -> None:
    with gevent.Timeout(within):
        while len(server.pool):
            gevent.sleep(0.001)


EXCHANGES = {
    "request-handler": (Echo, None, b"a line\n", b"a line\n"),
    "http": (Hello, None, b"GET / HTTP/1.0\r\n\r\n", b"200 OK"),
    "wsgi": (application, None, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
    "wsgi class": (Application, None, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
    "blocking": (blocking, Kind.BLOCKING, b"said", b"+"),
    "callable": (handle, None, b"x", b"+"),
    "class": (Session, None, b"x", b"+"),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_each_kind_serves_up_to_the_cap_and_gives_its_slots_back(
    name: str, serve: Callable[..., Any]
) -> None:
    target, kind, said, answer = EXCHANGES[name]
    server = serve(target, kind, **({"log": None} if name.startswith("wsgi") else {}))
    for _ in range(3):
        with connect(server) as first, connect(server) as second:
            with gevent.Timeout(20):
                while len(server.pool) < 2:
                    gevent.sleep(0.001)
            with connect(server) as third:
                assert ended(third)
            for sock in (first, second):
                sock.sendall(said)
                assert answer in sock.recv(4096)
        free(server)
    assert server.stats.admitted == 6
    assert server.stats.balanced


def test_a_request_handler_finds_its_server(serve: Callable[..., Any]) -> None:
    server = serve(Hello)
    with connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.endswith(f"port {server.server_port}".encode())


def test_a_request_handler_that_fails_ends_its_connection_only(serve: Callable[..., Any]) -> None:
    class Fails(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            raise LookupError("the handler's own")

    server = serve(Fails)
    for _ in range(3):
        with connect(server) as sock:
            assert ended(sock)
        free(server)
    assert server.stats.finished["raised"] == 3


def test_a_blocking_handler_stops_nobody_else(serve: Callable[..., Any]) -> None:
    """Two clients in handlers that each wait for the other: only threads can do that."""
    together = threading.Barrier(2, timeout=20)

    def meet(sock: Any, address: Any) -> None:
        together.wait()
        sock.sendall(b"+")

    server = serve(meet, Kind.BLOCKING)
    with connect(server) as first, connect(server) as second:
        assert (first.recv(1), second.recv(1)) == (b"+", b"+")
    free(server)


def test_a_blocking_handler_whose_connection_is_killed_finds_the_end(
    serve: Callable[..., Any],
) -> None:
    over = threading.Event()

    def wait(sock: Any, address: Any) -> None:
        sock.sendall(b"+")
        assert sock.recv(1) == b""
        over.set()

    server = serve(wait, Kind.BLOCKING)
    with connect(server) as sock:
        assert sock.recv(1) == b"+"
        server.pool.kill(timeout=20)
        assert ended(sock)
    with gevent.Timeout(20):
        while not over.is_set():
            gevent.sleep(0.001)
    assert len(server.pool) == 0


def test_a_killed_blocking_handler_whose_peer_has_reset_is_no_error(
    serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection cannot be shut down any more (ENOTCONN)."""
    begun, release = threading.Event(), threading.Event()

    def wait(sock: Any, address: Any) -> None:
        begun.set()
        release.wait(20)

    server = serve(wait, Kind.BLOCKING)
    try:
        with connect(server) as sock:
            with gevent.Timeout(20):
                while not begun.is_set():
                    gevent.sleep(0.001)
            (connection,) = server.limiter.connections
            vanish(sock)
        with gevent.Timeout(20):
            while not select.select([connection.socket.fileno()], [], [], 0)[0]:
                gevent.sleep(0.001)
        server.pool.kill(timeout=20)
    finally:
        release.set()
    assert server.stats.finished["killed"] == 1
    assert caplog.records == []
