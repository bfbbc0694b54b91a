"""A listener of the program under the cap: what its ``accept()`` finds.

Clients reach the program in two ways. With room, its own ``accept()`` takes them from the
kernel's queue, one at a time, as without us. While the cap is full a watcher of ours takes them
(the *overload watcher*), so that they get their verdict even when the program is not accepting;
a candidate that finds room after all waits in ``_ready`` for the program's next ``accept()``.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import gevent

from gserver.accept import AcceptLoop
from gserver.admission.verdict import Reason, Receipt
from gserver.candidates import MAX_REJECTIONS_PER_TURN
from gserver.legacy.descriptors import raise_again
from gserver.legacy.handshakes import Handshakes
from gserver.legacy.holders import Followed, Holders
from gserver.legacy.prefork import Prefork
from gserver.net.keepalive import set_inherited
from gserver.net.listeners import describe, system_backlog
from gserver.net.rejection import Rejection
from gserver.net.reply import Reply
from gserver.timeouts import Timeouts

__all__ = ["Listener", "nobody_there"]

log = logging.getLogger("gserver")

_NOBODY: Final = os.strerror(errno.EAGAIN)
_WAKE_AGAIN_S: Final = 0.05
_DELAYS: Final = (0.01, 1.0)  # gevent's own for its servers


def nobody_there() -> BlockingIOError:
    """What a non-blocking ``accept()`` raises when there is no client for the program."""
    return BlockingIOError(errno.EAGAIN, _NOBODY)


class Listener(Followed, AcceptLoop):
    """One capped listener.

    :param fd: listening; stays the program's.
    :param handshake_timeout: seconds a TLS client has for its handshake; None: for ever.
    :param timeouts: what of them the kernel watches by itself is set on the listener.
    """

    def __init__(
        self,
        fd: int,
        holders: Holders,
        rejections: Mapping[Reason, Rejection],
        handshake_timeout: float | None,
        timeouts: Timeouts,
    ) -> None:
        Followed.__init__(self)
        raise_again()
        self._holders = holders
        self._server: Callable[[], Any] = _none  # of TLS, which may be forgotten
        self._ready: deque[tuple[int, Any]] = deque()  # admitted: descriptor and address
        self._handshakes = Handshakes(holders.limiter, handshake_timeout, self.wake)
        self._full = False  # as the limiter told last
        self._rejections = rejections
        self._told_of_text = False
        self._prefork = Prefork()
        self._inherited = False  # by a fork, and not accepted on since
        self._accepts = False  # this process has called accept() on it
        self._asked = False  # inside the program's accept(), or looking for it
        self._closing = False  # a descriptor is about to be closed
        self._last_error: OSError | None = None
        self._error: OSError | None = None  # what the program's accept() is to raise
        self._wake_timer: Any = None
        AcceptLoop.__init__(
            self,
            _view(fd),
            holders.limiter,
            self.admit,
            rejections,
            self._fatal_error,
            backlog=system_backlog(),
            max_accept=MAX_REJECTIONS_PER_TURN,
            delays=_DELAYS,
        )
        self._take_descriptors()
        holders.follow(self, fd)
        self._address = self._listener.getsockname()
        set_inherited(self._listener, timeouts)
        self.deepen()
        holders.limiter.on_full(self._overload)

    def is_for_tls(self, server: Callable[[], Any]) -> None:
        """The program speaks TLS here: tell if those who are turned away would be told in text.

        :param server: a weak reference to the listening ``SSLSocket``. Where the handshake is its
            own business, whoever is admitted begins with it at once.
        """
        self._server = server
        how = self._rejections[Reason.CAPACITY]
        if isinstance(how, Reply) and not how.script.tls and not self._told_of_text:
            self._told_of_text = True
            log.warning(
                "%s speaks TLS, whose clients do not understand a reply in plain text; they do "
                "understand the reply tls-alert, close and reset",
                describe(self._address),
            )

    def lingering_descriptors(self) -> list[int]:
        """Those of clients that are taking a busy reply."""
        return [fd for linger in self.lingers for fd in linger.descriptors()]

    def deepen(self) -> None:
        """Make the kernel's queue as long as the system allows, whatever the program asked for:
        clients that overflow it are told nothing (G2)."""
        self._listener.listen(self._backlog)

    @property
    def address(self) -> Any:
        """As ``getsockname()`` gives it."""
        return self._address

    @property
    def view(self) -> Any:
        """A socket object on it, to look at."""
        return self._listener

    # ---- the program's side ----------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the program's next ``accept()`` finds an admitted client at once."""
        return bool(self._ready or self._handshakes.done)

    def only_watches(self) -> bool:
        """Whether this process never accepts, and children of its do: it is told what the kernel
        says, and takes nothing. What it had taken by then is ended here: it would wait for ever
        for this process's accept()."""
        if self._accepts or not self._prefork.children_accept:
            return False
        if self.ready:
            log.warning(
                "%s: process %d selects on it and its children accept: it closes the client that "
                "it had taken for itself by then",
                describe(self._address),
                os.getpid(),
            )
            self._end_waiting()
            self.wake()
        return True

    def accept(self, raw: Any = None) -> tuple[int, Any]:
        """The next admitted client, which holds its slot: descriptor and address.

        :raises BlockingIOError: there is none now.
        :raises OSError: what ``accept()`` raised for a listener that is no good any more.
        """
        ready = self._ready
        self._accepts = True
        if not ready:
            if self._error is None:
                self._take_for_program()
            if not ready:
                error, self._error = self._error, None
                raise error or nobody_there()
        return ready.popleft()

    def look(self) -> bool:
        """Take clients from the kernel's queue as :meth:`accept` does, but leave the admitted one
        to it. Whether it has something to tell: a client, an error, or that the listener is
        closed. That a client has come says nothing: it may be one to turn away."""
        if self._closing:
            return True
        if not self._ready and self._error is None:
            self._take_for_program()
        return self.ready or self._error is not None

    def _take_for_program(self) -> None:
        if self._full:
            self._holders.sweep()
        if self._inherited:
            self._inherited = False
            raise_again()
            self._prefork.accepts(self._address, self._limiter.max_connections)
        self._asked = True
        try:
            if self._full:
                self.take(MAX_REJECTIONS_PER_TURN)
            else:
                self._take_one()
        finally:
            self._asked = False

    def _take_one(self) -> None:
        """:meth:`take` one client where there is room: on the path of every one."""
        while True:
            try:
                client = self._listener._accept()
                break
            except BlockingIOError:
                return
            except OSError as error:
                if not self._go_on_after(error):
                    return
        got_in = self._limiter.arrived(client, self)
        if not isinstance(got_in, bool):  # an ending may make room: its source's, for one
            self._limiter.hold(deque((client,)), self, quiet=False)

    def accept_secure(self, server: Any) -> tuple[Any, Any]:
        """The next client whose handshake is done: its TLS socket and its address.

        :param server: the listening ``SSLSocket``, whose context and settings hold.
        :raises BlockingIOError: there is none now.
        """
        done = self._handshakes.done
        while not done:
            fd, address = self.accept()
            self._handshakes.begin(fd, address, server)
        return done.popleft()

    # ---- AcceptLoop ------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._limiter.full:
            self._holders.sweep()
            super()._readable()
        else:
            self.stop()  # there is room: the program's own accept() sees the client

    def admit(self, fd: int, address: Any, receipt: Receipt, _header_bytes: int) -> None:
        try:
            self._holders.accepted(fd, address, receipt)
        except BaseException:
            _socket.close(fd)
            raise
        server = self._server()
        if server is not None and server.do_handshake_on_connect:
            self._handshakes.begin(fd, address, server)
            return
        self._ready.append((fd, address))
        if not self._asked:
            self.wake()

    def _take_descriptors(self) -> None:
        """The few that accepting at the cap needs, now: then there may be none left."""
        self.start()
        self.stop()

    def _overload(self, full: bool) -> None:
        self._full = full
        if full:
            self.start()  # it stops itself when there is room and a client comes

    def _go_on_after(self, error: OSError) -> bool:
        self._last_error = error
        return super()._go_on_after(error)

    def _back_off(self) -> None:
        if self._asked:
            self._error = self._last_error  # the program deals with it, as without us
        else:
            super()._back_off()

    def _fatal_error(self, error: OSError) -> None:
        if self._asked:
            self._error = error
        self.stop()  # else the program's next accept() tells it

    # ---- waking the program ----------------------------------------------------------------

    def wake(self) -> None:
        """Wake whatever waits in gevent for this listener: accept, select, a watcher. Again and
        again until the client is fetched: a program may begin to wait at any time."""
        if not self.ready:
            if self._wake_timer is not None:
                self._wake_timer.stop()
                self._wake_timer.close()
                self._wake_timer = None
            return
        loop = gevent.get_hub().loop
        for fd in self.owners:
            loop.closing_fd(fd)  # feeds an event to all watchers of fd, which is all we want
        if self._wake_timer is None:
            self._wake_timer = loop.timer(_WAKE_AGAIN_S, _WAKE_AGAIN_S, False)
            self._wake_timer.start(self.wake)

    # ---- Followed --------------------------------------------------------------------------

    def closing(self) -> None:
        self._closing = True
        self.stop()  # no watcher of ours is to outlive the descriptor, or put its close off

    def closed(self, fd: int) -> None:
        super().closed(fd)
        self._closing = not self.owners
        if self.owners and fd == self._listener.fileno():  # a duplicate is still there
            self._listener.detach()
            self._listener = _view(next(iter(self.owners)))
            if self._limiter.full:
                self.start()

    def gone(self) -> None:
        self._holders.forget(self)
        self._limiter.off_full(self._overload)
        self.close()
        self._listener.detach()
        self._end_waiting()
        self.wake()

    def _end_waiting(self) -> None:
        """Nobody will serve those who are admitted and wait here."""
        self._handshakes.end()
        while self._ready:
            self._holders.unserved(self._ready.popleft()[0])

    def forked(self) -> None:
        """In a forked child: the clients that wait here are the parent's."""
        self._prefork.forked()
        self._inherited = True
        self._accepts = False
        turn_away, self.turn_away = self.turn_away, dict.fromkeys(Reason, _socket.close)
        self.close()
        self.turn_away = turn_away
        for linger in self.lingers:
            linger.close_all()
        self._take_descriptors()
        self._handshakes.forked()
        while self._ready:
            _socket.close(self._ready.popleft()[0])
        self.wake()


def _none() -> None:
    """The TLS socket of a listener without TLS."""


def _view(fd: int) -> _socket.socket:
    """A socket object on ``fd`` that is to be detached, never closed: the program owns it."""
    return _socket.socket(fileno=fd)
