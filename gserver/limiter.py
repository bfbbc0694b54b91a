"""The limiter: one cap, its gate, its slots and its books. Servers may share one.

It also holds the candidates: clients accepted at the cap whose verdict waits for endings that
are already under way (*settle*).

Why every candidate at the cap waits one turn of the loop, even with ``settle=0``: a client that
closes its connection and connects again has its FIN in our kernel before its SYN, but a loop
that accepts in batches can take the new connection in the same batch whose poll came before that
FIN. Only a poll made *after* the accept is sure to report it. Ten clients that together hold a
cap of ten and reconnect were turned away 506 times in 34,707 without the turn, 0 in 55,942 with
it, at about 5 % more CPU a rejection (``tests/test_no_false_rejection.py``).
"""

from __future__ import annotations

import _socket
import logging
from collections import deque
from time import monotonic
from typing import Any, Final, Protocol

import gevent
from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.admission.verdict import Reason, Receipt, Rejected
from gserver.errors import SettingError
from gserver.report import CALM_S, RejectionReport
from gserver.stats import Counters, Ending, Snapshot

__all__ = ["MAX_CANDIDATES", "MAX_REJECTIONS_PER_TURN", "SETTLE_PRIORITY", "Front", "Limiter"]

log = logging.getLogger("gserver")

#: Rejections in one turn of the loop (G5): at 16 the admitted keep a p99 of about 2 ms under a
#: flood, at 100 it is 8.7 ms, and rejecting is no faster (bench/reject_cost.py).
MAX_REJECTIONS_PER_TURN: Final = 16
#: Candidates held at once (G8). At the bound the oldest gets its verdict early.
MAX_CANDIDATES: Final = 128
#: Below the connections' watchers (0), above the listeners' (accept.py): endings first, then the
#: candidates, then newcomers.
SETTLE_PRIORITY: Final = -1


class Front(Protocol):
    """One listener's side of the limiter: it knows how to start a client and turn one away.
    Either owns the descriptor from then on."""

    def admit(self, fd: int, address: Any, receipt: Receipt) -> None:
        """Take a slot and start serving. When it raises it has closed ``fd`` and holds no slot."""

    def reject(self, fd: int, address: Any, verdict: Rejected) -> None:
        """Turn away. Never raises."""


