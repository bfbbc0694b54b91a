"""The limiter: one cap, its gate, its slots and its books. Servers may share one.

Everybody who is accepted comes through here: to a slot (``_admit``), to be turned away
(``_reject``), or to wait: a moment, for endings already under way (``candidates.py``), by the
rules' leave for a stated time (``waiting_room.py``), or until its proxy has said who it is
(``proxied.py``), and then as if it had come by itself. Every ending comes back here (``ended``).
"""

from __future__ import annotations

import _socket
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.penalties import Offence
from gserver.admission.sources import ANY, Source
from gserver.admission.verdict import ENDINGS_MAKE_ROOM, REJECTED, Reason, Receipt, Rejected
from gserver.admission.waiting import Waiter
from gserver.candidates import Candidates
from gserver.errors import SettingError
from gserver.eviction import Evictor, evict_longest
from gserver.front import Client, Front
from gserver.net.listeners import describe_peer
from gserver.occupancy import Occupancy
from gserver.proxied import ProxiedClients
from gserver.rejection_log import RejectionLog
from gserver.stats import Counters, Ending, Snapshot
from gserver.timeouts import check_seconds
from gserver.waiting_room import WaitingRoom

__all__ = ["Limiter"]

log = logging.getLogger("gserver")

_CAPACITY: Final = Reason.CAPACITY  # a global: an Enum's attribute takes longer to find
_DENIED: Final = REJECTED[Reason.DENIED]
_WAIT_TIMEOUT: Final = REJECTED[Reason.WAIT_TIMEOUT]


