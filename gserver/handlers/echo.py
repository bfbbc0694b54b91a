"""Echo: sends back what it gets (RFC 862)."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["echo"]

_CHUNK: Final = 65536  # bytes read at once


def echo(sock: Any, address: Any) -> None:
    """Send everything back until the client's end-of-file."""
    while data := sock.recv(_CHUNK):
        sock.sendall(data)
