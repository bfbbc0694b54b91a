"""The limiter: one cap, its gate, its slots and its books. Servers may share one.

It also holds the candidates: clients accepted at the cap whose verdict waits for endings that
are already under way (*settle*).

Why a candidate at the cap waits one turn of the loop even with ``settle=0``: a client that closes
its connection and connects again has its FIN in our kernel before its SYN, but a loop that
accepts in batches can take the new connection in the same batch whose poll came before that FIN.
Only a poll made *after* the accept is sure to report it. Ten clients that together hold a cap of
ten and reconnect were turned away 506 times in 34,707 without that poll, 0 in 55,942 with it
(``tests/test_no_false_rejection.py``). Where a look into the loop's epoll set after the accept
shows nothing but more clients, that look is the poll, and nobody waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

import gevent
from gevent.greenlet import Greenlet
from gevent.pool import Pool

from gserver import slots
from gserver.admission.gate import Gate
from gserver.admission.verdict import Reason, Receipt, Rejected
from gserver.errors import SettingError
from gserver.report import CALM_S, RejectionReport
from gserver.stats import Counters, Ending, Snapshot

__all__ = [
    "EVICTION_WAIT_S",
    "MAX_CANDIDATES",
    "MAX_REJECTIONS_PER_TURN",
    "SETTLE_PRIORITY",
    "Front",
    "Limiter",
]

log = logging.getLogger("gserver")

#: Rejections in one turn of the loop (G5): at 16 the admitted keep a p99 of about 2 ms under a
#: flood, at 100 it is 8.7 ms, and rejecting is no faster (bench/reject_cost.py).
MAX_REJECTIONS_PER_TURN: Final = 16
#: Candidates held at once (G8). At the bound the oldest gets its verdict early.
MAX_CANDIDATES: Final = 128
#: Below the connections' watchers (0), above the listeners' (accept.py): endings first, then the
#: candidates, then newcomers.
SETTLE_PRIORITY: Final = -1
#: How long, in seconds, a candidate may wait for the slot of a connection evicted for it. A
#: handler that returns on end-of-file gives it back in one turn of the loop.
EVICTION_WAIT_S: Final = 0.1


#: A client just accepted: its descriptor and its address, as ``_socket``'s ``_accept`` gives them.
Client = tuple[int, Any]


class Front(Protocol):
    """One listener's side of the limiter: it knows how to start a client and turn one away.
    Either owns the descriptor from then on."""

    #: Turns away the client on a descriptor (``Rejection.on``).
    turn_away: Callable[[int], object]

    def admit(self, fd: int, address: Any, receipt: Receipt) -> None:
        """Take a slot and start serving. When it raises it has closed ``fd`` and holds no slot."""


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
        #: Each ends an idle connection for a candidate, if there is one idle long enough: True.
        self.evictors: list[Callable[[], bool]] = []
        # Those accepted in one turn of the loop, by one listener: until when, which, who.
        self._candidates: deque[tuple[float, Front, deque[Client]]] = deque()
        # The turn of the loop that last admitted or decided on candidates. In that turn nothing
        # is decided at once: a connection admitted in it is not in the epoll set yet, and its
        # share of rejections may be used up.
        self._acted_in: int | None = None
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
        return sum(len(clients) for _, _, clients in self._candidates)

    def candidates(self) -> list[int]:
        """The descriptors of the candidates."""
        return [fd for _, _, clients in self._candidates for fd, _ in clients]

    def snapshot(self) -> Snapshot:
        return self.counters.snapshot(
            cap=self.gate.max_connections,
            active=len(self.pool),
            pending=self.pending,
            now=monotonic(),
        )

    # ---- arrivals ------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether a newcomer can only be a candidate: there is no slot, or others wait for one
        (newcomers never overtake)."""
        return bool(self._candidates) or self.gate.full(len(self.pool))

    def arrived(self, fd: int, address: Any, front: Front) -> None:
        """Decide on a client just accepted, while not :attr:`holding`."""
        self.counters.accepted += 1
        verdict = self.gate.decide(address, monotonic(), in_use=len(self.pool))
        if isinstance(verdict, Receipt):
            self._acted_in = _iteration()
            self._admit(fd, address, front, verdict)
        else:
            self._reject(fd, address, front, verdict)

    def arrived_at_cap(self, clients: deque[Client], front: Front, *, quiet: bool) -> None:
        """Decide on clients accepted in this turn of the loop while :attr:`holding`, or make
        candidates of them.

        :param clients: not empty, at most MAX_REJECTIONS_PER_TURN; the limiter's from here.
        :param quiet: whether a poll made after they were accepted reported no connection:
            then no ending is under way, and with ``settle=0`` there is nothing to wait for.
        """
        self.counters.accepted += len(clients)
        candidates = self._candidates
        now = monotonic()
        settle = self.settle
        if self.evictors and sum(self._evict_one() for _ in clients):
            settle = max(settle, EVICTION_WAIT_S)
        candidates.append((now + settle, front, clients))
        if len(candidates) == 1:
            if quiet and not settle and self._acted_in != _iteration():
                self._settled()
                return
            self._wake_after(settle if self.full else 0.0)
        elif self.pending > MAX_CANDIDATES:
            self._settled()  # the oldest get their verdict early

    def _evict_one(self) -> bool:
        return any(evict() for evict in self.evictors)

    def _settled(self) -> None:
        """The timer's callback."""
        try:
            self._decide_settled()
        except BaseException:
            if self._candidates:  # go on with them, whatever that one was
                self._wake_after(0.0)
            raise

    def _decide_settled(self) -> None:
        """A verdict for each candidate whose slot is free or whose time is over. On the path of
        every rejection."""
        self._acted_in = _iteration()
        candidates = self._candidates
        decide, pool = self.gate.decide, self.pool
        now = monotonic()
        budget = MAX_REJECTIONS_PER_TURN
        crowded = self.pending - MAX_CANDIDATES
        while candidates:
            deadline, front, clients = candidates[0]
            while clients:
                fd, address = clients[0]
                verdict = decide(address, now, in_use=len(pool))
                if isinstance(verdict, Receipt):
                    clients.popleft()
                    self._admit(fd, address, front, verdict)
                elif budget and (deadline <= now or crowded > 0):
                    clients.popleft()
                    self._reject(fd, address, front, verdict)
                    budget -= 1
                    crowded -= 1
                else:
                    self._wake_after(max(0.0, deadline - now))
                    return
            candidates.popleft()

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
        in_use = len(self.pool)
        self.counters.occupancy(in_use, self.gate.full(in_use), monotonic())

    def _reject(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        counters, report = self.counters, self._report
        counters.rejected[verdict.reason] += 1
        report.saw(address)
        if not report.rejecting:
            self._begin_report(verdict.reason)
        try:
            front.turn_away(fd)
        except OSError:
            counters.rejection_errors += 1
        except Exception:  # a rejection that is not one of ours
            counters.rejection_errors += 1
            log.exception("rejecting %s failed", address)

    def reject_now(self, fd: int, address: Any, front: Front, verdict: Rejected) -> None:
        """Turn away, without asking the gate, a client accepted just now."""
        self.counters.accepted += 1
        self._reject(fd, address, front, verdict)

    def leave(self, front: Front, verdict: Rejected) -> None:
        """A listener closes: its candidates get ``verdict`` at once."""
        leaving = [entry for entry in self._candidates if entry[1] is front]
        self._candidates = deque(entry for entry in self._candidates if entry[1] is not front)
        for _, _, clients in leaving:
            for fd, address in clients:
                self._reject(fd, address, front, verdict)
        if not self._candidates:
            for timer in (self._turn, self._later):
                if timer is not None:
                    timer.stop()
                    timer.close()
            self._turn = self._later = None

    # ---- endings -------------------------------------------------------------------------

    def ended(self, greenlet: Greenlet[..., Any], receipt: Receipt, ending: Ending) -> None:
        """An admitted connection has ended and its socket is closed: its slot comes back.

        Called once for each, by the connection's end alone (``gserver/connection.py``).
        """
        slots.give_back(self.pool, greenlet)
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


def _iteration() -> int:
    """The number of this turn of the loop."""
    return gevent.get_hub().loop.iteration
