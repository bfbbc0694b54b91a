"""The engine: connection attempts on hub callbacks over raw ``_socket``, no greenlet anywhere.

One attempt is one non-blocking connect, one READ watcher and an entry in the queues of
``waits.py``, which a single timer sweeps. What the bytes and errors mean is decided in
``outcomes.py``. Against a C epoll client this shape had 0.77 of the throughput, a greenlet over a
raw socket 0.68, ``gevent.socket`` 0.52.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any, Final

from gevent import get_hub

from gserver.probe import sockets
from gserver.probe.attempt import Attempt, Patience
from gserver.probe.oracle import Oracle
from gserver.probe.outcomes import (
    REJECTIONS,
    Next,
    Outcome,
    of_close,
    of_data,
    of_deadline,
    of_errno,
    of_quiet,
    unexpected,
)
from gserver.probe.profiles import Profile, Speaks
from gserver.probe.target import Target
from gserver.probe.waits import Waits

__all__ = ["Engine", "ignore"]

_READ: Final = 1
_CHUNK: Final = 16_384
_KEPT: Final = 1024  # bytes of what comes to somebody whom only silence had admitted
_IN_PROGRESS: Final = (0, errno.EINPROGRESS)
_LEAVES_OPEN: Final = frozenset(Outcome) - {*REJECTIONS, Outcome.LOCAL}


def ignore(attempt: Attempt) -> None:
    """For who does not want to be told."""


class Engine:
    """Makes attempts against one target. Used from the hub's thread only.

    :param sources: source addresses taken in turn; empty leaves the choice to the kernel.
    :param oracle: one that sees the target's connections; None: silence is UNKNOWN, never
        admitted. Not closed by the engine.
    :param on_outcome: called once an attempt, from the hub.
    :param on_change: called when a kept attempt is served late or ended by the server.
    :param note_sources: keep our end's address and port in the attempt.
    :param reset_on_close: end rejected and finished connections with RST (no TIME_WAIT on
        either side) instead of FIN.

    :meth:`close` ends everything that is still open. An exception inside a callback is kept in
    :attr:`failure` for whoever waits. :attr:`sees_rows` is False while it is not known whether the
    oracle sees the target's connections.
    """

    def __init__(
        self,
        target: Target,
        profile: Profile,
        patience: Patience,
        *,
        oracle: Oracle | None = None,
        sources: Sequence[str] = (),
        on_outcome: Callable[[Attempt], None] = ignore,
        on_change: Callable[[Attempt], None] = ignore,
        reset_on_close: bool = False,
        note_sources: bool = False,
    ) -> None:
        self.profile = profile
        self.target = target
        self.oracle = oracle
        self.sees_rows = True  # without the server's row there is no connection
        self.on_outcome = on_outcome
        self.on_change = on_change
        self.reset_on_close = reset_on_close
        self.failure: Exception | None = None
        self.in_flight = 0
        self._sources = sockets.Sources(target.family, sources)
        self._note_sources = note_sources
        self._count = 0
        self._waits = Waits(patience)
        self._open: set[Attempt] = set()
        self._loop: Any = get_hub().loop
        tick = min(max(patience.quiet_s / 4, 0.001), 0.025)
        self._timer: Any = self._loop.timer(tick, tick)
        self._timer.start(self._sweep)

    # -- making and ending attempts ---------------------------------------------------------

    def start(self, intended: int = 0, *, keep: bool = False) -> Attempt:
        """Connect now. The outcome comes through ``on_outcome``, LOCAL perhaps before this returns.

        :param intended: when it should have started (monotonic nanoseconds); 0: now.
        :param keep: hold the connection open after an outcome that leaves it open; the caller
            ends it with :meth:`end`. Otherwise the engine ends it with the outcome.
        """
        index = self._count
        self._count = index + 1
        attempt = Attempt(index, intended or monotonic_ns(), keep)
        self.in_flight += 1
        try:
            attempt.sock = sock = self._sources.socket(index)
            # Latency is counted from the connect call: what this machine needed before that, for
            # the socket and its address, is slip.
            attempt.started = now = monotonic_ns()
            number = sock.connect_ex(self.target.sockaddr)
            if self._note_sources:
                attempt.source = self._sources.of(index, sock)
        except OSError:
            attempt.started = attempt.started or monotonic_ns()
            self._finish(attempt, Outcome.LOCAL)
            return attempt
        if number not in _IN_PROGRESS:
            self._finish(attempt, of_errno(number))
            return attempt
        self._open.add(attempt)
        attempt.watcher = watcher = self._loop.io(sock.fileno(), _READ)
        watcher.start(self._readable, attempt)
        self._waits.listen(attempt, now)
        return attempt

    def end(self, attempt: Attempt, *, reset: bool | None = None) -> None:
        """Close the connection, from our side. Without effect when it is closed."""
        sock = attempt.sock
        if sock is None:
            return
        self._unwatch(attempt)
        attempt.sock = None
        self._open.discard(attempt)
        sockets.close(sock, reset=self.reset_on_close if reset is None else reset)
        if attempt.outcome is None:  # given up by the caller: no outcome is reported
            self.in_flight -= 1

    def detach(self, attempt: Attempt) -> Any:
        """Hand the raw socket of a held attempt to the caller, who closes it from now on."""
        sock = attempt.sock
        self._unwatch(attempt)
        attempt.sock = None
        self._open.discard(attempt)
        return sock

    @property
    def open_count(self) -> int:
        """Connections open or being opened."""
        return len(self._open)

    def is_held(self, attempt: Attempt) -> bool:
        """Whether it is held, and the kernel has no end of it that was not read yet: one that waits
        for its turn here must not count as served."""
        return attempt.is_held and not sockets.is_ended(attempt.sock)

    def close(self) -> None:
        """End every open connection and stop the timer. May be called again."""
        for attempt in list(self._open):
            self.end(attempt)
        self._timer.stop()
        self._timer.close()

    def accepted(self, attempt: Attempt) -> bool | None:
        """What the oracle says of an open attempt; None without oracle or row."""
        if self.oracle is None or attempt.sock is None:
            return None
        try:
            here, there = attempt.sock.getsockname(), attempt.sock.getpeername()
        except OSError:
            return None
        return self.oracle.accepted(there[:2], here[:2])

    # -- hub callbacks ----------------------------------------------------------------------

    def _readable(self, attempt: Attempt) -> None:
        try:
            self._receive(attempt)
        except Exception as error:
            self.failure = error
            self.end(attempt)

    def _receive(self, attempt: Attempt) -> None:
        # Always recv before looking at SO_ERROR, which is cleared by reading it: data that came
        # before a reset is still handed out, and the reset comes with the next call.
        try:
            data = attempt.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._closed(attempt, error.errno or 0)
            return
        if not data:
            self._closed(attempt, 0)
        elif attempt.outcome is None or (attempt.served == 0 and attempt.keep):
            self._data(attempt, data)
        elif self.profile.judges_by_silence:  # it tells how they were turned away, if they were
            attempt.received += data[: max(0, _KEPT - len(attempt.received))]

    def _closed(self, attempt: Attempt, number: int) -> None:
        if attempt.outcome is None:
            self._finish(attempt, self._of_close(attempt, number))
            return
        self._unwatch(attempt)
        attempt.ended = monotonic_ns()
        attempt.ended_by = self._of_close(attempt, number)
        self.end(attempt)
        self.on_change(attempt)

    def _of_close(self, attempt: Attempt, number: int) -> Outcome:
        if attempt.served and not self.profile.judges_by_silence:
            return of_close(b"", number)  # what had come was for the admitted
        return of_close(unexpected(self.profile, attempt.received), number)

    def _data(self, attempt: Attempt, data: bytes) -> None:
        attempt.received += data
        outcome = of_data(self.profile, attempt.received, probed=attempt.probed)
        if outcome is None:
            # Whatever it is, it has just come: what follows gets a whole quiet-time.
            attempt.heard = now = monotonic_ns()
            self._waits.listen(attempt, now)
        elif attempt.outcome is None:
            self._finish(attempt, outcome)
        elif outcome is Outcome.ADMITTED:
            attempt.served = monotonic_ns()
            self.on_change(attempt)
        else:
            self._closed(attempt, 0)

    def _send_probe(self, attempt: Attempt) -> None:
        attempt.probed = True
        try:
            attempt.sock.send(self.profile.send)
        except BlockingIOError:
            pass
        except OSError as error:
            # A reset is reported once, here, and recv would then read as end of file.
            failed = error.errno or 0
            try:
                attempt.received += attempt.sock.recv(_CHUNK)
            except OSError:
                pass
            else:
                if failed == errno.EPIPE and not attempt.received:
                    failed = 0  # end of file came first
            self._finish(attempt, self._of_close(attempt, failed))

    def _sweep(self) -> None:
        try:
            now = monotonic_ns()
            for attempt in self._waits.quiet(now):
                due = attempt.quiet_at
                # The verdict may lie unread: a hub that is late must not take that for quiet,
                # nor speak to a server that has closed already.
                self._receive(attempt)
                if attempt.sock is not None and not attempt.served and due == attempt.quiet_at:
                    self._on_quiet(attempt, now)
            for attempt in self._waits.overdue(now):
                self._on_deadline(attempt)
        except Exception as error:
            self.failure = error

    def _on_quiet(self, attempt: Attempt, now: int) -> None:
        if not sockets.is_connected(attempt.sock):
            self._waits.listen(attempt, now)
            return
        accepted = None
        if self.profile.speaks is Speaks.NOBODY:
            accepted = self.accepted(attempt)
            if accepted and not attempt.heard:
                # Between accept and a rejection lies the server's own work: quiet-time counts
                # anew from when the connection was first seen accepted.
                attempt.heard = now
                self._waits.listen(attempt, now)
                return
        step = of_quiet(self.profile, attempt.received, probed=attempt.probed, accepted=accepted)
        if step is Next.SEND:
            self._send_probe(attempt)
        elif step is Next.WAIT:
            if self.oracle is not None and self.profile.speaks is Speaks.NOBODY:
                # Only asking again can tell.
                self._waits.listen(attempt, now)
        elif attempt.outcome is None:
            self._finish(attempt, step, attempt.heard)
        else:
            attempt.served = attempt.heard or monotonic_ns()
            self.on_change(attempt)

    def _on_deadline(self, attempt: Attempt) -> None:
        self._receive(attempt)  # as before quiet-time is called over
        if attempt.outcome is not None:
            return
        accepted = self.accepted(attempt)
        # We may think that we are connected when the server's kernel does not: its queue was full
        # when our ACK came, and with SYN cookies it keeps nothing of us.
        half_open = self.sees_rows and self.oracle is not None and accepted is None
        outcome = of_deadline(
            self.profile,
            attempt.received,
            connected=not half_open and sockets.is_connected(attempt.sock),
            accepted=accepted,
        )
        # A message has come when its text did: more might have followed, and has not.
        self._finish(attempt, outcome, attempt.heard if outcome is Outcome.MESSAGE else 0)

    def _finish(self, attempt: Attempt, outcome: Outcome, at: int = 0) -> None:
        attempt.finished = at or monotonic_ns()
        if outcome is Outcome.ADMITTED and sockets.is_self_connected(attempt.sock):
            outcome = Outcome.REFUSED
        attempt.outcome = outcome
        self.in_flight -= 1
        if outcome is Outcome.ADMITTED:
            attempt.served = attempt.finished
        if not (attempt.keep and outcome in _LEAVES_OPEN):
            self.end(attempt)
        self.on_outcome(attempt)

    def _unwatch(self, attempt: Attempt) -> None:
        # The collector is off while measuring: the watcher holds the attempt and the attempt the
        # watcher, so the circle is cut by hand.
        watcher = attempt.watcher
        if watcher is not None:
            attempt.watcher = None
            watcher.stop()
            watcher.close()
