"""The raw sockets of attempts: made, each from its source address; asked; closed.

``_socket`` and not ``socket``, which monkey-patching replaces and which costs more
(``engine.py``).
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final

__all__ = ["Sources", "close", "is_connected", "is_ended", "is_self_connected"]

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: take the port at connect, by four-tuple
_LINGER_RESET: Final = b"\x01\0\0\0\0\0\0\0"  # struct linger {1, 0}: close sends RST


#: ESTABLISHED, and FIN_WAIT1 and 2 of who has half-closed: in any other state the other side's FIN
#: or RST has come (include/net/tcp_states.h). First byte of struct tcp_info.
_STILL_SERVED: Final = (1, 4, 5)


class Sources:
    """Where attempts come from: source addresses in turn.

    :param hosts: IPv4 addresses; empty leaves the choice to the kernel.
    """

    def __init__(self, family: int, hosts: Sequence[str]) -> None:
        self._family = family
        self._hosts = [(host, 0) for host in hosts]
        self._bits = [int(IPv4Address(host)) << 16 for host in hosts] or [0]

    def socket(self, index: int) -> Any:
        """A non-blocking TCP socket, not connected yet, for attempt number *index*.

        :raises OSError: no descriptor, or no such address here. Nothing is left open.
        """
        sock = _socket.socket(self._family, _STREAM, 0)
        if self._hosts:
            try:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(self._hosts[index % len(self._hosts)])
            except OSError:
                sock.close()
                raise
        return sock

    def of(self, index: int, sock: Any) -> int:
        """Our end of attempt number *index*, once it connects: ``Attempt.source``."""
        return self._bits[index % len(self._bits)] | int(sock.getsockname()[1])


def close(sock: Any, *, reset: bool) -> None:
    """Close it, with RST or with FIN."""
    if reset:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        except OSError:  # EINVAL: the other side has reset it already
            pass
    sock.close()


def is_connected(sock: Any) -> bool:
    """Whether the handshake is complete, and the connection not over, as far as we know."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def is_ended(sock: Any) -> bool:
    """Whether the other side has ended the connection, by the kernel's account: its FIN or RST may
    still lie unread.

    :raises OSError: *sock* is closed.
    """
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _STILL_SERVED


def is_self_connected(sock: Any) -> bool:
    """Whether the socket is its own peer. It must be connected.

    A connect to a free port of the ephemeral range can be given that very port as its own; TCP's
    simultaneous open (RFC 9293, 3.5) then joins the socket to itself, and it echoes.
    """
    return bool(sock.getsockname() == sock.getpeername())
