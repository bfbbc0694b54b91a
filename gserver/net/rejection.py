"""Turning a client away: the only code that does. On the raw descriptor, before any work.

What the client sees is a rejection's :attr:`~Rejection.name`; a rejection gives, for a listener's
family, the function that does it. For :class:`Close` that is close(2) itself, with no Python in
between: at the cap it is called once for every client of a flood.
"""

from __future__ import annotations

import _socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["Close", "Rejection", "Reset"]

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class Rejection(Protocol):
    """What a client that is turned away sees."""

    @property
    def name(self) -> str: ...

    def on(self, family: int) -> Callable[[int], object]:
        """The function that turns away the client on a descriptor, a connected stream socket of
        ``family``. It releases the descriptor, whether it returns or raises :class:`OSError`."""
        ...


class Close:
    """Close: the client reads end-of-file (FIN).

    Where the client's data lies unread the kernel makes it a reset (RFC 2525 section 2.17).
    Leaves a TIME_WAIT each on this side: above about 2,000 rejections a second use
    :class:`Reset`.
    """

    name: Final = "close"
    __slots__ = ()

    def on(self, family: int) -> Callable[[int], object]:
        return _socket.close

    def __repr__(self) -> str:
        return "Close()"


class Reset:
    """Reset: the client gets ECONNRESET (RST), and this side keeps no TIME_WAIT.

    SO_LINGER with a time of zero makes close(2) abort the connection (socket(7)); on a unix
    socket it is a plain close.
    """

    name: Final = "reset"
    __slots__ = ()

    def on(self, family: int) -> Callable[[int], object]:
        def reset(
            fd: int,
            raw_socket: type[_socket.socket] = _socket.socket,
            stream: int = _socket.SOCK_STREAM,
            level: int = _socket.SOL_SOCKET,
            option: int = _socket.SO_LINGER,
            linger: bytes = _LINGER_ZERO,
        ) -> None:
            # Family, type and protocol given, the constructor only checks with getsockname(2)
            # that the descriptor is a socket.
            try:
                raw = raw_socket(family, stream, 0, fd)
            except OSError:
                _socket.close(fd)
                raise
            try:
                raw.setsockopt(level, option, linger)
            finally:
                raw.close()

        return reset

    def __repr__(self) -> str:
        return "Reset()"