class Limiter:
    """One hard cap and its rules, for one server or shared by several (``limiter=…``).

    :param limits: the cap alone, a whole number of 1 or more, or all the rules.
    :param settle: seconds a candidate at the cap may wait for endings already under way.
        0: one turn of the loop, which is exact for handlers that return on end-of-file without
        yielding. A handler that needs longer to end wants about that long. Where clients may
        wait by the rules (``Limits.wait``), that is their settle. A candidate that leaves
        meanwhile is not looked for: it takes its turn, and its handler meets the end-of-file, or
        the reset, at once.
    :param pool: the Pool that counts; by default a new one of that size. Other work in it counts
        against the cap.
    :raises SettingError: a value that cannot be used.

    Nothing needs closing: it holds descriptors only while a server with candidates runs.
    """

    def __init__(
        self, limits: int | Limits, *, settle: float = 0.0, pool: Pool | None = None
    ) -> None:
        if not isinstance(limits, Limits):
            limits = Limits(max_connections=slots.check_cap(limits))
        if isinstance(settle, bool) or settle != 0:
            check_seconds(settle, "settle")
        if settle and limits.wait:
            raise SettingError("settle", settle, "goes without wait, which is at least as long")
        limits.check_early_drop()
        self.pool = Pool(limits.max_connections) if pool is None else pool
        self.gate = Gate.from_limits(limits)
        self.counters = Counters()
        #: What holds slots, for the audit. The pool, not this, is the count.
        self.connections: set[Any] = set()
        self._candidates = Candidates(
            self._decide_candidate, self._evict_for, self._candidates_asked, float(settle)
        )
        self._waiting = WaitingRoom(
            self._next_waiter,
            self.gate,
            self._candidates.share,
            self._admit_waiter,
            self._reject_waiter,
            self._abandon,
        )
        self._occupancy = Occupancy(
            self.pool,
            self.gate,
            self.counters,
            self._candidates,
            self._waiting,
            lambda: len(self.connections) + self._headers.with_slot,
        )
        self._log = RejectionLog(
            self._occupancy.look, self.counters, self.gate.would_reject, self.gate.source
        )
        self._proxied = ProxiedClients(
            self.pool,
            self.gate,
            self.counters,
            self._candidates,
            self._occupancy,
            self._log,
            admit=self._admit,
            joined=self._joined,
            turn_away=self._turn_away,
            hold=self._hold_named,
        )
        self._headers = self._proxied.room
        #: Of these servers' connections one may be ended for a candidate, if idle long enough.
        self.evictors: list[Evictor] = []
        self._servers = 0

    # ---- the count -----------------------------------------------------------------------

    @property
    def max_connections(self) -> int:
        """The cap. Set it at any time: raising admits waiting candidates at once; lowering
        admits nobody until enough have left, and ends nobody.

        :raises SettingError: (when set) it is no whole number of 1 or more, or not more than
            ``Limits.reserved``; nothing has changed.
        """
        return self.gate.max_connections

    @max_connections.setter
    def max_connections(self, value: int) -> None:
        self.gate.resize(slots.check_cap(value))
        slots.resize(self.pool, value)
        self._occupancy.changed()

    @property
    def limits(self) -> Limits:
        """The rules, with the cap as it is. Set them at any time: they hold for clients from now
        on, and those admitted already count as the new rules would; nobody is ended.

        :raises SettingError: (when set) no Limits, ``wait`` beside settle, or while a server
            refuses or evicts, or an ``early_drop`` that would never be used; nothing has changed.
        """
        return self.gate.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if not isinstance(limits, Limits):
            raise SettingError("limits", limits, "must be Limits(...)")
        if self.settle and limits.wait:
            raise SettingError("wait", limits.wait, "goes without settle")
        if limits.wait and self.evictors:
            raise SettingError("wait", limits.wait, "goes without evict_idle")
        if limits.wait and self.refuses:
            raise SettingError(
                "wait", limits.wait, "goes without Refuse(), which leaves nobody to wait"
            )
        now = self.limits
        if (limits.early_drop, limits.max_connections) != (now.early_drop, now.max_connections):
            limits.check_early_drop()
        slots.resize(self.pool, limits.max_connections)
        self.gate.replace(limits)
        for connection in self.connections:
            source = self._source(connection.address)
            connection.receipt = self.gate.recount(connection.receipt, source)
        for waiter in self.gate.waiters():
            fd, address, front = waiter.client
            # Of others nobody knows yet who they are, and they count for nobody.
            if not self._proxied.is_unnamed(fd, front):
                source = self._source(address)
                waiter.receipt = self.gate.recount(waiter.receipt, source)
        self._occupancy.changed()
        self._waiting.rules_changed()

    @property
    def settle(self) -> float:
        """Seconds a candidate at the cap may wait."""
        return self._candidates.settle

    @property
    def refuses(self) -> bool:
        """Whether a server that is open refuses while the cap is full."""
        return self._occupancy.watched

    @property
    def full(self) -> bool:
        return self.gate.full(len(self.pool))

    @property
    def pending(self) -> int:
        """Candidates, and proxies' clients whose header is being read: no verdict yet."""
        return len(self._candidates) + len(self._headers)

    def descriptors(self) -> list[int]:
        """Those of clients that have not been admitted yet."""
        rooms = self._candidates, self._waiting, self._headers
        return [fd for room in rooms for fd in room.descriptors()]

    def snapshot(self) -> Snapshot:
        """The books at this instant."""
        self._occupancy.note()  # other work in the pool does not tell
        return self.counters.snapshot(
            cap=self.gate.max_connections,
            active=len(self.connections),
            occupied=len(self.pool),
            pending=self.pending,
            reading=self._headers.with_slot,
            waiting=len(self._waiting),
            gate=self.gate.figures(),
            now=monotonic(),
        )

    def on_full(self, callback: Callable[[bool], object]) -> None:
        """Call ``callback`` with True whenever the last slot is taken, with False whenever one
        is free again; at once, if it is taken now."""
        self._occupancy.on_full(callback)

    def off_full(self, callback: Callable[[bool], object]) -> None:
        """Call it no more. Nothing happens if it never was."""
        self._occupancy.off_full(callback)

    def server_opened(self) -> None:
        """A server begins to accept for this cap."""
        self._servers += 1

    def server_closed(self) -> None:
        """It has closed. With the last of them comes the end of the log of rejections."""
        self._servers -= 1
        if not self._servers:
            self._log.end()

    # ---- arrivals ------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether every newcomer is a candidate, whoever it is: only the cap is asked, and there
        is no slot, or others wait for one (newcomers never overtake)."""
        return self.gate.bare and (bool(self._candidates) or self.full)

    def may_shed(self, turn: int) -> int:
        """How many newcomers :meth:`shed` may turn away in this turn of the loop. Not 0 only
        where there is no slot, for anybody, and nobody may wait for one but for an ending under
        way.

        :param turn: its number.
        """
        gate = self.gate
        if not gate.may_wait and gate.full(len(self.pool)) and not self.evictors:
            return self._candidates.whole_share(turn)
        return 0

    def shed(self, client: Client, front: Front) -> None:
        """Turn away one of :meth:`may_shed`, accepted just now, after which the kernel had no
        ending to report."""
        fd, address = client
        # As _reject() does, in one call: this is the path of a flood (bench reject-cost).
        counters, gate = self.counters, self.gate
        if gate.bare:
            reason = _CAPACITY
        else:
            now = monotonic()
            if gate.tries_out:
                self._log.watch_dry_run(now)
            reason = gate.turn_away(address, now).reason
        counters.accepted += 1
        counters.rejected[reason] += 1
        self._log.saw(address, reason)
        self._turn_away(fd, address, front, reason)

    def may_decide_at_once(self) -> bool:
        """Whether a verdict of :meth:`arrived` stands, for :meth:`reject_now`, if the kernel has
        no ending to report now."""
        return not self.evictors and self._candidates.may_decide_at_once()

    def may_take(self) -> int:
        """How many clients a listener may take for :meth:`hold` in this turn of the loop: 1 or
        more."""
        return self._candidates.may_take()

    def may_turn_away(self) -> int:
        """How many a listener may turn away, or :meth:`hold`, in this turn: 1 or more."""
        return self._candidates.may_turn_away()

    def hold(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        """Take clients accepted in this turn of the loop that found no slot: see
        :meth:`Candidates.hold`."""
        self.counters.accepted += len(clients)
        self._occupancy.note()  # other work in the pool does not tell
        if self.evictors and front.proxies is not None:
            self._proxied.read_headers_first(clients, front)
        if clients:
            self._hold(clients, front, quiet=quiet)

    def _hold(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        self._candidates.hold(clients, front, quiet=quiet)
        if not self.full:
            # Those ahead wait for another slot than these: it is reserved, or their own sources
            # hold too many.
            self._candidates.slot_came_back()

    def _hold_named(self, clients: deque[Client], front: Front) -> None:
        """The same with clients that their proxy has told apart."""
        self._hold(clients, front, quiet=False)

    def _evict_for(self, fd: int, address: Any, front: Front) -> bool:
        """Evict an idle connection for a candidate, if only a slot is missing to it. True: that
        is coming free, or is free already."""
        if not self.evictors or self._proxied.is_unnamed(fd, front):  # it may be one that is denied
            return False
        in_use, unclassified = len(self.pool), self._headers.with_slot
        return self.gate.lacks_only_a_slot(
            self._source(address), in_use=in_use, unclassified=unclassified
        ) and evict_longest(self.evictors)

    def arrived(self, client: Client, front: Front) -> bool | Rejected:
        """Decide on a client just accepted, while not :attr:`holding`.

        :return: True: it has a slot, or waits for one. False: it was turned away. Else a verdict
            that only endings under way could change (no slot, or its source holds too many):
            before anything else happens, see :meth:`may_decide_at_once`, or :meth:`hold` it.
        """
        fd, address = client
        if front.proxies is not None:
            if front.proxies.trust(address):
                return self._proxied.arrived(fd, address, front)
            self.reject_now(client, front, _DENIED)
            return False
        source = self._source(address)
        # Candidates are ahead of it: each may take a slot.
        in_use, ahead = len(self.pool), len(self._candidates)
        unclassified = self._headers.with_slot
        gate, now = self.gate, monotonic()
        if gate.tries_out:
            self._log.watch_dry_run(now)
        if gate.may_wait:
            verdict = gate.decide_or_wait(
                (fd, address, front),
                source,
                now,
                in_use=in_use,
                ahead=ahead,
                unclassified=unclassified,
            )
            if isinstance(verdict, Waiter):
                self.counters.accepted += 1
                self._joined()
                return True
        else:
            verdict = gate.decide(
                source, now, in_use=in_use, ahead=ahead, unclassified=unclassified
            )
        if isinstance(verdict, Receipt):
            self.counters.accepted += 1
            self._admit(fd, address, front, verdict)
            return True
        if verdict in ENDINGS_MAKE_ROOM:
            return verdict
        self.reject_now(client, front, verdict)
        return False

    def reject_now(self, client: Client, front: Front, verdict: Rejected) -> None:
        """Turn away, without asking the gate, a client accepted just now."""
        fd, address = client
        self.counters.accepted += 1
        self._candidates.turned_one_away()
        self._reject(fd, address, front, verdict)

    def leave(self, front: Front, verdict: Rejected) -> None:
        """A listener closes: who came by it and has no slot yet gets ``verdict`` at once."""
        for fd, address in self._candidates.leave(front):
            self._reject(fd, address, front, verdict)
        for waiter in self._waiting.leave(front):
            fd, address, _ = waiter.client
            self._reject(fd, address, front, verdict)
        self._proxied.leave(front, verdict)
        # Who came after those candidates, by another listener, waits for the slots left to them.
        self._occupancy.changed()

    def _source(self, address: Any) -> Source:
        return self.gate.source(address) if self.gate.needs_source else ANY

    def _decide_candidate(
        self, fd: int, address: Any, front: Front, over: bool, now: float
    ) -> bool | None:
        """Ask again for a candidate: see :class:`Candidates`."""
        gate = self.gate
        if gate.bare and front.proxies is None:
            bare = gate.decide(ANY, now, in_use=len(self.pool))
            if isinstance(bare, Receipt):
                self._admit(fd, address, front, bare)
                return True
            if over:
                self._reject(fd, address, front, bare)
            return over or None
        in_use, unclassified = len(self.pool), self._headers.with_slot
        client = fd, address, front
        if self._proxied.is_unnamed(fd, front):
            place = gate.reserve_or_wait(client, now, in_use=in_use, unclassified=unclassified)
            if place is True:
                self._proxied.read_header(fd, address, front)
                return True
            verdict: Receipt | Waiter | Rejected = place
        else:
            source = gate.source(address) if gate.needs_source else ANY
            verdict = gate.recheck_or_wait(
                client, source, now, in_use=in_use, unclassified=unclassified
            )
        if isinstance(verdict, Waiter):
            self._joined()
            return True
        if isinstance(verdict, Receipt):
            self._admit(fd, address, front, verdict)
            return True
        if over:
            self._reject(fd, address, front, verdict)
            if gate.waiting:
                # Who came after this candidate was told that it was ahead, and waits.
                self._waiting.slot_came_back()
        return over or (None if self.full else False)

    def _candidates_asked(self) -> None:
        """Who came after them was told that they were ahead, and waits: but they may have failed
        to start, or found that they have to wait too."""
        if self.gate.waiting:
            self._waiting.slot_came_back()

    def _admit(self, fd: int, address: Any, front: Front, receipt: Receipt) -> None:
        self.counters.admitted += 1
        self._candidates.admitted_one()
        header_bytes = self._proxied.forget(fd) if self._proxied.named else 0
        try:
            front.admit(fd, address, receipt, header_bytes)
        except BaseException as error:
            self.counters.finished[Ending.NOT_STARTED] += 1
            self.gate.give_back(receipt, monotonic())
            if not isinstance(error, Exception):
                raise  # Ctrl-C, say: for the program; the books balance all the same
            log.exception("connection from %s not started", describe_peer(address))
        self._occupancy.note()

    def _reject(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        reason = verdict.reason
        self.counters.rejected[reason] += 1
        self._log.saw(address, reason)
        if self._proxied.named:
            self._proxied.forget(fd)
        self._turn_away(fd, address, front, reason)

    def _turn_away(self, fd: int, address: Any, front: Front, reason: Reason) -> None:
        try:
            front.turn_away[reason](fd)
        except OSError:
            self.counters.rejection_errors += 1
        except Exception:  # a rejection that is not one of ours
            self.counters.rejection_errors += 1
            log.exception("rejecting %s failed", describe_peer(address))

    # ---- those who wait ------------------------------------------------------------------

    def _joined(self) -> None:
        """One more waits."""
        self._waiting.joined()
        self._occupancy.note()  # other work in the pool does not tell
        self._occupancy.await_others()

    def _next_waiter(self) -> Waiter | None:
        return self.gate.next_waiter(in_use=len(self.pool), unclassified=self._headers.with_slot)

    def _admit_waiter(self, waiter: Waiter) -> None:
        fd, address, front = waiter.client
        if self._proxied.is_unnamed(fd, front):
            self._proxied.read_header(fd, address, front)
        else:
            self._admit(fd, address, front, waiter.receipt)

    def _reject_waiter(self, waiter: Waiter) -> None:
        fd, address, front = waiter.client
        self._reject(fd, address, front, _WAIT_TIMEOUT)

    def _abandon(self, waiter: Waiter) -> None:
        self.counters.abandoned += 1
        self._proxied.forget(waiter.client[0])
        _socket.close(waiter.client[0])  # nobody is there to be told anything

    def forked(self) -> None:
        """In a forked child, once it has let go of what is its parent's: the books begin anew."""
        self._log.begin_anew()
        self.counters.begin_anew()
        self._occupancy.note()

    # ---- endings -------------------------------------------------------------------------

    def ended(
        self, connection: Any, holder: slots.Holder, receipt: Receipt, ending: Ending
    ) -> None:
        """An admitted connection has ended and its socket is closed: its slot comes back.

        Called once for each, by the connection's end alone (``gserver/connection.py``; for the
        connections of unmodified programs, ``gserver/legacy/holders.py``).
        """
        slots.give_back(self.pool, holder)
        self.connections.discard(connection)
        self.counters.finished[ending] += 1
        self.gate.give_back(receipt, monotonic())
        self._occupancy.changed()

    def note_offence(self, address: Any, offence: Offence) -> None:
        """A client has misbehaved: the penalties, if they are on, hold it against its source."""
        self.gate.note_offence(self._source(address), offence, monotonic())
