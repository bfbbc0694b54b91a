"""A server whose handler may block: a native thread a connection, with a plain socket."""

from __future__ import annotations

import _socket
import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any, Final

import gevent.monkey
from gevent.threadpool import ThreadPool

from gserver.server import StreamServer

__all__ = ["ThreadServer"]

_IDLE_THREAD_S: Final = 10
_PlainSocket: Any = gevent.monkey.get_original("socket", "socket")
_get_ident: Any = gevent.monkey.get_original("threading", "get_ident")


def _telling(name: str, flags_at: int) -> Callable[..., Any]:
    """The plain socket's method of that name, which notes who waits in it."""
    plain = getattr(_PlainSocket, name)

    @functools.wraps(plain)
    def read(self: _ThreadSocket, *arguments: Any, **keywords: Any) -> Any:
        flags = arguments[flags_at] if len(arguments) > flags_at else keywords.get("flags", 0)
        if flags & _socket.MSG_DONTWAIT or self.gettimeout() == 0:
            return plain(self, *arguments, **keywords)  # only looks, perhaps while it computes
        thread = _get_ident()
        self.readers.add(thread)
        try:
            return plain(self, *arguments, **keywords)
        finally:
            self.readers.discard(thread)

    return read


class _ThreadSocket(_PlainSocket):  # type: ignore[misc]
    """Tells whether a thread waits to read from it, as the watcher of gevent's sockets does, in
    one of its own methods: ``makefile()`` reads by ``recv_into``. One that waits in select or
    poll, in a ``dup()`` or under TLS of its own, it does not see.

    :ivar readers: the threads. A set and no count, which two of them at once could get wrong.
    """

    __slots__ = ("readers",)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.readers: set[int] = set()
        super().__init__(*arguments, **keywords)

    recv = _telling("recv", 1)
    recv_into = _telling("recv_into", 2)
    recvfrom = _telling("recvfrom", 1)
    recvfrom_into = _telling("recvfrom_into", 2)
    recvmsg = _telling("recvmsg", 2)
    recvmsg_into = _telling("recvmsg_into", 2)


class ThreadServer(StreamServer):
    """:param function: serves a client, ``function(socket, address)``, in a thread of its own.
    :param settings: of :class:`StreamServer`; neither TLS nor without a cap."""

    def __init__(self, listener: Any, function: Callable[[Any, Any], object], **settings: Any):
        self._in_threads = _InThreads(self, function)
        super().__init__(listener, self._in_threads, **settings)

    def is_reading(self, sock: Any) -> bool:
        own = self._in_threads.sockets.get(sock)
        return own is not None and bool(own.readers)


class _InThreads:
    """A blocking function as a handler: as many threads as the cap. Threads that are idle end.

    :ivar sockets: the threads', by those of their connections.
    """

    def __init__(self, server: StreamServer, function: Callable[[Any, Any], object]) -> None:
        self._server = server
        self._function = function
        self._threads = ThreadPool(1, idle_task_timeout=_IDLE_THREAD_S)
        self.sockets: dict[Any, _ThreadSocket] = {}

    def __call__(self, sock: Any, address: Any) -> None:
        cap = self._server.max_connections
        if cap is not None and cap > self._threads.maxsize:
            self._threads.maxsize = cap  # the first time, and when it was raised
        own = _ThreadSocket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
        own.setblocking(True)
        self.sockets[sock] = own
        task = None
        try:
            task = self._threads.spawn(self._serve, own, address)
            error = task.get()
        finally:
            del self.sockets[sock]
            if task is None:
                own.close()
            elif not task.ready():  # this greenlet is killed
                # A thread cannot be. Its connection can: reading it, it finds the end.
                with contextlib.suppress(OSError):  # the peer, or the thread, was first
                    own.shutdown(_socket.SHUT_RDWR)
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame: no cycle for the collector to find

    def _serve(self, sock: Any, address: Any) -> BaseException | None:
        """What the function raised is returned: what a pool's thread raises gevent's hub prints
        as well, and a SystemExit it throws into the main greenlet, which ends the server."""
        try:
            with sock:
                self._function(sock, address)
        except BaseException as error:
            return error
        return None
