"""What the tests of the PROXY protocol share: headers, and servers that expect them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from speaking import V2, v1, v2
from support import LOCAL, connect, running

from gserver import StreamServer

__all__ = [
    "GARBAGE",
    "LOCAL_CHECK",
    "V2",
    "behind_proxies",
    "by_proxy",
    "line",
    "served_by_proxy",
    "tell_address",
    "v1",
    "v2",
]

GARBAGE = b"GET / HTTP/1.1\r\n\r\n"
LOCAL_CHECK = V2 + b"\x20\x00\x00\x00"


def behind_proxies(handler: Any, cap: int = 2, **settings: Any) -> StreamServer:
    """A server whose proxies are on this machine."""
    settings = {"proxy_protocol_from": ["127.0.0.0/8"], **settings}
    if not {"spawn", "limits", "limiter"} & settings.keys():
        settings["max_connections"] = cap
    return StreamServer(LOCAL, handler, **settings)


@contextlib.contextmanager
def served_by_proxy(handler: Any, cap: int = 2, **settings: Any) -> Iterator[Any]:
    with running(behind_proxies(handler, cap, **settings)) as server:
        yield server


def by_proxy(server: Any, header: bytes) -> Any:
    """Connect as a proxy does for a client."""
    sock = connect(server)
    sock.sendall(header)
    return sock


def tell_address(sock: Any, address: Any) -> None:
    """A handler that says whom it serves, then echoes."""
    sock.sendall(repr(address).encode() + b"\n")
    while data := sock.recv(65536):
        sock.sendall(data)


def line(sock: Any) -> str:
    text = b""
    while not text.endswith(b"\n"):
        more = sock.recv(1)
        if not more:
            return text.decode() or "closed"
        text += more
    return text.decode().strip()
