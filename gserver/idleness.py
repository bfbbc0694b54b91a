"""Whether anybody owes a connection's client an answer: asked by timeouts, eviction and drain."""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

from gserver.net import tcp_info

__all__ = ["BUDGET_S", "Watched", "idle_seconds", "look"]

#: Seconds that a walk over many connections may hold the loop before it lets it turn.
BUDGET_S: Final = 0.001


class Watched(Protocol):
    """What is asked: ``gserver.connection.Connection``, or a slot of an unmodified program's
    (``gserver/legacy/holders.py``)."""

    @property
    def admitted_at(self) -> float: ...
    @property
    def deferred(self) -> bool: ...
    @property
    def header_bytes(self) -> int: ...
    @property
    def reading(self) -> bool: ...
    def tcp_info(self) -> tcp_info.TcpInfo | None: ...


def look(connection: Watched, age: float) -> tuple[bool | None, float | None]:
    """What :meth:`gserver.timeouts.Timeouts.verdict` asks.

    :param age: seconds since it was admitted. It has not been idle for longer than that: the
        kernel's clocks start at the handshake, which may have been long before.
    :return: whether any byte of the client's has come, None when the system cannot tell; and
        the seconds for which it has been idle, None when it is not or the system cannot tell.
    """
    info = connection.tcp_info()
    if info is None:
        # One whose handler was not started has said nothing, as far as anybody knows.
        return (False, age) if connection.deferred else (None, None)
    header_bytes = connection.header_bytes  # a proxy's words, not the client's
    heard = info.bytes_received > header_bytes
    if not tcp_info.is_idle(info, reading=connection.reading, header_bytes=header_bytes):
        return heard, None
    return heard, min(age, min(info.last_sent_ms, info.last_received_ms) / 1000)


def idle_seconds(connection: Watched) -> float | None:
    """Seconds for which a connection has been idle; None when it is not, or nobody can tell."""
    return look(connection, monotonic() - connection.admitted_at)[1]
