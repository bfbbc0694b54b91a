"""Both ends of connections, for tests that drive the server's end by its raw descriptor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket

DEADLINE_S = 20.0
FAMILIES = ["ipv4", "ipv6", "unix"]


def until(condition: Callable[[], bool]) -> None:
    """Run the loop until the condition holds."""
    end = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < end, "waited in vain"
        gevent.sleep(0.001)


def read_to_end(client: Any) -> bytes:
    """All bytes up to FIN. A reset raises ConnectionResetError."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


class Place:
    """A listener, and the two ends of connections to it."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family = {
            "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "unix": socket.AF_UNIX
        }[family]  # fmt: skip
        self.listener = socket.socket(self.family)
        address: dict[str, Any] = {
            "ipv4": ("127.0.0.1", 0),
            "ipv6": ("::1", 0),
            "unix": str(folder / "s"),
        }
        try:
            self.listener.bind(address[family])
        except OSError as error:
            self.listener.close()
            pytest.skip(f"no {family} here: {error}")
        self.listener.listen(64)
        self.clients: list[Any] = []

    def connect(self, first_words: bytes = b"") -> tuple[Any, int]:
        """A cooperative client that has already sent ``first_words``, and the server's
        descriptor of its connection, on which they can be read."""
        client = gevent_socket.socket(self.family)
        self.clients.append(client)
        client.settimeout(DEADLINE_S)
        client.connect(self.listener.getsockname())
        if first_words:
            client.sendall(first_words)
        fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        return client, fd

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.listener.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
