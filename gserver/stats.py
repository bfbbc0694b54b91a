"""Counters, and one frozen snapshot of them. Time is an argument.

The books balance at every instant (guarantee G9)::

    accepted == admitted + sum(rejected) + pending + waiting + abandoned
    admitted == sum(finished) + active

``active`` is not counted here: it is how many connections there are. The count of slots, which the
gate compares with the cap, is the length of the pool alone: ``occupied``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from gserver.admission.figures import GateFigures
from gserver.admission.verdict import Reason

__all__ = ["Audit", "Counters", "Ending", "Snapshot", "Telling"]


class Ending(enum.StrEnum):
    """How an admitted connection ended. Closed: every value is a metric label and a log word."""

    RETURNED = "returned"  # the handler returned
    RAISED = "raised"  # the handler raised: its fault, logged with a traceback
    EXITED = "exited"  # the handler called sys.exit(): ends that connection only
    KILLED = "killed"  # its greenlet was killed, before or after it first ran
    PEER_GONE = "peer_gone"  # the peer's reset came up as an error the handler did not catch
    VANISHED = "vanished"  # one that answers the kernel's probes no more: likewise
    HANDSHAKE_FAILED = "handshake_failed"  # the peer's TLS handshake
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    NOT_STARTED = "not_started"  # the server failed to start the handler: logged
    LEFT_SILENT = "left_silent"  # deferred start, TLS: the client left before its first byte
    # Ended by us (gserver/reaper.py), whatever the handler made of it:
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    LIFETIME = "lifetime"
    EVICTED = "evicted"  # the longest idle, for a newcomer at the cap


class Telling(enum.StrEnum):
    """What became of a busy reply (``gserver/net/linger.py``). Closed, as the endings are."""

    REPLIED = "replied"  # the whole reply was taken, and the client then closed
    EXPIRED = "expired"  # closed at the deadline, or at the bound on bytes
    BROKEN = "broken"  # the client left or reset before the reply was all sent or acknowledged
    DEGRADED = "degraded"  # closed without a word: as many as may were taking theirs
    DROPPED = "dropped"  # closed as it was, when the server stopped


@dataclass(frozen=True, slots=True)
class Audit:
    """Slots compared with open sockets. All zero when nothing leaks.

    :ivar leaked_slots: slots held by nothing that can still give them back.
    :ivar leaked_sockets: sockets of this process that are connected to the listener and belong
        to no connection that holds a slot, twice in a row.
    :ivar semaphore_error: the pool's semaphore minus what the pool's length says it should be.
    """

    leaked_slots: int = 0
    leaked_sockets: int = 0
    semaphore_error: int = 0

    @property
    def clean(self) -> bool:
        return self == _CLEAN


_CLEAN = Audit()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the server has done so far, at one instant. Times in seconds, the rest are counts.

    :ivar cap: ``max_connections``.
    :ivar active: admitted, and not ended yet.
    :ivar occupied: slots taken: ``active + reading``, and other work in a Pool that is shared.
    :ivar peak: most slots taken at once, other work as far as it was seen: see ``time_full``.
    :ivar accepted: connections taken from the kernel's queue.
    :ivar pending: accepted, and not decided yet: candidates in their settle, and those whose
        PROXY protocol header is being read.
    :ivar reading: of the pending, those whose header is being read and who hold a slot already.
    :ivar waiting: accepted, and waiting for a slot as the rules let them.
    :ivar abandoned: left while waiting, or before their header had come.
    :ivar admitted: given a slot.
    :ivar rejected: turned away, by reason.
    :ivar finished: admitted and ended since, by how it ended.
    :ivar accept_errors: errors of ``accept()``, by the name of the errno.
    :ivar header_faults: why there was no PROXY protocol header, by kind: the peers' faults among
        :class:`gserver.net.proxy_header.Fault`.
    :ivar rejection_errors: rejections whose close failed (the descriptor is released all the same).
    :ivar replies: what became of the replies to those turned away with one, as far as they are
        through: not those who are still taking theirs.
    :ivar time_full: seconds with no free slot. Exact for connections. That other work in the Pool
        has taken the last slot is seen when a client is admitted, held or begins to wait, when
        the first one is turned away and each second while more are, when a connection ends, and
        at each snapshot; that it gives it back, at once.
    :ivar time_refusing: seconds, summed over the listeners, in which the kernel refused clients.
        Those are counted nowhere.
    :ivar gate: what the rules hold and have counted.
    :ivar audit: the result of the last audit.
    """

    cap: int
    active: int
    occupied: int
    peak: int
    accepted: int
    pending: int
    reading: int
    waiting: int
    abandoned: int
    admitted: int
    rejected: Mapping[Reason, int]
    finished: Mapping[Ending, int]
    accept_errors: Mapping[str, int]
    header_faults: Mapping[str, int]
    rejection_errors: int
    replies: Mapping[Telling, int]
    time_full: float
    time_refusing: float
    gate: GateFigures
    audit: Audit

    @property
    def balanced(self) -> bool:
        """Whether the books balance (G9)."""
        return (
            self.accepted
            == self.admitted
            + sum(self.rejected.values())
            + self.pending
            + self.waiting
            + self.abandoned
            and self.admitted == sum(self.finished.values()) + self.active
        )


