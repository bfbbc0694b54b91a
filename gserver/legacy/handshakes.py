"""TLS handshakes of the program's clients, each with a deadline.

Those of a TLS listener run beside each other and beside the program (:class:`Handshakes`): in
``accept()`` itself one silent client would keep everybody else out. Those that the program does
by itself on a connection that holds a slot stay where they are (:func:`patch`).
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket

from gserver.admission.penalties import Offence
from gserver.connection import HandshakeFailed
from gserver.legacy.holders import Slot
from gserver.legacy.timed import TimedSlot
from gserver.limiter import Limiter
from gserver.stats import Ending
from gserver.tls import cooperative_wrap, handshake, left_silent

__all__ = ["Handshakes", "patch"]


class Handshakes:
    """Of the clients of one TLS listener.

    :param timeout: seconds for each; None: for ever.
    :param wake: called when one more client is in :attr:`done`.
    :ivar done: TLS socket and address of each client whose handshake is done.
    """

    def __init__(self, limiter: Limiter, timeout: float | None, wake: Callable[[], object]) -> None:
        self.done: deque[tuple[Any, Any]] = deque()
        self._limiter = limiter
        self._timeout = timeout
        self._wake = wake
        self._under_way: dict[gevent.Greenlet[..., None], GeventSocket] = {}

    def begin(self, fd: int, address: Any, server: Any) -> None:
        """With the admitted client ``fd``, which is ours from here on.

        :param server: the listening ``SSLSocket``, whose context and settings hold.
        """
        sock = GeventSocket(server.family, server.type, server.proto, fileno=fd)
        greenlet = gevent.Greenlet(self._shake_hands, sock, address, server)
        self._under_way[greenlet] = sock
        greenlet.rawlink(self._over)
        greenlet.start()

    def _over(self, greenlet: gevent.Greenlet[..., None]) -> None:
        sock: Any = self._under_way.pop(greenlet)
        if sock.fileno() >= 0:  # killed before it first ran
            sock._sock.followed.ending = Ending.KILLED
            sock.close()

    def _shake_hands(self, sock: Any, address: Any, server: Any) -> None:
        holder = _Socket(sock)
        slot = sock._sock.followed
        arguments = {"server_side": True, "suppress_ragged_eofs": server.suppress_ragged_eofs}
        done = False
        try:
            handshake(holder, cooperative_wrap(server.context), arguments, self._timeout)
            done = True
        except HandshakeFailed as error:
            slot.ending = error.ending
            if not error.silent:
                self._limiter.note_offence(address, Offence.HANDSHAKE)
        except gevent.GreenletExit:
            slot.ending = Ending.KILLED
        finally:
            if not done:
                holder.socket.close()
        if done:
            if isinstance(slot, TimedSlot):
                slot.header_bytes = holder.header_bytes
            holder.socket.do_handshake_on_connect = True
            self.done.append((holder.socket, address))
            self._wake()

    def end(self) -> None:
        """The listener is gone: end those under way, and those that nobody will serve."""
        gevent.killall(list(self._under_way), block=False)
        while self.done:
            sock, _ = self.done.popleft()
            sock._sock.followed.ending = Ending.KILLED
            sock.close()

    def forked(self) -> None:
        """In a forked child: they are all the parent's."""
        gevent.killall(list(self._under_way), block=False)
        while self.done:
            self.done.popleft()[0].close()


class _Socket:
    """gserver.tls.HoldsSocket."""

    __slots__ = ("header_bytes", "socket")

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        self.header_bytes = 0


def patch(secure: Any, limiter: Limiter, timeout: float | None) -> None:
    """Give the handshakes that the program does by itself a deadline: where it has no timeout it
    gets ours, since a silent client would hold the slot for ever. Once in a process, for good.

    :param secure: gevent's class of TLS sockets.
    :param timeout: seconds; None: for ever.
    """
    do_handshake = secure.do_handshake

    def secure_do_handshake(self: Any, *arguments: Any) -> None:
        slot: Any = getattr(self._sock, "followed", None)
        if not (self.server_side and isinstance(slot, Slot)):
            do_handshake(self, *arguments)
            return
        expired = TimeoutError("The handshake operation timed out")
        try:
            with gevent.Timeout(timeout if self.timeout is None else None, expired):
                do_handshake(self, *arguments)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise  # a non-blocking socket: it goes on
        except OSError as error:  # ssl.SSLError is one
            timed_out = isinstance(error, TimeoutError)
            failed = HandshakeFailed(
                str(error),
                timed_out=timed_out,
                silent=not timed_out and left_silent(self, error),
            )
            slot.ending = failed.ending
            if not failed.silent:
                limiter.note_offence(slot.address, Offence.HANDSHAKE)
            raise

    secure.do_handshake = secure_do_handshake
