"""Clients that come by a proxy, until they are as those that came by themselves.

The PROXY protocol is spoken in two steps. At first a slot is taken for whoever comes, if there is
one: until their headers have been read (``header_room.py``) they are all alike to the rules. Then
who the client is decides whether it may have that slot. From there on only the size of its header
is remembered, until its verdict.
"""

from __future__ import annotations

import _socket
import logging
from collections import deque
from collections.abc import Callable
from itertools import groupby
from time import monotonic
from typing import Any

from gevent.pool import Pool

from gserver.admission.gate import Gate
from gserver.admission.penalties import Offence
from gserver.admission.sources import PROXY
from gserver.admission.verdict import Reason, Receipt, Rejected
from gserver.admission.waiting import Waiter
from gserver.candidates import MAX_CANDIDATES, Candidates
from gserver.front import Client, Front
from gserver.header_room import Guest, HeaderRoom, Verdict
from gserver.net.listeners import describe_peer
from gserver.occupancy import Occupancy
from gserver.rejection_log import RejectionLog
from gserver.stats import Counters, Ending

__all__ = ["ProxiedClients"]

log = logging.getLogger("gserver")


class ProxiedClients:
    """Those of one limiter, which does the rest with them as with all others:

    :param admit: called with the descriptor, address, front and receipt of one that is admitted;
        the slot it had has just been given back.
    :param joined: called when one more waits.
    :param turn_away: called with the descriptor, address and front of one that is not admitted,
        and the reason; it is counted here.
    :param hold: called with some, in their order, that came by the same front and are to be
        rejected unless endings under way make room for them.

    :ivar room: those who have yet to say who they are.
    :ivar named: by its descriptor, the size of the header of each that has said it and has no
        verdict yet. Empty where no proxies are: to be looked at before :meth:`forget` is called.
    """

    def __init__(
        self,
        pool: Pool,
        gate: Gate,
        counters: Counters,
        candidates: Candidates,
        occupancy: Occupancy,
        rejection_log: RejectionLog,
        *,
        admit: Callable[[int, Any, Front, Receipt], None],
        joined: Callable[[], None],
        turn_away: Callable[[int, Any, Front, Reason], None],
        hold: Callable[[deque[Client], Front], None],
    ) -> None:
        self._pool = pool
        self._gate = gate
        self._counters = counters
        self._candidates = candidates
        self._occupancy = occupancy
        self._log = rejection_log
        self._admit = admit
        self._joined = joined
        self._turn_away = turn_away
        self._hold = hold
        self.room = HeaderRoom(
            pool,
            counters,
            candidates.share,
            self._classify,
            self._note_bad_header,
            self._decided,
            self._hold_guests,
        )
        self.named: dict[int, int] = {}

    def is_unnamed(self, fd: int, front: Front) -> bool:
        """Whether nobody knows yet who that client is."""
        return front.proxies is not None and fd not in self.named

    def forget(self, fd: int) -> int:
        """A client has its verdict: the size of its header; 0: it came by itself."""
        return self.named.pop(fd, 0)

    def arrived(self, fd: int, address: Any, front: Front) -> bool | Rejected:
        """Take a slot for one just accepted, and begin to find out who it is. True: it has one,
        or waits for one. Else a verdict that only endings under way could change."""
        place = self._gate.reserve_or_wait(
            (fd, address, front),
            monotonic(),
            in_use=len(self._pool),
            ahead=len(self._candidates),
            unclassified=self.room.with_slot,
        )
        if isinstance(place, Rejected):  # capacity or wait_full: whoever it is, and not for long
            return place
        self._counters.accepted += 1
        if isinstance(place, Waiter):
            self._joined()
        else:
            self.read_header(fd, address, front)
        return True

    def read_headers_first(self, clients: deque[Client], front: Front) -> None:
        """Somebody may be evicted for a client, but not for just anybody: find out who they are
        without a slot. Takes them out of ``clients``, as long as there are not too many."""
        room = MAX_CANDIDATES - len(self._candidates) - self.room.without_slot
        while clients and room > 0:
            self.read_header(*clients.popleft(), front, slot=False)
            room -= 1

    def read_header(self, fd: int, address: Any, front: Front, *, slot: bool = True) -> None:
        """Find out who it is. ``slot``: one has been found for it, and is taken."""
        try:
            self.room.enter(fd, address, front, slot=slot)
        except BaseException as error:
            self._counters.admitted += 1  # as far as the books go
            self._counters.finished[Ending.NOT_STARTED] += 1
            if not isinstance(error, Exception):
                raise
            log.exception("connection from %s not started", describe_peer(address))
        self._candidates.admitted_one()
        self._occupancy.note()

    def leave(self, front: Front, verdict: Rejected) -> None:
        """A listener closes: who has yet to say who it is, and came by it, gets ``verdict``."""
        for guest in self.room.leave(front):
            self._decided(guest, verdict)

    # ---- what the header room asks for -----------------------------------------------------

    def _classify(self, guest: Guest) -> Receipt | Waiter | Rejected:
        """A client has said who it is."""
        gate, now = self._gate, monotonic()
        if gate.tries_out:
            self._log.watch_dry_run(now)
        client, source = (guest.fd, guest.address, guest.front), gate.source(guest.address)
        in_use, unclassified = len(self._pool), self.room.with_slot
        if guest.has_slot:
            return gate.classify_or_wait(
                client, source, now, in_use=in_use - 1, unclassified=unclassified - 1
            )
        return gate.decide_or_wait(
            client,
            source,
            now,
            in_use=in_use,
            ahead=len(self._candidates),
            unclassified=unclassified,
        )

    def _note_bad_header(self) -> None:
        self._gate.note_offence(PROXY, Offence.HEADER, monotonic())

    def _decided(self, guest: Guest, verdict: Verdict) -> None:
        """A client's header has come, or never will."""
        fd, address, front = guest.fd, guest.address, guest.front
        if isinstance(verdict, Receipt):
            # From hand to hand: nothing else runs between the two.
            self.room.release(guest)
            self.named[fd] = guest.header_bytes
            self._admit(fd, address, front, verdict)
        elif isinstance(verdict, Waiter):
            self.named[fd] = guest.header_bytes
            self.room.release(guest)
            self._joined()
        elif verdict is None:
            _socket.close(fd)
            self.room.release(guest)
            self._counters.abandoned += 1
        else:  # socket, then slot: as every connection ends
            self._turn_away(fd, address, front, verdict.reason)
            self.room.release(guest)
            self._counters.rejected[verdict.reason] += 1
            self._log.saw(address, verdict.reason)
        self._occupancy.changed()  # also after an admission: it may have failed to start

    def _hold_guests(self, guests: list[Guest]) -> None:
        """Clients have said who they are, and found no slot, or their source holds too many.
        Each gives back the slot that it may have, and goes on like one that came by itself."""
        for guest in guests:
            self.named[guest.fd] = guest.header_bytes
            self.room.release(guest)
        for front, some in groupby(guests, key=lambda guest: guest.front):
            self._hold(deque((g.fd, g.address) for g in some), front)
        self._occupancy.changed()
