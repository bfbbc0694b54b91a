"""Reads the PROXY protocol's header from raw descriptors: on callbacks, without a greenlet.

Nothing behind the header is consumed, so that the handler finds the connection as the proxy's
client sent it, TLS included. What arrives is looked at with ``MSG_PEEK`` first. While the header
is incomplete all of it is the header's and is taken out, or the descriptor would stay readable
and the loop would spin; of the piece that completes it, just the header's bytes are.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Final

from gserver.net.deadlines import Deadlines
from gserver.net.loop import BACKGROUND_PRIORITY, READ, Loop
from gserver.net.proxy_header import MAX_HEADER, Fault, Header, parse

__all__ = ["Done", "ProxyReader"]

_RAW_SOCKET: Final = _socket.socket

#: Called once, in the hub, with what was found. Owns the descriptor again from then on.
Done = Callable[[Header | Fault], None]


class ProxyReader:
    """Reads headers from any number of connections, each within ``timeout``.

    :param loop: the loop whose callbacks do the work.
    :param timeout: seconds in which the header must be complete; up to an eighth more. Section 2
        of the specification asks for at least 3, to outlast a retransmission.

    How many are read at once is the caller's to bound: each holds a slot already.
    """

    def __init__(self, loop: Loop, *, timeout: float = 5.0) -> None:
        self._loop = loop
        self._deadlines: Deadlines[_Reading] = Deadlines(
            loop, timeout, lambda reading: reading.end(Fault.TIMEOUT)
        )

    @property
    def pending(self) -> int:
        """Connections whose header is being read now."""
        return len(self._deadlines)

    def read(self, fd: int, family: int, done: Done) -> None:
        """Read the header on ``fd``, a connected stream socket of ``family``.

        Returns at once; ``done`` is called later, never from here. The descriptor is not to be
        touched until then, and is never closed here: it is the caller's in every case, made
        non-blocking, its first unread byte the first one behind the header. (After a fault,
        what of the bad header was read is gone.)
        """
        self._deadlines.add(_Reading(self, fd, family, done))

    def cancel_all(self) -> int:
        """End every reading with :attr:`Fault.CANCELLED` and return how many there were. ``done``
        is called for each before this returns."""
        readings = list(self._deadlines)
        for reading in readings:
            reading.end(Fault.CANCELLED)
        return len(readings)


class _Reading:
    """One header that is being read."""

    __slots__ = ("done", "reader", "sock", "taken", "watcher")

    def __init__(self, reader: ProxyReader, fd: int, family: int, done: Done) -> None:
        self.reader = reader
        self.done = done
        self.taken = b""  # what is out of the kernel: the beginning of the header
        self.sock = _RAW_SOCKET(family, _socket.SOCK_STREAM, 0, fd)
        # Also where the program has set a default timeout, with which recv would wait.
        self.sock.setblocking(False)
        self.watcher = reader._loop.io(fd, READ, priority=BACKGROUND_PRIORITY)
        self.watcher.start(self._look)

    def _look(self) -> None:
        try:
            arrived = self.sock.recv(MAX_HEADER - len(self.taken), _socket.MSG_PEEK)
            if not arrived:
                self.end(Fault.CLOSED)
                return
            found = parse(self.taken + arrived)
            if found is None:
                self.taken += self.sock.recv(len(arrived))
                return
            if isinstance(found, Header):
                self.sock.recv(found.size - len(self.taken))
        except BlockingIOError:
            return
        except OSError:
            found = Fault.CLOSED
        self.end(found)

    def end(self, found: Header | Fault) -> None:
        if self.sock.fileno() < 0:  # ended by what another one's ``done`` did
            return
        self.reader._deadlines.discard(self)
        self.watcher.close()
        self.sock.detach()
        self.done(found)
