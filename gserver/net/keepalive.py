"""What a listener's connections inherit, keepalive and TCP_USER_TIMEOUT, and what comes of them.

Linux copies a listener's socket options to each connection it hands out (tcp(7); ``sk_clone_lock``
in the kernel's net/core/sock.c), and so do the BSDs (accept(2)): no system call per connection.
"""

from __future__ import annotations

import _socket
import errno
from typing import Any, Final

from gserver.errors import SettingError
from gserver.timeouts import Timeouts

__all__ = ["set_inherited", "vanished"]

# macOS has the idle time under another name (its tcp(4)).
_IDLE: Final = getattr(_socket, "TCP_KEEPIDLE", getattr(_socket, "TCP_KEEPALIVE", None))
_USER_TIMEOUT: Final = getattr(_socket, "TCP_USER_TIMEOUT", None)

# Of a peer that answers no more: the timer's own, or what a router said last (tcp_write_err in
# the kernel's net/ipv4/tcp_timer.c, which the probes' and the user timeout's ends share).
_VANISHED: Final = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}
)


def set_inherited(listener: Any, timeouts: Timeouts) -> None:
    """Set on ``listener``, for every connection to come, what the kernel watches by itself.

    :param listener: any listening socket; nothing is done to one that is not TCP.
    :raises SettingError: the system does not have TCP_USER_TIMEOUT.
    """
    if listener.family not in (_socket.AF_INET, _socket.AF_INET6):
        return
    keepalive = timeouts.keepalive
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, keepalive is not None)
    if keepalive is not None and _IDLE is not None:
        listener.setsockopt(_socket.IPPROTO_TCP, _IDLE, keepalive.idle)
        listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, keepalive.interval)
        listener.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, keepalive.count)
    if timeouts.user_timeout is not None:
        if _USER_TIMEOUT is None:
            raise SettingError("user_timeout", timeouts.user_timeout, "needs Linux")
        milliseconds = max(1, round(timeouts.user_timeout * 1000))  # 0 means the system's default
        listener.setsockopt(_socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)


def vanished(error: OSError) -> bool:
    """Whether *error*, of a connection, says that the peer answers the kernel no more."""
    return error.errno in _VANISHED
