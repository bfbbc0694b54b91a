"""The header room: proxies' clients that have yet to say who they are, with a slot in hand or not.

Most have a slot: at the cap nobody's header is read, since the verdict is the same for all. Only
where somebody may be evicted for them is it read first, to know for whom.

No greenlet is made for them: what holds the slot is a :class:`Guest`, and their headers are read
on callbacks of the loop (``gserver/net/proxy_protocol.py``). What is found is decided on in a
later callback, some each turn, so that a burst of headers that the rules refuse does not hold up
the admitted (G5).
"""

from __future__ import annotations

import _socket
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.pool import Pool

from gserver import slots
from gserver.admission.verdict import ENDINGS_MAKE_ROOM, REJECTED, Reason, Receipt, Rejected
from gserver.admission.waiting import Waiter
from gserver.candidates import TurnShare, iteration
from gserver.front import Front
from gserver.net.listeners import describe_peer
from gserver.net.proxy_header import Fault, Header
from gserver.one_shot import OneShot
from gserver.stats import Counters

__all__ = ["Guest", "HeaderRoom"]

log = logging.getLogger("gserver")

_DRAINING: Final = REJECTED[Reason.DRAINING]
_HEADER: Final = REJECTED[Reason.HEADER]


class Guest:
    """One of them. Stands in the pool where its connection's greenlet will, if it has a slot, and
    has what a Pool asks of its members.

    :ivar address: the client's once its header has told it; till then the proxy's, as
        ``accept()`` gave it.
    :ivar has_slot: whether it does.
    :ivar found: the header, or why there is none; None while it is being read.
    :ivar cancel_reading: ends the reading with :attr:`Fault.CANCELLED`.
    """

    __slots__ = (
        "_links",
        "_room",
        "address",
        "cancel_reading",
        "fd",
        "found",
        "front",
        "has_slot",
    )

    dead: Final = False  # as of a greenlet: for the audit, and for whoever looks into the pool
    exception: Final = None  # for Pool.join(raise_error=True)

    def __init__(self, fd: int, address: Any, front: Front, room: HeaderRoom) -> None:
        self.fd = fd
        self.address = address
        self.front = front
        self.has_slot = False
        self.found: Header | Fault | None = None
        self.cancel_reading: Callable[[], object] = _no_reading
        self._room = room
        self._links: list[Callable[[Any], object]] = []

    @property
    def header_bytes(self) -> int:
        """The size of its header, once there is one."""
        return self.found.size if isinstance(self.found, Header) else 0

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(self)``, in the hub, when this holds its slot no more."""
        self._links.append(callback)

    def unlink(self, callback: Callable[[Any], object]) -> None:
        if callback in self._links:
            self._links.remove(callback)

    def kill(self, exception: Any = None, block: bool = True, timeout: float | None = None) -> None:
        """End it, in a callback of the loop as a greenlet's kill does; never blocks. (A Pool
        still notes it as dying after this returns: it must not have left by then.)"""
        self._room.cancel(self)

    def left(self) -> None:
        """It holds its slot no more: tell whoever has linked."""
        links, self._links = self._links, []
        for link in links:
            gevent.get_hub().loop.run_callback(link, self)


#: What is decided on a guest; None: it has left.
Verdict = Receipt | Waiter | Rejected | None


class HeaderRoom:
    """Guests in the order of their coming. Who is decided on in one of these is out, but for its
    :meth:`release`, and its descriptor is the callback's:

    :param share: how many may be rejected in a turn of the loop.
    :param classify: asked for the verdict on a guest whose header has come.
    :param bad_header: called for each that had none, before its verdict.
    :param decided: called with a guest and its verdict.
    :param hold: called with those, in their order, that are to be rejected unless endings under
        way make room for them.

    :ivar with_slot: how many guests have a slot.
    """

    def __init__(
        self,
        pool: Pool,
        counters: Counters,
        share: TurnShare,
        classify: Callable[[Guest], Receipt | Waiter | Rejected],
        bad_header: Callable[[], object],
        decided: Callable[[Guest, Verdict], object],
        hold: Callable[[list[Guest]], object],
    ) -> None:
        self._pool = pool
        self._counters = counters
        self._share = share
        self._classify = classify
        self._bad_header = bad_header
        self._decided = decided
        self._hold = hold
        self.with_slot = 0
        self._guests: dict[Guest, None] = {}
        self._ready: deque[Guest] = deque()
        self._timer = OneShot(self._decide_some)

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def without_slot(self) -> int:
        """How many guests have none."""
        return len(self._guests) - self.with_slot

    def descriptors(self) -> list[int]:
        """Those that the guests hold."""
        return [guest.fd for guest in self._guests]

    def enter(self, fd: int, address: Any, front: Front, *, slot: bool) -> None:
        """Take a ``slot``, if so, and begin to read the header. When this raises, ``fd`` is
        closed and no slot is held."""
        guest = Guest(fd, address, front, self)
        try:
            if slot:
                slots.take(self._pool, guest)
                guest.has_slot = True
                self.with_slot += 1
            self._guests[guest] = None
            guest.cancel_reading = front.read_header(fd, lambda found: self._found(guest, found))
        except BaseException:
            try:
                _socket.close(fd)
            finally:
                self.release(guest)
            raise

    def release(self, guest: Guest) -> None:
        """Give its slot back, if it has one."""
        self._guests.pop(guest, None)
        if guest.has_slot:
            guest.has_slot = False
            self.with_slot -= 1
            slots.give_back(self._pool, guest)
        guest.left()

    def cancel(self, guest: Guest) -> None:
        """Have it decided on as :attr:`Fault.CANCELLED`, also if its header has just come; in a
        later callback, as ever."""
        if guest not in self._guests:
            return
        if guest.found is None:
            guest.cancel_reading()
        else:
            guest.found = Fault.CANCELLED

    def leave(self, front: Front) -> list[Guest]:
        """A listener closes: stop reading from the guests that came by it, and return them in
        their order. They are to be released."""
        leaving = [guest for guest in self._guests if guest.front is front]
        for guest in leaving:
            self.cancel(guest)
        self._ready = deque(guest for guest in self._ready if guest.front is not front)
        if not self._ready:
            self._timer.close()
        return leaving

    def _found(self, guest: Guest, found: Header | Fault) -> None:
        guest.found = found
        guest.cancel_reading = _no_reading  # it is over; and no cycle for the collector to find
        self._ready.append(guest)
        self._timer.after(0.0)

    def _decide_some(self) -> None:
        budget = self._share.left(iteration())
        held: list[Guest] = []
        try:
            while self._ready and budget:
                guest = self._ready.popleft()
                verdict = self._verdict(guest)
                if verdict in ENDINGS_MAKE_ROOM:
                    budget -= 1  # but not of the share: that is spent if it comes to it
                    held.append(guest)
                    continue
                if verdict is None or isinstance(verdict, Rejected):
                    budget -= 1
                    self._share.spend(1)
                self._decided(guest, verdict)
        finally:
            if self._ready:
                self._timer.after(0.0)
            # Their listener may have closed, for what a decision led to: then they have left.
            if held := [guest for guest in held if guest in self._guests]:
                self._hold(held)

    def _verdict(self, guest: Guest) -> Verdict:
        found = guest.found
        if isinstance(found, Header):
            if found.source is not None:
                guest.address = found.source
            return self._classify(guest)
        if found is None or found is Fault.CANCELLED:  # killed
            return _DRAINING
        faults = self._counters.header_faults
        faults[found] = faults.get(found, 0) + 1
        if found is Fault.CLOSED:  # as load balancers do to see whether a port is open
            return None
        log.debug("no PROXY header from %s: %s", describe_peer(guest.address), found)
        self._bad_header()
        return _HEADER


def _no_reading() -> None:
    """Before it has begun, and when it is over."""
