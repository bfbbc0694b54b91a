"""The header room: proxies' clients, each with a slot already, that have yet to say who they are.

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
from time import monotonic
from typing import Any, Final

import gevent
from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.admission.penalties import Offence
from gserver.admission.sources import PROXY
from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected
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
    """One of them. Stands in the pool where its connection's greenlet will, and has what a Pool
    asks of its members.

    :ivar address: the proxy's, as ``accept()`` gave it.
    :ivar found: the header, or why there is none; None while it is being read.
    :ivar cancel_reading: ends the reading with :attr:`Fault.CANCELLED`.
    """

    __slots__ = ("_links", "_room", "address", "cancel_reading", "fd", "found", "front")

    dead: Final = False  # as of a greenlet: for the audit, and for whoever looks into the pool
    exception: Final = None  # for Pool.join(raise_error=True)

    def __init__(self, fd: int, address: Any, front: Front, room: HeaderRoom) -> None:
        self.fd = fd
        self.address = address
        self.front = front
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


#: A guest, its address and its verdict: see :class:`HeaderRoom`.
Decided = Callable[[Guest, Any, Receipt | Rejected | None], None]


class HeaderRoom:
    """Guests in the order of their coming. As many as there are slots, at most.

    :param share: how many may be rejected in a turn of the loop.
    :param decided: called once for each guest, but for those that :meth:`leave`: with the guest,
        its address and its verdict. The address is the client's, or the proxy's where the header
        has none or there is no header; None as verdict: it has left. The callback owns the
        descriptor from then on, and must :meth:`release` the guest.
    """

    def __init__(
        self, gate: Gate, pool: Pool, counters: Counters, share: TurnShare, decided: Decided
    ) -> None:
        self._gate = gate
        self._pool = pool
        self._counters = counters
        self._share = share
        self._decided = decided
        self._guests: dict[Guest, None] = {}
        self._ready: deque[Guest] = deque()
        self._timer = OneShot(self._decide_some)

    def __len__(self) -> int:
        return len(self._guests)

    def descriptors(self) -> list[int]:
        """Those that the guests hold."""
        return [guest.fd for guest in self._guests]

    def enter(self, fd: int, address: Any, front: Front) -> None:
        """Take a slot, and begin to read the header. When this raises, ``fd`` is closed and no
        slot is held."""
        guest = Guest(fd, address, front, self)
        try:
            slots.take(self._pool, guest)
            self._guests[guest] = None
            guest.cancel_reading = front.read_header(fd, lambda found: self._found(guest, found))
        except BaseException:
            try:
                _socket.close(fd)
            finally:
                self.release(guest)
            raise

    def release(self, guest: Guest) -> None:
        """Give its slot back."""
        self._guests.pop(guest, None)
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
        try:
            while self._ready and budget:
                guest = self._ready.popleft()
                address, verdict = self._classify(guest)
                if not isinstance(verdict, Receipt):
                    budget -= 1
                    self._share.spend(1)
                self._decided(guest, address, verdict)
        finally:
            if self._ready:
                self._timer.after(0.0)

    def _classify(self, guest: Guest) -> tuple[Any, Receipt | Rejected | None]:
        found, address, gate = guest.found, guest.address, self._gate
        if isinstance(found, Header):
            if found.source is not None:
                address = found.source
            source, others = gate.source(address), len(self._pool) - 1
            return address, gate.classify(source, monotonic(), in_use=others)
        if found is None or found is Fault.CANCELLED:  # killed
            return address, _DRAINING
        faults = self._counters.header_faults
        faults[found] = faults.get(found, 0) + 1
        if found is Fault.CLOSED:  # as load balancers do to see whether a port is open
            return address, None
        log.debug("no PROXY header from %s: %s", describe_peer(address), found)
        gate.note_offence(PROXY, Offence.HEADER, monotonic())
        return address, _HEADER


def _no_reading() -> None:
    """Before it has begun, and when it is over."""
