"""The life of one admitted connection, and the only place where it ends.

The end is always the same, in one order, once, whatever brought it about: the socket is closed,
*then* the slot comes back, at once, from inside the ending greenlet: gevent's own link would give
it back only in a later callback of the loop, after the listener may have turned away the client
that has just closed and connected again (guarantee G3).
"""

from __future__ import annotations

import logging
import select
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

import gevent
import gevent.socket as socket_module
from gevent.greenlet import Greenlet
from gevent.monkey import get_original
from gevent.socket import socket as GeventSocket

from gserver import slots
from gserver.admission.penalties import Offence
from gserver.admission.verdict import Receipt
from gserver.deferred import DeferredStart
from gserver.limiter import Limiter
from gserver.net.keepalive import vanished
from gserver.net.listeners import describe_peer
from gserver.net.tcp_info import TcpInfo, read
from gserver.stats import Ending

__all__ = ["Connection", "HandshakeFailed"]

log = logging.getLogger("gserver")

_poll: Final = get_original("select", "poll")  # the patched one would switch greenlets


class HandshakeFailed(Exception):
    """The peer's TLS handshake did not succeed.

    :ivar timed_out: its time ran out.
    :ivar silent: the peer left before its first byte: that is no offence.
    """

    def __init__(self, problem: str, *, timed_out: bool = False, silent: bool = False) -> None:
        super().__init__(problem)
        self.timed_out = timed_out
        self.silent = silent

    @property
    def ending(self) -> Ending:
        """What the connection's end counts as."""
        if self.silent:
            return Ending.LEFT_SILENT
        return Ending.HANDSHAKE_TIMEOUT if self.timed_out else Ending.HANDSHAKE_FAILED


class Server(Protocol):
    """What a connection asks of its server."""

    def do_close(self, sock: Any, *args: Any) -> object: ...
    def is_reading(self, sock: Any) -> bool: ...


