"""Turning a client away: the only code that does. On the raw descriptor, before any work.

A rejection is a callable that takes the descriptor and releases it, whatever happens. What the
client sees is its :attr:`~Rejection.name`.
"""

from __future__ import annotations

import _socket
import struct
from typing import Final, Protocol

__all__ = ["Close", "Rejection", "Reset"]

_RAW_SOCKET: Final = _socket.socket
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Rejection(Protocol):
    """What a client that is turned away sees."""

    @property
    def name(self) -> str: ...

    def __call__(self, fd: int, family: int) -> None:
        """Turn away the client on ``fd``, a connected stream socket of ``family``.

        ``fd`` is released when this returns or raises. Raises :class:`OSError` when the close
        failed: the caller counts it.
        """
        ...


class Close:
    """Close: the client reads end-of-file (FIN).

    Where the client's data lies unread the kernel makes it a reset (RFC 2525 section 2.17).
    Leaves a TIME_WAIT each on this side: above about 2,000 rejections a second use
    :class:`Reset`.
    """

    name: Final = "close"
    __slots__ = ()

    def __call__(self, fd: int, family: int) -> None:
        _socket.close(fd)

    def __repr__(self) -> str:
        return "Close()"


class Reset:
    """Reset: the client gets ECONNRESET (RST), and this side keeps no TIME_WAIT.

    SO_LINGER with a time of zero makes close(2) abort the connection (socket(7)); on a unix
    socket it is a plain close.
    """

    name: Final = "reset"
    __slots__ = ()

    def __call__(self, fd: int, family: int) -> None:
        # Family, type and protocol given: the constructor makes no system call.
        raw = _RAW_SOCKET(family, _socket.SOCK_STREAM, 0, fd)
        try:
            raw.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER_ZERO)
        finally:
            raw.close()

    def __repr__(self) -> str:
        return "Reset()"
