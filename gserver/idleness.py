"""Whether anybody owes a connection's client an answer: asked by timeouts, eviction and drain."""

from __future__ import annotations

import _socket
import logging
from time import monotonic
from typing import Final, Protocol

from gserver.net import tcp_info
from gserver.timeouts import Timeouts

__all__ = ["BUDGET_S", "Watched", "idle_seconds", "look", "warn_of_no_effect", "without_effect"]

log = logging.getLogger("gserver")

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
    header_bytes = connection.header_bytes  # a proxy's words, or the handshake's, not the client's
    heard = tcp_info.heard(info, header_bytes=header_bytes)
    if not tcp_info.is_idle(info, reading=connection.reading, header_bytes=header_bytes):
        return heard, None
    return heard, min(age, min(info.last_sent_ms, info.last_received_ms) / 1000)


def idle_seconds(connection: Watched) -> float | None:
    """Seconds for which a connection has been idle; None when it is not, or nobody can tell."""
    return look(connection, monotonic() - connection.admitted_at)[1]


def without_effect(
    family: int, timeouts: Timeouts, evict_idle: float | None, *, deferred_start: bool
) -> dict[str, float]:
    """The settings that end nobody on a listener of ``family``, since nobody can tell there who is
    silent: by name, what was given. While a deferred start waits we know by ourselves."""
    if deferred_start or (tcp_info.SUPPORTED and family in (_socket.AF_INET, _socket.AF_INET6)):
        return {}
    given = {"first_byte": timeouts.first_byte, "idle": timeouts.idle, "evict_idle": evict_idle}
    return {setting: value for setting, value in given.items() if value is not None}


def warn_of_no_effect(where: str, settings: dict[str, float]) -> None:
    """Log them, if there are any, for the listener at ``where``."""
    if settings:
        log.warning(
            "%s: without effect here: %s (it takes Linux's TCP_INFO, which unix sockets do not "
            "have); lifetime holds",
            where,
            ", ".join(settings),
        )
