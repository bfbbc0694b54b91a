"""Deferred start: what holds a silent client's slot until its first byte, instead of a greenlet.

For protocols in which the client speaks first. A greenlet is 8 KiB, most of what a connection
costs; a client that says nothing does not get one. Under TLS the first byte is the handshake's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent
from gevent.socket import MSG_PEEK

from gserver.net.keepalive import vanished
from gserver.stats import Ending

__all__ = ["DeferredStart"]


class _Connection(Protocol):
    """What it is told of: ``gserver.connection.Connection``."""

    @property
    def socket(self) -> Any: ...
    def begin(self, body: Callable[..., object], arguments: tuple[Any, ...]) -> None: ...
    def end_deferred(self, ending: Ending) -> None: ...


class DeferredStart:
    """Stands in the pool where the connection's greenlet will. What a Pool asks of its members,
    it has: ``rawlink``, ``unlink`` and ``kill``.

    :param body: what the connection's greenlet will run, with ``arguments``.

    It ends in one of three ways: the first byte comes, and the greenlet takes its place; the
    client leaves (its end-of-file without a byte before it, or a reset), and the connection ends
    without its handler having started: who says nothing asks for nothing; or it is killed.
    """

    __slots__ = ("_arguments", "_body", "_connection", "_links", "_watcher")

    dead = False  # as of a greenlet: for the audit, and for whoever looks into the pool
    exception: Final = None  # for Pool.join(raise_error=True)

    def __init__(
        self, connection: _Connection, body: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self._connection = connection
        self._body = body
        self._arguments = arguments
        self._links: list[Callable[[Any], object]] | None = None
        # The socket's own, which the handler will wait with: one watcher less to keep.
        self._watcher: Any = connection.socket._read_event

    def wait(self) -> None:
        """Begin to wait for the first byte."""
        self._watcher.start(self._readable)

    def cancel(self) -> None:
        """Stop waiting, and tell whoever has linked. Before the socket is closed."""
        self._watcher.stop()
        links, self._links = self._links, None
        for link in links or ():
            link(self)

    def _readable(self) -> None:
        self._watcher.stop()
        connection = self._connection
        try:
            if not connection.socket._sock.recv(1, MSG_PEEK):
                connection.end_deferred(Ending.LEFT_SILENT)
                return
        except BlockingIOError:
            self.wait()
            return
        except OSError as error:
            connection.end_deferred(Ending.VANISHED if vanished(error) else Ending.LEFT_SILENT)
            return
        connection.begin(self._body, self._arguments)

    # ---- what a Pool, gevent.wait and joinall use ------------------------------------------

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(self)`` when this ends, by whichever of the three."""
        if self._links is None:
            self._links = []
        self._links.append(callback)

    def unlink(self, callback: Callable[[Any], object]) -> None:
        if self._links is not None and callback in self._links:
            self._links.remove(callback)
            self._links = self._links or None

    def kill(self, exception: Any = None, block: bool = True, timeout: float | None = None) -> None:
        """End the connection, in a callback of the loop as a greenlet's kill does; never blocks."""
        self._watcher.stop()
        gevent.get_hub().loop.run_callback(self._connection.end_deferred, Ending.KILLED)
