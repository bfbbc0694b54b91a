"""The door of a listener: shut while the server is full, so that the kernel refuses clients.

Linux. ``shutdown(SHUT_RD)`` on a listening socket makes the kernel answer every SYN with a reset
(the client gets ECONNREFUSED) and reset the clients already queued, while the port stays bound;
``listen`` again opens it (``inet_shutdown`` and ``inet_csk_listen_start`` in the kernel's
net/ipv4/). The pair costs 2.6 to 3.7 µs, and refusing costs this process nothing.

SO_REUSEADDR has to be off while it is shut, or another process can take the port, and on again
to open it, or connections still held make that EADDRINUSE. After ``bind`` to port 0 the kernel
forgets the port when it is shut: bind to the number instead (:func:`bound_to_number`).
"""

from __future__ import annotations

import _socket
import errno
import sys
from typing import Final

from gserver.net.listeners import tcp_listener

__all__ = ["SUPPORTED", "bound_to_number", "open_door", "shut_door"]

SUPPORTED: Final = sys.platform == "linux"
_TRIES: Final = 16  # for a port that is free twice in a row


def shut_door(listener: _socket.socket) -> None:
    """Refuse from now on. Stop watching the listener first: it is readable without end then.
    Another process that has the same listener, after a fork, may have shut it already.

    :raises OSError: it is no listener.
    """
    if listener.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
        try:
            listener.shutdown(_socket.SHUT_RD)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            # The other process came in between. Of a socket that does not listen the kernel notes
            # that no more is to be received (inet_shutdown), its connections to come would
            # inherit that, and meet an end-of-file; shutting it while it listens clears it.
            open_door(listener, 0)
            listener.shutdown(_socket.SHUT_RD)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 0)


def open_door(listener: _socket.socket, backlog: int) -> None:
    """Listen again.

    :raises OSError: EADDRINUSE when somebody got hold of the port all the same: try again.
    """
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    try:
        listener.listen(backlog)
    except OSError:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 0)
        raise


def bound_to_number(listener: _socket.socket, backlog: int) -> _socket.socket:
    """A listener on the same address and port, bound to the port's number; ``listener`` is
    closed.

    :raises OSError: the port was taken in between, again and again.
    """
    family = listener.family
    for _ in range(_TRIES):
        address = listener.getsockname()
        listener.close()
        try:
            return tcp_listener(address, backlog, family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        listener = tcp_listener((address[0], 0, *address[2:]), backlog, family)
    listener.close()
    raise OSError(errno.EADDRINUSE, "no port stays free long enough to be bound to")
