"""The limiter: one cap, its gate, its slots and its books. Servers may share one.

Everybody who is accepted comes through here: to a slot (``_admit``), to be turned away
(``_reject``), or to wait: a moment, for endings already under way (``candidates.py``), or by the
rules' leave for a stated time (``waiting_room.py``). Every ending comes back here (``ended``).
"""

from __future__ import annotations

import _socket
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.penalties import Offence
from gserver.admission.sources import ANY, Source
from gserver.admission.verdict import REJECTED, Reason, Receipt, Rejected
from gserver.admission.waiting import Waiter
from gserver.candidates import Candidates
from gserver.errors import SettingError
from gserver.front import Client, Front
from gserver.rejection_log import RejectionLog
from gserver.stats import Counters, Ending, Snapshot
from gserver.waiting_room import WaitingRoom

__all__ = ["Limiter"]

log = logging.getLogger("gserver")

_WAIT_TIMEOUT = REJECTED[Reason.WAIT_TIMEOUT]


class Limiter:
    """One hard cap and its rules, for one server or shared by several (``limiter=…``).

    :param limits: the cap alone, a whole number of 1 or more, or all the rules.
    :param settle: seconds a candidate at the cap may wait for endings already under way.
        0: one turn of the loop, which is exact for handlers that return on end-of-file without
        yielding. A handler that needs longer to end wants about that long. Where clients may
        wait by the rules (``Limits.wait``), that is their settle.
    :param pool: the Pool that counts; by default a new one of that size.
    :raises SettingError: a value that cannot be used.

    Nothing needs closing: it holds descriptors only while a server with candidates runs.
    """

    def __init__(
        self, limits: int | Limits, *, settle: float = 0.0, pool: Pool | None = None
    ) -> None:
        if not isinstance(limits, Limits):
            limits = Limits(max_connections=slots.check_cap(limits))
        if isinstance(settle, bool) or not isinstance(settle, int | float) or not settle >= 0:
            raise SettingError("settle", settle, "must be a number of seconds, 0 or more")
        if settle and limits.wait:
            raise SettingError("settle", settle, "goes without wait, which is at least as long")
        self.pool = Pool(limits.max_connections) if pool is None else pool
        self.gate = Gate.from_limits(limits)
        self.counters = Counters()
        #: What holds slots, for the audit. The pool, not this, is the count.
        self.connections: set[Any] = set()
        self._candidates = Candidates(self._decide_candidate, float(settle))
        self._waiting = WaitingRoom(
            self.gate, self.pool.__len__, self._admit_waiter, self._reject_waiter, self._abandon
        )
        self._log = RejectionLog(self._occupancy, self.counters.rejected)
        self._on_full: list[Callable[[bool], object]] = []
        self._was_full = False

    # ---- the count -----------------------------------------------------------------------

    @property
    def max_connections(self) -> int:
        """The cap. Set it at any time: raising admits waiting candidates at once; lowering
        admits nobody until enough have left, and ends nobody."""
        return self.gate.max_connections

    @max_connections.setter
    def max_connections(self, value: int) -> None:
        slots.resize(self.pool, value)
        self.gate.max_connections = value
        self._occupancy_changed()

    @property
    def limits(self) -> Limits:
        """The rules. Set them at any time: they hold for clients from now on, and those admitted
        already count as the new rules would count them; nobody is ended."""
        return self.gate.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if self.settle and limits.wait:
            raise SettingError("wait", limits.wait, "goes without settle")
        slots.resize(self.pool, limits.max_connections)
        self.gate.replace(limits)
        for connection in self.connections:
            source = self._source(connection.address)
            connection.receipt = self.gate.recount(connection.receipt, source)
        self._occupancy_changed()

    @property
    def settle(self) -> float:
        """Seconds a candidate at the cap may wait."""
        return self._candidates.settle

    @property
    def full(self) -> bool:
        return self.gate.full(len(self.pool))

    @property
    def pending(self) -> int:
        """Candidates whose verdict is still to come."""
        return len(self._candidates)

    def descriptors(self) -> list[int]:
        """Those of clients that have no slot yet: candidates, and those that wait."""
        return self._candidates.descriptors() + self._waiting.descriptors()

    def snapshot(self) -> Snapshot:
        """The books at this instant."""
        return self.counters.snapshot(
            cap=self.gate.max_connections,
            active=len(self.pool),
            pending=self.pending,
            waiting=len(self._waiting),
            gate=self.gate.figures(),
            now=monotonic(),
        )

    def on_full(self, callback: Callable[[bool], object]) -> None:
        """Call ``callback`` with True whenever the last slot is taken, with False whenever one
        is free again; at once, if it is taken now."""
        self._on_full.append(callback)
        if self.full:
            callback(True)

    def off_full(self, callback: Callable[[bool], object]) -> None:
        """Call it no more. Nothing happens if it never was."""
        if callback in self._on_full:
            self._on_full.remove(callback)

    # ---- arrivals ------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether every newcomer is a candidate, whoever it is: only the cap is asked, and there
        is no slot, or others wait for one (newcomers never overtake)."""
        return self.gate.bare and (bool(self._candidates) or self.full)

    def hold(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        """Take clients accepted in this turn of the loop that found no slot: see
        :meth:`Candidates.hold`."""
        self.counters.accepted += len(clients)
        self._candidates.hold(clients, front, quiet=quiet)

    def arrived(self, client: Client, front: Front) -> bool | None:
        """Decide on a client just accepted, while not :attr:`holding`.

        :return: True: it has a slot, or waits for one. False: it was turned away. None: it found
            no slot; hand it to :meth:`hold`, before anything else happens.
        """
        fd, address = client
        source = self._source(address)
        # Candidates are ahead of it: each may take a slot.
        in_use = len(self.pool) + len(self._candidates)
        gate, now = self.gate, monotonic()
        if gate.may_wait:
            verdict = gate.decide_or_wait((fd, address, front), source, now, in_use=in_use)
            if isinstance(verdict, Waiter):
                self.counters.accepted += 1
                self._waiting.joined()
                return True
        else:
            verdict = gate.decide(source, now, in_use=in_use)
        if isinstance(verdict, Rejected) and verdict.reason is Reason.CAPACITY:
            return None
        self.counters.accepted += 1
        if isinstance(verdict, Receipt):
            self._candidates.admitted_one()
            self._admit(fd, address, front, verdict)
            return True
        self._reject(fd, address, front, verdict)
        return False

    def reject_now(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        """Turn away, without asking the gate, a client accepted just now."""
        self.counters.accepted += 1
        self._reject(fd, address, front, verdict)

    def leave(self, front: Front, verdict: Rejected) -> None:
        """A listener closes: who came by it and has no slot yet gets ``verdict`` at once."""
        for fd, address in self._candidates.leave(front):
            self._reject(fd, address, front, verdict)
        for waiter in self._waiting.leave(front):
            fd, address, _ = waiter.client
            self._reject(fd, address, front, verdict)

    def _source(self, address: Any) -> Source:
        return self.gate.source(address) if self.gate.needs_source else ANY

    def _decide_candidate(self, fd: int, address: Any, front: Front, over: bool) -> bool:
        """Ask again for a candidate. On the path of every rejection."""
        gate = self.gate
        source = gate.source(address) if gate.needs_source else ANY
        verdict = gate.recheck(source, monotonic(), in_use=len(self.pool))
        if isinstance(verdict, Receipt):
            self._admit(fd, address, front, verdict)
            return True
        if over:
            self._reject(fd, address, front, verdict)
        return over

    def _admit(self, fd: int, address: Any, front: Front, receipt: Receipt) -> None:
        self.counters.admitted += 1
        try:
            front.admit(fd, address, receipt)
        except BaseException as error:
            self.counters.finished[Ending.NOT_STARTED] += 1
            self.gate.give_back(receipt, monotonic())
            if not isinstance(error, Exception):
                raise  # Ctrl-C, say: for the program; the books balance all the same
            log.exception("connection from %s not started", address)
        self._note_occupancy()

    def _reject(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        counters, reason = self.counters, verdict.reason
        counters.rejected[reason] += 1
        self._log.saw(address, reason)
        try:
            front.turn_away[reason](fd)
        except OSError:
            counters.rejection_errors += 1
        except Exception:  # a rejection that is not one of ours
            counters.rejection_errors += 1
            log.exception("rejecting %s failed", address)

    # ---- those who wait ------------------------------------------------------------------

    def _admit_waiter(self, waiter: Waiter) -> None:
        fd, address, front = waiter.client
        self._admit(fd, address, front, waiter.receipt)

    def _reject_waiter(self, waiter: Waiter) -> None:
        fd, address, front = waiter.client
        self._reject(fd, address, front, _WAIT_TIMEOUT)

    def _abandon(self, waiter: Waiter) -> None:
        self.counters.abandoned += 1
        _socket.close(waiter.client[0])  # nobody is there to be told anything

    def forked(self) -> None:
        """In a forked child, once it has let go of what is its parent's: the books begin anew."""
        self._log.close()
        self.counters = Counters()
        self._log = RejectionLog(self._occupancy, self.counters.rejected)

    # ---- endings -------------------------------------------------------------------------

    def ended(self, holder: slots.Holder, receipt: Receipt, ending: Ending) -> None:
        """An admitted connection has ended and its socket is closed: its slot comes back.

        Called once for each, by the connection's end alone (``gserver/connection.py``; for the
        connections of unmodified programs, ``gserver/legacy/holders.py``).
        """
        slots.give_back(self.pool, holder)
        self.counters.finished[ending] += 1
        self.gate.give_back(receipt, monotonic())
        self._occupancy_changed()

    def note_offence(self, address: Any, offence: Offence) -> None:
        """A client has misbehaved: the penalties, if they are on, hold it against its source."""
        self.gate.note_offence(self._source(address), offence, monotonic())

    def _occupancy(self) -> tuple[int, int, bool]:
        return len(self.pool), self.gate.max_connections, self.full

    def _occupancy_changed(self) -> None:
        """A slot may have become free."""
        self._note_occupancy()
        if not self._was_full:
            self._candidates.slot_came_back()
            self._waiting.slot_came_back()

    def _note_occupancy(self) -> None:
        in_use = len(self.pool)
        full = self.gate.full(in_use)
        self.counters.occupancy(in_use, full, monotonic())
        if full is not self._was_full:
            self._was_full = full
            for callback in self._on_full:
                callback(full)