class Limiter:
    """One hard cap, for one server or shared by several (``StreamServer(limiter=…)``).

    :param max_connections: the cap: a whole number, 1 or more.
    :param settle: seconds a candidate at the cap may wait for endings already under way.
        0: one turn of the loop, which is exact for handlers that return on end-of-file without
        yielding. A handler that needs longer to end wants about that long.
    :param pool: the Pool that counts; by default a new one of that size.
    :raises SettingError: a value that cannot be used.

    Nothing needs closing: it holds descriptors only while a server with candidates runs.
    """

    def __init__(
        self, max_connections: int, *, settle: float = 0.0, pool: Pool | None = None
    ) -> None:
        slots.check_cap(max_connections)
        if isinstance(settle, bool) or not isinstance(settle, int | float) or not settle >= 0:
            raise SettingError("settle", settle, "must be a number of seconds, 0 or more")
        self.pool = Pool(max_connections) if pool is None else pool
        self.gate = Gate(max_connections)
        self.counters = Counters()
        self.settle = float(settle)
        #: What holds slots: for the audit. The pool, not this, is the count.
        self.connections: set[Any] = set()
        self._candidates: deque[tuple[int, Any, Front, float]] = deque()
        self._turn: Any = None
        self._later: Any = None
        self._report = RejectionReport()
        self._report_timer: Any = None

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
    def full(self) -> bool:
        return self.gate.full(len(self.pool))

    @property
    def pending(self) -> int:
        """Candidates whose verdict is still to come."""
        return len(self._candidates)

    def candidates(self) -> list[int]:
        """The descriptors of the candidates."""
        return [candidate[0] for candidate in self._candidates]

    def snapshot(self) -> Snapshot:
        return self.counters.snapshot(
            cap=self.gate.max_connections,
            active=len(self.pool),
            pending=len(self._candidates),
            now=monotonic(),
        )

    # ---- arrivals ------------------------------------------------------------------------

    def arrived(self, fd: int, address: Any, front: Front) -> bool:
        """Decide on a client just accepted. True when it was admitted.

        The descriptor is the limiter's from here: it goes to ``front.admit`` or
        ``front.reject``, now or when the candidate's settle is over.
        """
        self.counters.accepted += 1
        candidates = self._candidates
        now = monotonic()
        if not candidates:  # newcomers never overtake
            verdict = self.gate.decide(address, now, in_use=len(self.pool))
            if isinstance(verdict, Receipt):
                self._admit(fd, address, front, verdict)
                return True
            if verdict.reason is not Reason.CAPACITY:  # waiting would not change it
                self._reject(fd, address, front, verdict)
                return False
        elif len(candidates) >= MAX_CANDIDATES:
            self._decide(*candidates.popleft())
        candidates.append((fd, address, front, now + self.settle))
        if len(candidates) == 1:
            self._wake_after(self.settle)
        return False

    def _settled(self) -> None:
        """The timer's callback: every candidate whose time is over, or whose slot is free."""
        candidates = self._candidates
        turned_away = 0
        now = monotonic()
        while candidates:
            fd, address, front, deadline = candidates[0]
            verdict = self.gate.decide(address, now, in_use=len(self.pool))
            if isinstance(verdict, Receipt):
                candidates.popleft()
                self._admit(fd, address, front, verdict)
            elif deadline <= now and turned_away < MAX_REJECTIONS_PER_TURN:
                candidates.popleft()
                self._reject(fd, address, front, verdict)
                turned_away += 1
            else:
                self._wake_after(max(0.0, deadline - now))
                return

    def _decide(self, fd: int, address: Any, front: Front, deadline: float) -> None:
        verdict = self.gate.decide(address, monotonic(), in_use=len(self.pool))
        if isinstance(verdict, Receipt):
            self._admit(fd, address, front, verdict)
        else:
            self._reject(fd, address, front, verdict)

    def _admit(self, fd: int, address: Any, front: Front, receipt: Receipt) -> None:
        self.counters.admitted += 1
        try:
            front.admit(fd, address, receipt)
        except Exception:
            log.exception("connection from %s not started", address)
            self.counters.finished[Ending.NOT_STARTED] += 1
            self.gate.give_back(receipt, monotonic())
        in_use = len(self.pool)
        self.counters.occupancy(in_use, self.gate.full(in_use), monotonic())

    def _reject(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        self.counters.rejected[verdict.reason] += 1
        report = self._report
        report.saw(address[0] if address.__class__ is tuple else "unix")
        if not report.rejecting:
            self._begin_report(verdict.reason)
        front.reject(fd, address, verdict)

    def reject_now(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        """Turn away, without asking the gate, a client accepted just now."""
        self.counters.accepted += 1
        self._reject(fd, address, front, verdict)

    def leave(self, front: Front, verdict: Rejected) -> None:
        """A listener closes: its candidates get ``verdict`` at once."""
        staying = deque(c for c in self._candidates if c[2] is not front)
        leaving = [c for c in self._candidates if c[2] is front]
        self._candidates = staying
        for fd, address, _, _ in leaving:
            self._reject(fd, address, front, verdict)
        if not staying:
            for timer in (self._turn, self._later):
                if timer is not None:
                    timer.stop()
                    timer.close()
            self._turn = self._later = None

    def forked(self) -> None:
        """In a forked child, once it has given back its copies of the slots: the books begin
        anew. Candidates are the parent's: their descriptors are closed here, no verdict given."""
        for fd, *_ in self._candidates:
            _socket.close(fd)  # never gevent's: it may switch greenlets
        self._candidates.clear()
        for timer in (self._turn, self._later, self._report_timer):
            if timer is not None:
                timer.stop()
                timer.close()
        self._turn = self._later = self._report_timer = None
        self._report = RejectionReport()
        self.counters = Counters()

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

    def _occupancy_changed(self) -> None:
        in_use = len(self.pool)
        full = self.gate.full(in_use)
        self.counters.occupancy(in_use, full, monotonic())
        if self._candidates and not full:
            self._wake_after(0.0)

    def _wake_after(self, seconds: float) -> None:
        # Timers, not callbacks: libev runs timers after its poll, in order of priority, so the
        # endings that this poll reported are handled first. A timer of zero never blocks the
        # poll. A gevent timer's delay is fixed when it is made: the one of zero is kept.
        loop = gevent.get_hub().loop
        if self._later is not None:
            self._later.stop()
            self._later.close()
            self._later = None
        if seconds > 0.0:
            self._later = loop.timer(seconds, 0.0, True, SETTLE_PRIORITY)
            self._later.start(self._settled)
        else:
            if self._turn is None:
                self._turn = loop.timer(0.0, 0.0, True, SETTLE_PRIORITY)
            self._turn.start(self._settled)

    # ---- the log -------------------------------------------------------------------------

    def _begin_report(self, reason: Reason) -> None:
        log.warning(
            self._report.begin(
                monotonic(),
                reason,
                len(self.pool),
                self.gate.max_connections,
                self.counters.rejected,
            )
        )
        # ref=False: a report to come keeps no program alive.
        self._report_timer = gevent.get_hub().loop.timer(CALM_S, CALM_S, False)
        self._report_timer.start(self._tick_report)

    def _tick_report(self) -> None:
        lines = self._report.tick(
            monotonic(),
            len(self.pool),
            self.gate.max_connections,
            full=self.full,
            totals=self.counters.rejected,
        )
        for line in lines:
            log.warning(line)
        if not self._report.rejecting:
            self._report_timer.stop()
            self._report_timer.close()
            self._report_timer = None
