"""Handlers that were written for something else, served with a cap.

A :class:`socketserver.BaseRequestHandler`, a WSGI application, a function that blocks its thread:
:func:`detect` tells which one a name points at, :func:`make_server` makes the server for it.
"""

from __future__ import annotations

import _socket
import enum
import inspect
import socketserver
from typing import Any, Final

from gserver.errors import SettingError
from gserver.handlers.threads import ThreadServer
from gserver.server import StreamServer, WSGIServer

__all__ = ["Kind", "detect", "make_server"]

_SERVER: Final = (
    "is a server, which listens by itself; give its handler or its application "
    "(`gserver exec` runs a program as it is)"
)
#: What takes two arguments as a handler does and is none, by the methods that it has.
_NO_HANDLERS: Final = {
    ("serve_forever",): _SERVER,  # socketserver, http.server, wsgiref, werkzeug, gevent, asyncio
    ("prepare", "serve", "stop"): _SERVER,  # cheroot
    ("listen", "accept"): _SERVER,  # sockets; waitress
    ("connection_made", "connection_lost"): "is an asyncio protocol, and no asyncio loop runs here",
}
_TLS_ARGUMENTS: Final = frozenset(("ssl_context", "certfile", "keyfile"))


class Kind(enum.StrEnum):
    """What a handler was written for. The values are those of ``--kind``."""

    CALLABLE = "callable"  # handle(socket, address), and it waits only in gevent's ways
    BLOCKING = "blocking"  # the same, and it may block: in a native thread, with a plain socket
    REQUEST_HANDLER = "request-handler"  # a socketserver.BaseRequestHandler subclass
    WSGI = "wsgi"  # application(environ, start_response)

    @property
    def descriptors(self) -> int:
        """How many a connection takes, besides those that its handler opens."""
        return 2 if self is Kind.BLOCKING else 1  # the thread's socket has one of its own


def detect(target: object) -> Kind:
    """What ``target`` was written for. Whether a function blocks cannot be seen: say so.

    :raises SettingError: nothing that could serve a client, or a server itself.
    """
    cls = target if isinstance(target, type) else type(target)  # asks no proxy for attributes
    for methods, why in _NO_HANDLERS.items():
        if all(callable(getattr(cls, name, None)) for name in methods):
            raise SettingError("handler", target, why)
    if isinstance(target, type):
        if issubclass(target, socketserver.DatagramRequestHandler):
            raise SettingError("handler", target, "serves datagrams; this is a TCP server")
        if issubclass(target, socketserver.BaseRequestHandler):
            return Kind.REQUEST_HANDLER
    elif not callable(target):
        raise SettingError("handler", target, "cannot be called; give handle(socket, address)")
    elif callable(getattr(target, "wsgi_app", None)):  # Flask, and what resembles it
        return Kind.WSGI
    try:
        signature = inspect.signature(target)  # a class's is its constructor's
        if isinstance(target, type):
            signature.bind(None, None)
    except (TypeError, ValueError):
        if isinstance(target, type):
            raise SettingError(
                "handler",
                target,
                "is a class that is no socketserver.BaseRequestHandler and is not seen to take "
                "(socket, address) or (environ, start_response); if it does, say so by --kind",
            ) from None
        return Kind.CALLABLE  # a builtin without a signature
    names = list(signature.parameters)
    if names[:1] == ["environ"] or names[1:2] == ["start_response"]:  # PEP 3333's names
        return Kind.WSGI
    return Kind.CALLABLE


def make_server(
    target: Any, listener: Any, kind: Kind | None = None, **settings: Any
) -> StreamServer | WSGIServer:
    """The server that serves ``target``; not started.

    :param listener: as for :class:`gserver.StreamServer`.
    :param kind: what ``target`` was written for; None: :func:`detect` it.
    :param settings: of the server's constructor.
    :raises SettingError: the two do not go together.
    """
    kind = detect(target) if kind is None else kind
    match kind:
        case Kind.WSGI:
            return WSGIServer(listener, target, **settings)
        case Kind.REQUEST_HANDLER:
            if detect(target) is not Kind.REQUEST_HANDLER:
                raise SettingError("handler", target, "is no socketserver.BaseRequestHandler")
            handler = _RequestHandler(target)
            server = handler.server = StreamServer(listener, handler, **settings)
            return server
        case Kind.BLOCKING:
            if _TLS_ARGUMENTS & settings.keys():
                raise SettingError("kind", kind, "a blocking handler cannot be given a TLS socket")
            server = ThreadServer(listener, target, **settings)
            if server.max_connections is None:
                raise SettingError("kind", kind, "needs max_connections: a thread a connection")
            return server
        case Kind.CALLABLE:
            return StreamServer(listener, target, **settings)


# ---- socketserver ------------------------------------------------------------------------------


class _RequestHandler:
    """A request handler class as a handler, and what its instances find as ``self.server``: the
    attributes of socketserver's own, and of http.server's, that describe it. It cannot be told
    to shut down."""

    server: StreamServer

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        self.RequestHandlerClass: Any = handler

    def __call__(self, sock: Any, address: Any) -> None:
        self.RequestHandlerClass(sock, address, self)
        try:
            sock.shutdown(_socket.SHUT_WR)  # as socketserver ends a connection
        except OSError:
            pass  # the peer was first

    @property
    def socket(self) -> Any:
        return self.server.socket

    @property
    def server_address(self) -> Any:
        return self.socket.getsockname()

    @property
    def server_name(self) -> str:
        return str(self.server_address[0])

    @property
    def server_port(self) -> int:
        return int(self.server_address[1])
