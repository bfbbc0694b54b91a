"""What the tests share: servers that end, clients with deadlines, waiting without sleeping.

Deadlines here are bounds for a machine under load, not targets.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket as stdlib_socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import gevent.ssl
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool

DEADLINE = 20.0
HERE = Path(__file__).parent
CERTIFICATE = Path(gevent.__file__).parent / "tests" / "server.crt"
KEY = CERTIFICATE.with_suffix(".key")


# ---- waiting -------------------------------------------------------------------------------


def turn(seconds: float = 0.0) -> None:
    """At least one whole turn of the loop, its poll included."""
    hub = gevent.get_hub()
    timer = hub.loop.timer(seconds)
    try:
        hub.wait(timer)
    finally:
        timer.close()


def eventually(condition: Callable[[], Any], within: float = DEADLINE) -> Any:
    """Wait until ``condition()`` is true; its value."""
    deadline = monotonic() + within
    while not (value := condition()):
        assert monotonic() < deadline, f"not within {within} s"
        turn(0.001)
    return value


def never_within(seconds: float, condition: Callable[[], Any]) -> None:
    """``condition()`` stays false for as long: what a hanging client looks like."""
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        assert not condition()
        turn(0.001)


# ---- handlers ------------------------------------------------------------------------------

GREETING = b"+"


def greet(sock: Any, _address: Any) -> None:
    """Say that the client is served, then serve until its end-of-file."""
    sock.sendall(GREETING)
    while sock.recv(4096):
        pass


def echo(sock: Any, _address: Any) -> None:
    sock.sendall(GREETING)
    while data := sock.recv(65536):
        sock.sendall(data)


class Holding:
    """A handler that greets and holds each client until the test lets go."""

    def __init__(self) -> None:
        self.release = Event()
        self.inside = 0
        self.peak = 0

    def __call__(self, sock: Any, _address: Any) -> None:
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        try:
            sock.sendall(GREETING)
            self.release.wait()
        finally:
            self.inside -= 1


class Stubborn:
    """A handler that greets and swallows every kill until the test lets go."""

    def __init__(self) -> None:
        self.release = Event()

    def __call__(self, sock: Any, _address: Any) -> None:
        sock.sendall(GREETING)
        while not self.release.is_set():
            with contextlib.suppress(gevent.GreenletExit):
                self.release.wait()


# ---- servers -------------------------------------------------------------------------------

LOCAL = ("127.0.0.1", 0)


@contextlib.contextmanager
def running(server: Any, stop_timeout: float = 0.0) -> Iterator[Any]:
    """Start a server; stop it, killing what it still serves, at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop(stop_timeout)


def server_context(kind: type[ssl.SSLContext]) -> ssl.SSLContext:
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def client_context() -> Any:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ---- clients -------------------------------------------------------------------------------


def connect(server: Any, timeout: float = DEADLINE) -> Any:
    """A client in this process, on the same loop."""
    return connect_to(server.address, timeout)


def connect_to(address: Any, timeout: float = DEADLINE) -> Any:
    if isinstance(address, tuple):
        host, port = address[:2]
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return socket.create_connection((host, port), timeout=timeout)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    sock.connect(address)
    return sock


def outcome(sock: Any) -> str:
    """What a client observes first: served, closed, reset, or hung (until its timeout)."""
    try:
        data = sock.recv(1)
    except TimeoutError:
        return "hung"
    except ConnectionResetError:
        return "reset"
    return "served" if data else "closed"


def visit(server: Any) -> str:
    """Connect, observe, leave."""
    with connect(server) as sock:
        return outcome(sock)


@contextlib.contextmanager
def clients(server: Any, count: int) -> Iterator[list[Any]]:
    """So many clients that are being served."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            sock = stack.enter_context(connect(server))
            assert outcome(sock) == "served"
            found.append(sock)
        yield found


def slowest_echo(sock: Any, count: int) -> float:
    """Seconds that the slowest of so many messages took, one after the other, to come back."""
    longest = 0.0
    for number in range(count):
        message = f"{number};".encode()
        began = monotonic()
        sock.sendall(message)
        assert sock.recv(100) == message
        longest = max(longest, monotonic() - began)
    return longest


def vanish(sock: Any) -> None:
    """Leave with a reset instead of an end-of-file."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_open(fd: int, inode: int) -> bool:
    """Whether ``fd`` is still the same open file."""
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:  # EBADF
        return False


def inode_of(sock: Any) -> int:
    return os.fstat(sock.fileno()).st_ino


class OrderedPool(Pool):
    """Remembers of each slot that came back whether the client's socket was closed by then."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.sockets: list[tuple[int, int]] = []
        self.closed_first: list[bool] = []

    def discard(self, greenlet: Any) -> None:
        self.closed_first.append(not any(is_open(*key) for key in self.sockets))
        super().discard(greenlet)


# ---- another process -----------------------------------------------------------------------


class Process:
    """A script beside this file, in another process, that prints JSON lines and ends when its
    standard input does."""

    def __init__(self, script: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._buffer = b""

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def read(self, within: float = 60.0) -> Any:
        """The next JSON line; the loop of this process goes on meanwhile."""
        while b"\n" not in self._buffer:
            chunk = self._chunk(within)
            assert chunk, "the other process ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _chunk(self, within: float) -> bytes:
        socket.wait_read(self._fd, timeout=within, timeout_exc=TimeoutError("no line"))
        return os.read(self._fd, 65536)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_exc: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            while self._chunk(DEADLINE):
                pass
        except (TimeoutError, BrokenPipeError):
            process.kill()
        finally:
            process.stdout.close()
            process.wait(DEADLINE)


def load(command: str, server: Any, *arguments: object, speaks: str = "") -> Process:
    """Run ``load.py``, the clients in another process, against a server of this one."""
    return Process("load.py", command, *server.address[:2], *arguments, f"speaks={speaks}")


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with stdlib_socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
