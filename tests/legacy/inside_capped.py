"""What the scripts of ``capped.inside`` share. Everything is patched when this is imported."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

import gserver.legacy
from gserver import slots

__all__ = [
    "Any",
    "Service",
    "cap",
    "connect",
    "eventually",
    "found",
    "gevent",
    "os",
    "socket",
    "threading",
]


def cap(number: int = 1, **settings: Any) -> Any:
    settings.setdefault("settle", 0.0)
    return gserver.legacy.install(number, **settings)


def found(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.exit()


def eventually(condition: Callable[[], Any], within: float = 20.0) -> Any:
    deadline = monotonic() + within
    while not (value := condition()):
        assert monotonic() < deadline, f"not within {within} s"
        gevent.sleep(0.001)
    return value


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20.0)


class Service:
    """A listening socket of the program, its cap, and what can be asked of both."""

    def __init__(self, number: int = 1, **settings: Any) -> None:
        self.installed = cap(number, **settings)
        self.limiter = self.installed.limiter
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.clients: list[socket.socket] = []

    @property
    def taken(self) -> int:
        return len(self.limiter.pool)

    def accepted(self) -> socket.socket:
        """The server's side of a new client."""
        self.clients.append(connect(self.port))
        conn, _ = self.listener.accept()
        return conn

    def full(self) -> bool:
        """Whether a client that comes now is turned away."""
        with connect(self.port) as client:
            client.settimeout(20.0)
            accept = gevent.spawn(self._accept_and_greet)
            try:
                return client.recv(1) != b"+"
            except ConnectionError:
                return True
            finally:
                accept.kill()

    def _accept_and_greet(self) -> None:
        conn, _ = self.listener.accept()
        with contextlib.closing(conn):
            conn.sendall(b"+")

    def books(self) -> list[Any]:
        """Slots taken, whether the books balance, and whether slots and semaphore agree."""
        snapshot = self.limiter.snapshot()
        return [self.taken, snapshot.balanced, slots.semaphore_error(self.limiter.pool)]
