"""gevent's sockets, taught whose descriptor is whose: where the cap enters the program.

gevent keeps a raw ``_socket.socket`` inside each of its sockets. Ours take that one's place, so
that every way of making, closing, detaching and forgetting a socket passes here, whatever
library does it.
"""

from __future__ import annotations

import _socket
import sys
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import gevent
import gevent._socket3  # type: ignore[import-not-found]  # private: no stubs
import gevent.socket
import gevent.ssl

from gserver.legacy import handshakes, moves
from gserver.legacy.holders import Followed, Holders
from gserver.legacy.listener import Listener, nobody_there
from gserver.legacy.timed import patch as patch_timed

__all__ = ["patch"]

_raw: Final = _socket.socket
_raw_init: Final = _raw.__init__
_UNCAPPED: Final = Followed()  # a listener that is not the service

Found = TypeVar("Found")

_holders: Holders | None = None
_listening: Callable[[Any, FrameType | None], Listener | None]


if TYPE_CHECKING:
    _Mixin = _socket.socket
else:
    _Mixin = object  # each base has slots of its own: only one of them may be a real one


class _Follows(_Mixin):
    """What our raw sockets do more than their base class. ``followed`` is what they lead to:
    None for most sockets, a slot, or a listener."""

    if not TYPE_CHECKING:
        __slots__ = ()
    followed: Followed | None

    def close(self) -> None:
        followed = self.followed
        if followed is None:
            _raw.close(self)
            return
        self.followed = None
        fd = _raw.fileno(self)
        if followed.__class__ is Listener:
            followed.closing()
        try:
            _raw.close(self)
        finally:
            followed.closed(fd)

    def detach(self) -> int:
        followed, self.followed = self.followed, None
        fd = _raw.detach(self)
        if followed is not None:
            followed.detached(fd)
        return fd

    def __del__(self, *, raw: Any = _raw) -> None:  # at exit our globals may be gone
        followed = self.followed
        if followed is None:
            raw.__del__(self)
            return
        self.followed = None
        fd = raw.fileno(self)
        raw.__del__(self)  # closes it if it is open, and warns
        if followed is not None and _holders is not None:
            _holders.finalized(followed, fd)

    def listen(self, *backlog: int) -> None:
        _raw.listen(self, *backlog)
        if self.followed is None:
            self.followed = _listening(self, sys._getframe(1)) or _UNCAPPED
            if isinstance(self, _TLSSocket) and isinstance(self.followed, Listener):
                self.followed.is_for_tls(self._sslsock)
        elif isinstance(self.followed, Listener):
            self.followed.deepen()

    def _accept(self) -> tuple[int, Any]:
        followed = self.followed
        if followed is None:  # it was listening when this process got it
            followed = self.followed = _listening(self, None) or _UNCAPPED
        return followed.accept(self)


class _Socket(_Follows, gevent._socket3._wrefsocket):  # type: ignore[misc]  # no stubs
    __slots__ = ("followed",)

    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        self.followed = None
        _raw_init(self, family, type, proto, fileno)
        if fileno is not None and _holders is not None:
            self.followed = _holders.adopt(fileno)


class _TLSSocket(_Follows, gevent.ssl._contextawaresock):  # type: ignore[misc,name-defined]
    __slots__ = ("followed",)

    def __init__(
        self, family: int, type: int, proto: int, fileno: int | None, sslsocket: Any
    ) -> None:
        self.followed = None
        super().__init__(family, type, proto, fileno, sslsocket)  # type: ignore[call-arg]
        if fileno is not None and _holders is not None:
            self.followed = _holders.adopt(fileno)
            if isinstance(self.followed, Listener):
                self.followed.is_for_tls(sslsocket)


def patch(
    holders: Holders,
    listening: Callable[[Any, FrameType | None], Listener | None],
    handshake_timeout: float | None,
    *,
    timed: bool = False,
) -> None:
    """Have every gevent socket made from now on followed. Once in a process, for good.

    :param listening: asked, for each socket that begins to listen and with the frame that calls
        ``listen()``, for its :class:`Listener`; None when it is not the service.
    :param handshake_timeout: seconds for a TLS handshake; None: for ever.
    :param timed: slots are :class:`gserver.legacy.timed.TimedSlot`.
    """
    global _holders, _listening
    _holders, _listening = holders, listening
    plain: Any = gevent._socket3.socket
    plain._gevent_sock_class = _Socket
    gevent.ssl._contextawaresock = _TLSSocket  # type: ignore[attr-defined]
    plain._accept = _accept_or_wait
    if timed:
        patch_timed(plain)
    _patch_close(plain)
    _patch_secure_accept(gevent.ssl.SSLSocket)
    handshakes.patch(gevent.ssl.SSLSocket, holders.limiter, handshake_timeout)
    moves.patch(holders)


# ---- accept and close ------------------------------------------------------------------------


def _listener_of(sock: Any) -> Listener | None:
    raw = sock._sock
    followed = getattr(raw, "followed", None)
    if followed.__class__ is Listener:
        return followed
    if followed is None and isinstance(raw, _Follows):
        followed = raw.followed = _listening(raw, None) or _UNCAPPED
    return followed if isinstance(followed, Listener) else None


def _accept_or_wait(self: Any) -> tuple[int, Any]:
    """``gevent.socket.socket._accept``, which every ``accept()`` passes."""
    listener = _listener_of(self)
    if listener is None:
        found: tuple[int, Any] = self._sock._accept()
        return found
    try:
        return listener.accept()
    except BlockingIOError:
        pass
    return _wait(self, listener, listener.accept)


def _wait(sock: Any, listener: Listener, accept: Callable[[], Found]) -> Found:
    """What ``accept()``, which has just found nothing, finds later; or what it raises.

    A client that was there and is turned away leaves the program where it was: a non-blocking
    accept finds nothing, one with a timeout waits for what is left of it, a blocking one waits.
    """
    timeout = sock.timeout
    deadline = None if timeout is None else monotonic() + timeout
    if timeout == 0.0:
        raise nobody_there()
    while True:
        if deadline is None:
            sock._wait(sock._read_event)
        else:
            left = deadline - monotonic()
            if left <= 0.0:
                raise TimeoutError("timed out")
            gevent.socket.wait(sock._read_event, left, TimeoutError("timed out"))
        try:
            return accept()
        except BlockingIOError:
            pass


def _patch_close(plain: Any) -> None:
    drop = plain._drop_ref_on_close

    def _drop_ref_on_close(self: Any, raw: Any) -> None:
        followed = getattr(raw, "followed", None)
        if followed.__class__ is Listener:
            followed.closing()  # before gevent looks whether anybody watches the descriptor
        drop(self, raw)

    plain._drop_ref_on_close = _drop_ref_on_close


# ---- TLS ---------------------------------------------------------------------------------------


def _patch_secure_accept(secure: Any) -> None:
    accept = secure.accept

    def secure_accept(self: Any) -> tuple[Any, Any]:
        listener = _listener_of(self)
        if listener is None or not self.do_handshake_on_connect:
            found: tuple[Any, Any] = accept(self)
            return found
        try:
            return listener.accept_secure(self)
        except BlockingIOError:
            pass
        return _wait(self, listener, lambda: listener.accept_secure(self))

    secure.accept = secure_accept