@dataclass(slots=True)
class Counters:
    """The running counts behind :class:`Snapshot`. Whoever does a thing counts it."""

    accepted: int = 0
    admitted: int = 0
    abandoned: int = 0
    peak: int = 0
    rejection_errors: int = 0
    rejected: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    finished: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))
    replies: dict[Telling, int] = field(default_factory=lambda: dict.fromkeys(Telling, 0))
    accept_errors: dict[str, int] = field(default_factory=dict)
    header_faults: dict[str, int] = field(default_factory=dict)
    audit: Audit = _CLEAN
    _full_since: float | None = None
    _time_full: float = 0.0
    _refusing: int = 0  # listeners that refuse now
    _time_refusing: float = 0.0

    def begin_anew(self) -> None:
        """Back to the beginning, in place: whoever writes here goes on writing here."""
        new = Counters()
        for field_ in fields(self):
            value = getattr(new, field_.name)
            if isinstance(value, dict):
                ours = getattr(self, field_.name)
                ours.clear()
                ours.update(value)
            else:
                setattr(self, field_.name, value)

    def occupancy(self, in_use: int, full: bool, now: float) -> None:
        """Note that the number of slots taken, or the cap, has just changed."""
        if in_use > self.peak:
            self.peak = in_use
        if full:
            if self._full_since is None:
                self._full_since = now
        elif self._full_since is not None:
            self._time_full += now - self._full_since
            self._full_since = None

    def refusing_since(self, now: float) -> None:
        """One more listener refuses."""
        self._refusing += 1
        self._time_refusing -= now

    def refusing_until(self, now: float) -> None:
        """One listener fewer refuses."""
        self._refusing -= 1
        self._time_refusing += now

    def snapshot(
        self,
        *,
        cap: int,
        active: int,
        occupied: int,
        pending: int,
        reading: int = 0,
        waiting: int,
        gate: GateFigures,
        now: float,
    ) -> Snapshot:
        """Freeze the counts as they are at ``now``."""
        current = 0.0 if self._full_since is None else now - self._full_since
        return Snapshot(
            cap=cap,
            active=active,
            occupied=occupied,
            peak=self.peak,
            accepted=self.accepted,
            pending=pending,
            reading=reading,
            waiting=waiting,
            abandoned=self.abandoned,
            admitted=self.admitted,
            rejected=MappingProxyType(dict(self.rejected)),
            finished=MappingProxyType(dict(self.finished)),
            accept_errors=MappingProxyType(dict(self.accept_errors)),
            header_faults=MappingProxyType(dict(self.header_faults)),
            rejection_errors=self.rejection_errors,
            replies=MappingProxyType(dict(self.replies)),
            time_full=self._time_full + current,
            time_refusing=self._time_refusing + self._refusing * now,
            gate=gate,
            audit=self.audit,
        )
