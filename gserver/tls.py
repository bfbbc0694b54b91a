"""The server's side of TLS: the handshake takes a slot, has a deadline, and stalls nobody."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Protocol

import gevent
import gevent.ssl
from gevent.socket import MSG_PEEK
from gevent.socket import socket as GeventSocket

from gserver.connection import HandshakeFailed
from gserver.net.tcp_info import heard, peer_left, read

__all__ = ["HoldsSocket", "cooperative_wrap", "handshake", "left_silent"]


class HoldsSocket(Protocol):
    """Whoever closes the socket in the end: a :class:`gserver.connection.Connection`."""

    socket: Any
    header_bytes: int


def cooperative_wrap(context: ssl.SSLContext) -> Callable[..., Any]:
    """``context.wrap_socket`` that never blocks the loop.

    The standard library's own context makes blocking sockets: in gevent's server one silent
    client then stops everything. Here its sockets are gevent's, whichever context it is.
    """
    if isinstance(context, gevent.ssl.SSLContext):
        return context.wrap_socket

    def wrap_socket(sock: GeventSocket, **arguments: Any) -> Any:
        # What gevent's SSLContext.wrap_socket does, with a context that is not gevent's.
        session = arguments.pop("session", None)
        return gevent.ssl.SSLSocket(sock=sock, _context=context, _session=session, **arguments)

    return wrap_socket


def handshake(
    connection: HoldsSocket,
    wrap: Callable[..., Any],
    arguments: dict[str, Any],
    timeout: float | None,
) -> None:
    """Wrap the connection's socket, and do the handshake unless it is left to the handler. Once
    it is done, what has come of it counts among the connection's ``header_bytes``.

    :param arguments: for ``wrap``; with ``do_handshake_on_connect=False`` among them the
        handler does the handshake.
    :param timeout: seconds for the handshake; None: for ever.
    :raises HandshakeFailed: the peer's fault. The connection's end closes whichever of the two
        sockets owns the descriptor.
    """
    wanted = arguments.get("do_handshake_on_connect", True)
    arguments = {**arguments, "do_handshake_on_connect": False}
    # Nothing switches greenlets between here and the assignment, so no kill can land while the
    # descriptor is on its way from one socket to the other.
    try:
        # A peer that is gone already: gevent's SSLSocket would raise half-made, with the
        # descriptor in it, and leave the closing to the collector.
        connection.socket.getpeername()
        sock = wrap(connection.socket, **arguments)
    except OSError as error:  # the peer was gone already, or had sent garbage
        silent = left_silent(connection.socket, error, connection.header_bytes)
        raise HandshakeFailed(str(error), silent=silent) from None
    connection.socket = sock
    if not wanted:
        return
    timer = gevent.Timeout(timeout)
    timer.start()
    try:
        sock.do_handshake()
    except gevent.Timeout as expired:
        if expired is not timer:
            raise
        raise HandshakeFailed(f"not done after {timeout} s", timed_out=True) from None
    except OSError as error:  # ssl.SSLError is one
        silent = left_silent(sock, error, connection.header_bytes)
        raise HandshakeFailed(str(error), silent=silent) from None
    finally:
        timer.close()
    connection.header_bytes = _before_the_first_word(sock, connection.header_bytes)


def _before_the_first_word(sock: Any, header_bytes: int) -> int:
    """How many of the bytes received came before the client's own, now that its handshake is done.

    ``header_bytes``, as if the handshake had been its first word, where it has spoken already or
    the system cannot tell. It may have spoken in the very packet that ended the handshake
    (TLS 1.3). OpenSSL reads record by record, and not beyond that of the Finished (without
    SSL_CTX_set_read_ahead, which Python does not have): then there is something to read.
    """
    info = read(sock._sock)  # first: who speaks between this and the look has spoken
    if info is None:
        return header_bytes
    try:
        if sock._sock.recv(1, MSG_PEEK):
            return header_bytes
    except BlockingIOError:
        pass  # not a word so far
    except OSError:
        return header_bytes  # it is gone
    return info.bytes_received - peer_left(info)


def left_silent(sock: Any, error: OSError, header_bytes: int = 0) -> bool:
    """Whether a handshake failed because the client left without a word, as a load balancer's
    check does: it has broken nothing.

    :param sock: gevent's socket, plain or TLS, of the handshake.
    :param error: what the handshake raised.

    Where the system cannot tell what had come (unix sockets; without TCP_INFO), whoever left.
    """
    raw = getattr(sock, "_sock", None)
    info = None if raw is None else read(raw)
    if info is None:
        return isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError)
    return peer_left(info) and not heard(info, header_bytes=header_bytes)