class Connection:
    """One admitted client: its socket, its greenlet, its slot.

    :ivar socket: what the handler reads and writes; ``tls.handshake`` sets it to the TLS socket
        once that owns the descriptor.
    :ivar address: the peer's, as ``accept()`` gave it.
    :ivar server: whose client it is; its ``do_close(socket, address)`` is called at the end, and
        ``is_reading(socket)`` may know of a handler that waits otherwise than in gevent's ways.
    :ivar greenlet: what holds the slot: the handler's greenlet, or a DeferredStart; None before
        the start and after the end.
    :ivar receipt: what the gate wants back at the end.
    :ivar header_bytes: of the bytes received, how many came before the client's own: the PROXY
        header, and from its end on the TLS handshake.
    :ivar admitted_at: when it was admitted, by ``time.monotonic``.
    :ivar ended: whether its end has begun.
    :ivar nudged: whether its handler has been shown an end-of-file by :meth:`nudge`.
    :ivar on_end: called with it once its slot is back, if set.

    From :meth:`start` or :meth:`defer` to its end it is in ``limiter.connections``.
    """

    __slots__ = (
        "_cause",
        "_limiter",
        "address",
        "admitted_at",
        "ended",
        "greenlet",
        "header_bytes",
        "nudged",
        "on_end",
        "receipt",
        "server",
        "socket",
    )

    def __init__(
        self,
        sock: GeventSocket,
        address: Any,
        receipt: Receipt,
        limiter: Limiter,
        server: Server,
        header_bytes: int = 0,
    ) -> None:
        self.socket: Any = sock
        self.address = address
        self.receipt = receipt
        self.header_bytes = header_bytes
        self._limiter = limiter
        self.server = server
        self.admitted_at = monotonic()
        self.ended = False
        self.nudged = False
        self.on_end: Callable[[Connection], object] | None = None
        self._cause: Ending | None = None
        self.greenlet: Any = None

    def start(self, body: Callable[..., object], *arguments: Any) -> None:
        """Take a slot and schedule ``body(self, *arguments)`` in a greenlet of the pool.

        :param body: serves the client. Whatever it does, it need not close the socket.

        When this raises, the socket is closed and no slot is held.
        """
        pool = self._limiter.pool
        greenlet = None
        try:
            greenlet = pool.greenlet_class(self._run, body, arguments)
            # Killed before it first ran, a greenlet runs nothing, but calls its links.
            greenlet.rawlink(self._never_ran)
            slots.take(pool, greenlet)
            self.greenlet = greenlet
            self._limiter.connections.add(self)
            greenlet.start()
        except BaseException:
            self.ended = True
            self._limiter.connections.discard(self)
            try:
                self._close_socket()
            finally:
                if greenlet is not None:
                    slots.give_back(pool, greenlet)
            raise

    def defer(self, body: Callable[..., object], *arguments: Any) -> None:
        """Take a slot, and :meth:`start` only when the client's first byte has come.

        When this raises, the socket is closed and no slot is held.
        """
        pool = self._limiter.pool
        holder = DeferredStart(self, body, arguments)
        try:
            slots.take(pool, holder)
            self.greenlet = holder
            self._limiter.connections.add(self)
            holder.wait()
        except BaseException:
            self.ended = True
            self._limiter.connections.discard(self)
            holder.cancel()
            try:
                self._close_socket()
            finally:
                slots.give_back(pool, holder)
            raise

    @property
    def deferred(self) -> bool:
        """Whether its handler has not been started, since the client has not said anything."""
        return isinstance(self.greenlet, DeferredStart)

    def begin(self, body: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """A deferred connection's first byte is here: a greenlet takes the slot, and starts."""
        pool, holder = self._limiter.pool, self.greenlet
        try:
            greenlet = pool.greenlet_class(self._run, body, arguments)
            greenlet.rawlink(self._never_ran)
            slots.hand_over(pool, holder, greenlet)
            self.greenlet = greenlet
            holder.cancel()
            greenlet.start()
        except BaseException as error:
            self._end(Ending.NOT_STARTED)
            if not isinstance(error, Exception):
                raise
            log.exception("connection from %s not started", describe_peer(self.address))

    def end_deferred(self, ending: Ending) -> None:
        """End it, unless its greenlet has started by now: then kill that."""
        if self.deferred:
            self._end(ending)
        else:
            self.kill()

    # ---- ended by us -----------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether its handler is seen to wait for its socket to be readable, at this moment: a
        greenlet in one of the socket's own methods, or as the server knows. Not one that waits
        in ``gevent.select``, or in a ``dup()`` of the socket."""
        watcher = getattr(self.socket, "_read_event", None)
        return (watcher is not None and watcher.active) or self.server.is_reading(self.socket)

    def tcp_info(self) -> TcpInfo | None:
        """What the kernel knows of it; None when the system cannot tell."""
        sock = getattr(self.socket, "_sock", None)
        return None if sock is None else read(sock)

    def nudge(self, cause: Ending | None = None) -> None:
        """Let the handler see an end-of-file after what has come so far, so that it ends by
        itself: a raw shutdown, for gevent's own would raise EBADF in whoever waits. A client
        whose handler has not started is ended at once. Under TLS OpenSSL answers it with an
        alert, unless the context has OP_IGNORE_UNEXPECTED_EOF.

        :param cause: what its ending counts as, however the handler takes it. The first counts.
        """
        self.nudged = True
        if self._cause is None:
            self._cause = cause
        if self.deferred:
            self._end(Ending.KILLED)
            return
        raw = getattr(self.socket, "_sock", None)
        try:
            if raw is not None:
                raw.shutdown(socket_module.SHUT_RD)
        except OSError:
            pass  # closed, detached, or the peer is gone: the handler will find out

    def kill(self) -> None:
        """Kill the handler, in a callback of the loop. Never blocks."""
        if self.greenlet is not None:
            self.greenlet.kill(block=False)

    def cut(self) -> None:
        """Shut the connection down both ways: for a handler that survived its kill."""
        raw = getattr(self.socket, "_sock", None)
        try:
            if raw is not None:
                raw.shutdown(socket_module.SHUT_RDWR)
        except OSError:
            pass  # as in nudge()

    # ---- its end ---------------------------------------------------------------------------

    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that are this connection's: for the audit."""
        return (self.socket.fileno(),)

    def _run(self, body: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        ending = Ending.RAISED
        try:
            body(self, *arguments)
            ending = Ending.RETURNED
        except gevent.GreenletExit:
            ending = Ending.KILLED
        except SystemExit as error:
            # gevent would throw it into the main greenlet: one handler could stop the server.
            ending = Ending.EXITED
            log.debug("handler of %s exited with %r", describe_peer(self.address), error.code)
        except KeyboardInterrupt:
            raise  # Ctrl-C lands wherever the program is: it is for the program, not for us
        except HandshakeFailed as error:
            ending = error.ending
            log.debug("TLS handshake with %s failed: %s", describe_peer(self.address), error)
            # Nudged by us in the midst of it (drain, eviction, lifetime), it is not the client's
            # fault; but that it had not said a word in time is.
            if not error.silent and (not self.nudged or self._cause is Ending.FIRST_BYTE_TIMEOUT):
                self._limiter.note_offence(self.address, Offence.HANDSHAKE)
        except BaseException as error:
            if isinstance(error, OSError) and self._peer_is_gone(error):
                ending = Ending.VANISHED if vanished(error) else Ending.PEER_GONE
                log.debug("%s went away: %s", describe_peer(self.address), error)
            else:
                log.exception("handler of %s failed", describe_peer(self.address))
        finally:
            self._end(ending)

    def _never_ran(self, _greenlet: Greenlet[..., Any]) -> None:
        self._end(Ending.KILLED)

    def _end(self, ending: Ending) -> None:
        """The end of a connection: socket, then slot. Once."""
        if self.ended:
            return
        self.ended = True
        if self._cause is not None:
            ending = self._cause
        if self.deferred:
            self.greenlet.cancel()
        raw = getattr(self.socket, "_sock", None)
        try:
            self._close_socket()
        finally:
            if raw is not None and raw.fileno() != -1:
                self._end_when_closed(raw, ending)
            else:
                self._give_back(ending)

    def _give_back(self, ending: Ending) -> None:
        greenlet, self.greenlet = self.greenlet, None  # no cycle for the collector to find
        self._limiter.ended(self, greenlet, self.receipt, ending)
        if self.on_end is not None:
            self.on_end(self)

    def _end_when_closed(self, raw: Any, ending: Ending) -> None:
        """Where another greenlet still waits for the socket, gevent closes the descriptor only
        after waking it, later in this turn or the next: the slot comes back after that."""
        timer = gevent.get_hub().loop.timer(0.0)

        def check() -> None:
            if raw.fileno() != -1:
                timer.start(check)
                return
            timer.stop()
            timer.close()
            self._give_back(ending)

        timer.start(check)

    def _close_socket(self) -> None:
        sock = self.socket
        # A makefile() that is still alive would put the close off to its own end.
        sock._io_refs = 0
        try:
            self.server.do_close(sock, self.address)
        except Exception:
            log.exception("closing the connection from %s failed", describe_peer(self.address))
        finally:
            try:
                sock.close()
            except OSError as error:
                # EBADF: the handler closed the descriptor behind the socket's back.
                log.debug("closing the connection from %s: %s", describe_peer(self.address), error)

    def _peer_is_gone(self, error: OSError) -> bool:
        """Whether an error that the handler let pass is this connection's own peer leaving.

        A ConnectionError may as well be of another connection that the handler uses: then this
        one is intact. poll(2) tells: POLLHUP or POLLERR on a socket that was reset or whose peer
        has closed both ways (tcp_poll in the kernel's net/ipv4/tcp.c).
        """
        known = isinstance(error, ConnectionError | TimeoutError | ssl.SSLError)
        if not known and not vanished(error):
            return False
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return True
        try:
            poll = _poll()
            poll.register(self.socket.fileno(), 0)  # POLLHUP and POLLERR are always reported
            return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
        except (OSError, ValueError):
            return False  # the handler has closed it
