"""What the kernel knows of a connection or a listener: ``TCP_INFO`` (Linux).

Offsets are those of ``struct tcp_info`` in the kernel's include/uapi/linux/tcp.h; fields are only
ever added at its end. The clocks are ``lsndtime`` and ``lrcvtime`` (net/ipv4/tcp.c,
``tcp_get_info``): both start at the handshake, neither is moved by keepalives or pure
acknowledgements, and they tick in jiffies: 4 ms at the common CONFIG_HZ of 250.

One :func:`read` takes about 1 µs (bench/tcp_info_cost.py).
"""

from __future__ import annotations

import _socket
import enum
import struct
import sys
from typing import Final, NamedTuple, Protocol

__all__ = [
    "SUPPORTED",
    "ListenQueue",
    "TcpInfo",
    "Turn",
    "heard",
    "is_idle",
    "peer_left",
    "read",
    "read_descriptor",
    "read_listen_queue",
    "turn_of",
]

#: Whether this system has ``TCP_INFO`` in Linux's layout. Where it has not, nothing is ever read.
SUPPORTED: Final = sys.platform == "linux"

_TCP_INFO: Final = 11  # linux/tcp.h; not in the socket module of every system
# tcpi_state at 0, tcpi_last_data_sent at 44, tcpi_last_data_recv at 52, tcpi_bytes_acked at 120,
# tcpi_bytes_received at 128 (Linux 4.1).
_CONNECTION: Final = struct.Struct("=B43xI4xI64xQQ")
# tcpi_state at 0, tcpi_unacked at 24 and tcpi_sacked at 28, which in LISTEN stand for the length
# of the accept queue and its limit (tcp_get_info again).
_LISTENER: Final = struct.Struct("=B23xII")

# include/net/tcp_states.h
_TIME_WAIT: Final = 6
_CLOSE: Final = 7
_CLOSE_WAIT: Final = 8
_LAST_ACK: Final = 9
_LISTEN: Final = 10
_CLOSING: Final = 11
_PEER_LEFT: Final = frozenset({_TIME_WAIT, _CLOSE, _CLOSE_WAIT, _LAST_ACK, _CLOSING})


class _HasOptions(Protocol):
    """A socket: the standard library's, gevent's, or a plain ``_socket.socket``."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class TcpInfo(NamedTuple):
    """A connection at one instant."""

    state: int
    """A value of net/tcp_states.h: 1 is ESTABLISHED."""
    last_sent_ms: int
    """Milliseconds since the last data of ours was sent, or since the handshake."""
    last_received_ms: int
    """Milliseconds since the last data of the peer's came, or since the handshake."""
    bytes_acked: int
    """Bytes of ours that the peer has acknowledged."""
    bytes_received: int
    """Bytes of the peer's that have come, read or not; its end-of-file is one (see
    :func:`heard`)."""


class ListenQueue(NamedTuple):
    """A listener's queue of connections that wait for ``accept``."""

    length: int
    limit: int
    """The backlog as the kernel took it: at most ``net.core.somaxconn``."""


class Turn(enum.Enum):
    """Whose turn it is to send."""

    CLIENT = enum.auto()  # the last data was ours, or none has come: the connection is idle
    SERVER = enum.auto()  # the last data was the client's: the handler owes an answer
    UNCLEAR = enum.auto()  # both in the same tick of the kernel's clock


def read(sock: _HasOptions) -> TcpInfo | None:
    """The kernel's view of a connected socket; None when it is not TCP, not open, or when the
    system is not :data:`SUPPORTED`. Raises nothing."""
    if not SUPPORTED:
        return None
    try:
        raw = sock.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, _CONNECTION.size)
        return TcpInfo._make(_CONNECTION.unpack(raw))
    except (OSError, struct.error):  # struct.error: shorter, from a kernel before 4.1
        return None


def read_descriptor(fd: int, family: int) -> TcpInfo | None:
    """:func:`read` for a bare descriptor of a stream socket, which stays open and the caller's."""
    if family not in (_socket.AF_INET, _socket.AF_INET6):
        return None
    sock = _socket.socket(family, _socket.SOCK_STREAM, 0, fd)
    try:
        return read(sock)
    finally:
        sock.detach()


def read_listen_queue(sock: _HasOptions) -> ListenQueue | None:
    """A listener's queue; None when it is not TCP, not listening (shut: refusing), not open, or
    when the system is not :data:`SUPPORTED`. Raises nothing."""
    if not SUPPORTED:
        return None
    try:
        raw = sock.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, _LISTENER.size)
        state, length, limit = _LISTENER.unpack(raw)
    except (OSError, struct.error):
        return None
    return ListenQueue(length, limit) if state == _LISTEN else None


def peer_left(info: TcpInfo) -> bool:
    """The peer has closed or reset the connection, or closed its half: no more will come."""
    return info.state in _PEER_LEFT


def heard(info: TcpInfo, *, header_bytes: int = 0) -> bool:
    """Whether any byte of the client's own has come.

    :param header_bytes: of the bytes received, how many came before the client's own: a proxy's
        header, a TLS handshake.
    """
    # The kernel counts a FIN as a byte received (tcp_rcv_nxt_update in net/ipv4/tcp_input.c).
    return info.bytes_received > header_bytes + peer_left(info)


def turn_of(info: TcpInfo, *, header_bytes: int = 0) -> Turn:
    """Whose turn it is to send, as far as the kernel's clocks tell.

    :param header_bytes: as for :func:`heard`.
    """
    if not heard(info, header_bytes=header_bytes):
        return Turn.CLIENT
    if not info.bytes_acked:  # not a byte of ours has reached it, so nothing was answered
        return Turn.SERVER
    if info.last_sent_ms == info.last_received_ms:
        return Turn.UNCLEAR
    return Turn.CLIENT if info.last_sent_ms < info.last_received_ms else Turn.SERVER


def is_idle(info: TcpInfo, *, reading: bool, header_bytes: int = 0) -> bool:
    """Nobody owes this client an answer: it may be nudged or ended when it has been silent long.

    :param reading: the handler is waiting to read from this connection right now. Decides where
        the clocks cannot: an answer given within a tick of its request, and a request sent within
        a tick of the answer before it, look the same for ever after, and on a near network both
        are the rule (bench/tcp_info_cost.py). Where they can it is not asked: an answer is then
        idle between two of its parts; but if only who reads were idle, neither a client that does
        not read its answer nor one to whom the server pushes would ever be.
    :param header_bytes: as for :func:`heard`.
    """
    turn = turn_of(info, header_bytes=header_bytes)
    return turn is Turn.CLIENT or (turn is Turn.UNCLEAR and reading)
