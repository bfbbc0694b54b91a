"""``probe churn``: clients leave and join at the cap."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic_ns, process_time
from typing import Any

import gevent
from gevent.event import Event

from gserver.probe.attempt import Attempt, Batches
from gserver.probe.calibrate import Calibration
from gserver.probe.churn_report import ChurnFinding, report_churn
from gserver.probe.errors import TargetError
from gserver.probe.holders import must_be_full
from gserver.probe.ledger import Ledger
from gserver.probe.outcomes import REJECTIONS, Outcome
from gserver.probe.profiles import Speaks
from gserver.probe.result import Result
from gserver.probe.run import Run, collector_off
from gserver.probe.target import Target

__all__ = ["ChurnSettings", "run_churn"]

_ROUNDS_WITHOUT_GAIN = 5
_AGAIN_S = 0.001  # between one client's rejection and its next try
_LAST_S = 0.05  # beyond two admissions: for the last leavers, who wait for the cap to be full


@dataclass(frozen=True, slots=True)
class ChurnSettings:
    """:param tries: close-then-reconnect, one after the other, within *tries_s*.
    :param rate: leavers a second in the second part, which lasts *duration_s*.
    :param joiners: clients that knock all the time in it.
    """

    cap: int
    tries: int
    rate: float
    duration_s: float
    joiners: int
    seed: int
    tries_s: float = inf


def run_churn(
    target: Target, calibration: Calibration, run: Run, settings: ChurnSettings, result: Result
) -> None:
    """Both parts, figures into *result*.

    :raises TargetError: the cap cannot be filled, or is not one.
    :raises LocalError: this machine could not find out whether it is one.
    """
    churn = _Churn(target, calibration, run, settings)
    try:
        churn.fill()
        with collector_off():
            churn.serially()
            if not churn.over:
                churn.at_once()
        if churn.engine.failure is not None:
            raise churn.engine.failure
    finally:
        churn.engine.close()
    churn.found.peak, churn.found.stopped = churn.ledger.peak, run.stopped
    report_churn(result, churn.found)


class _Churn:
    def __init__(
        self, target: Target, calibration: Calibration, run: Run, settings: ChurnSettings
    ) -> None:
        self.run = run
        self.settings = settings
        self.target = target
        self.patience = calibration.patience
        self.batches = Batches(calibration.admitted_s)
        self.ledger = Ledger(settings.cap, int(calibration.grace_s * 1e9))
        self.held: list[Attempt] = []
        self.found = ChurnFinding(settings.cap, settings.rate, self.patience.deadline_s)
        # Who speaks first to be answered, or is admitted by silence, has listened before that.
        if calibration.profile.speaks is not Speaks.SERVER:
            self.found.listens_s = self.patience.quiet_s
        self.freed: list[int] = []  # our closes that nobody has been admitted for yet
        self.measured_from = 0  # what was closed before is warm-up
        self.turned_away = 0  # the first who came after the oldest of these, and was
        self.silent_until = 0  # so far :attr:`ChurnFinding.silent` is counted
        self.last_s = 2 * calibration.admitted_s + _LAST_S
        self._waiters: dict[Attempt, Event] = {}
        self.engine = calibration.engine(
            target,
            on_outcome=self._on_outcome,
            on_change=self._on_change,
        )

    # -- hub callbacks ----------------------------------------------------------------------

    def _on_outcome(self, attempt: Attempt) -> None:
        outcome = attempt.outcome
        assert outcome is not None
        self.found.outcomes[outcome] += 1
        self.ledger.begin(attempt, attempt.started)  # some come to their outcome as they start
        if self.freed:
            self._waited(max(self.freed[0], attempt.started), attempt.finished)
        if outcome is Outcome.ADMITTED:
            if len(self.held) >= self.settings.cap:
                self._look_for_ended()
            self.ledger.admitted(attempt, attempt.finished)
            self.held.append(attempt)
            if self.freed:
                closed = self.freed.pop(0)
                # Whoever comes while another is let in, who listens first, is rightly turned away:
                # the server kept the slot if that was somebody before the one it let in.
                if 0 < self.turned_away < attempt.started:
                    self.found.kept += attempt.started - closed
                self.turned_away = 0
                if closed >= self.measured_from:
                    self.found.lag.append(attempt.finished - closed)
                    self.found.connect_lag.append(max(0, attempt.started - closed))
        elif outcome in REJECTIONS:
            self.found.false[self.ledger.rejected(attempt, attempt.finished)] += 1
            if self.freed and attempt.started >= self.freed[0]:
                self.turned_away = self.turned_away or attempt.started
        elif outcome is Outcome.LOCAL:
            self.ledger.never_left(attempt)
            self.found.local_errors += 1
        else:
            self._give_up(attempt)  # no answer is no false rejection
        waiter = self._waiters.pop(attempt, None)
        if waiter is not None:
            waiter.set()

    def _waited(self, since: int, until: int) -> None:
        """Somebody asked for a free place *since* then, and was not answered before *until*."""
        late = until - max(since, self.silent_until) - int(self.last_s * 1e9)
        if late > 0:
            self.found.silent, self.silent_until = self.found.silent + late, until

    def _on_change(self, attempt: Attempt) -> None:
        if attempt.ended and attempt in self.held:
            self._ended(attempt, attempt.ended)

    def _ended(self, attempt: Attempt, when: int) -> None:
        self.held.remove(attempt)
        self.ledger.ended(when)
        self.found.lost += 1

    def _look_for_ended(self) -> None:
        """Before so many count as served at once: those go whose end has come and was not read."""
        now = monotonic_ns()
        for attempt in [each for each in self.held if not self.engine.is_held(each)]:
            self._ended(attempt, now)
            self.engine.end(attempt)

    @property
    def over(self) -> bool:
        """Whether to end now: interrupted, or this machine failed and the run does not count."""
        return self.run.stopped or self.found.local_errors > 0

    # -- one step ---------------------------------------------------------------------------

    def _try(self) -> Attempt:
        """One attempt, until its outcome."""
        attempt = self.engine.start(keep=True)
        if attempt.outcome is None:
            self.ledger.begin(attempt, attempt.started)
            waiter = self._waiters[attempt] = Event()
            self.run.wait(waiter, self.patience.deadline_s + 1)
            if attempt.outcome is None:  # a stopped run's wait says no, though it came by then
                del self._waiters[attempt]
                self._give_up(attempt)
        return attempt

    def _give_up(self, attempt: Attempt) -> None:
        self.ledger.given_up(attempt, monotonic_ns())
        self.engine.end(attempt)

    def _leave(self, attempt: Attempt) -> int:
        self.held.remove(attempt)
        now = monotonic_ns()
        self.ledger.ended(now)
        self.engine.end(attempt, reset=False)
        return now

    # -- the parts --------------------------------------------------------------------------

    def fill(self) -> None:
        barren = 0
        while len(self.held) < self.settings.cap and not self.over:
            self.run.tell(f"filling: {len(self.held)} of {self.settings.cap}")
            before = len(self.held)
            count = self.batches.size(before, self.settings.cap)
            batch = [gevent.spawn(self._try) for _ in range(count)]
            self._join_all(batch)
            self.batches.came_to([client.value for client in batch if client.value])
            barren = 0 if len(self.held) > before else barren + 1
            if barren > _ROUNDS_WITHOUT_GAIN and not self.over:
                raise TargetError(
                    f"{self.target.text}: only {len(self.held)} of {self.settings.cap} were "
                    "admitted; is --cap right, and nobody else connected?"
                )
            if barren:
                self.run.pause(0.05)
        if not self.over:
            more = self._try()
            must_be_full(self.target, self.settings.cap, more.outcome, self.run)
        self.found.false.clear()
        self.found.outcomes.clear()

    def serially(self) -> None:
        """Close one, reconnect at once, until admitted; as often as was asked for.

        Ends early when its time is over, and when a slot is lost: not there again when the
        deadline has passed.
        """
        ends = monotonic_ns() + self.settings.tries_s * 1e9
        for done in range(self.settings.tries):
            if self.over or not self.held or self.found.serial_lost:
                break
            if monotonic_ns() >= ends:
                self.found.serial_late = (
                    f"only {done} of {self.settings.tries} came back one after the other: the "
                    f"{self.settings.tries_s:.0f} s for them were over"
                )
                break
            self.run.tell(f"close, then reconnect: {done} of {self.settings.tries}")
            self._reconnect(self._leave(self.held[0]))
        self.found.serial_false = self.found.false.copy()

    def _reconnect(self, closed: int) -> None:
        gives_up = 0
        while not self.over:
            attempt = self._try()
            if attempt.outcome is None or attempt.outcome is Outcome.LOCAL:
                return
            if not gives_up:
                gives_up = attempt.finished + int(self.patience.deadline_s * 1e9)
                self.found.serial_first[attempt.outcome] += 1
            if attempt.outcome is Outcome.ADMITTED:
                self.found.serial_lag.append(attempt.finished - closed)
                self.found.serial_connect_lag.append(attempt.started - closed)
                return
            if attempt.finished > gives_up:
                self.found.serial_lost += 1
                return
            gevent.sleep(_AGAIN_S)

    def at_once(self) -> None:
        """Leavers at a rate, joiners that knock all the time.

        A leaver who is due while the cap is not full waits until it is.
        """
        draw = random.Random(self.settings.seed)
        self.found.ran_at_once = self.settings.duration_s > 0
        ends = monotonic_ns() + int(self.settings.duration_s * 1e9)
        over = Event()
        joiners = [gevent.spawn(self._join, over) for _ in range(self.settings.joiners)]
        began, cpu = monotonic_ns(), process_time()
        self.measured_from = began + (ends - began) // 10
        for due in self._due(draw, began, ends):
            comes = self._comes_to_leave(due, began, ends + int(self.last_s * 1e9))
            if self.over:  # nobody is skipped for who stopped us
                break
            self.found.planned += 1
            if comes:
                self.freed.append(self._leave(draw.choice(self.held)))
                self.found.leavers += 1
        if self.freed and self.turned_away:
            self.found.kept += monotonic_ns() - self.freed[0]
        self.found.at_once_s = (monotonic_ns() - began) / 1e9
        self.found.at_once_cpu_s = process_time() - cpu
        over.set()
        self._join_all(joiners)

    def _due(self, draw: random.Random, began: int, ends: int) -> Iterator[int]:
        due = began + draw.expovariate(self.settings.rate) * 1e9
        while due < ends:
            yield int(due)
            due += draw.expovariate(self.settings.rate) * 1e9

    def _comes_to_leave(self, due: int, began: int, last: int) -> bool:
        """Wait until *due*, and then for the cap to be full; whether it was, by *last*."""
        while not self.over and (now := monotonic_ns()) < last:
            passed = (now - began) / 1e9
            self.run.tell(f"leaving and joining: {passed:.1f} of {self.settings.duration_s:g} s")
            if now < due:
                self.run.pause((due - now) / 1e9)
            elif len(self.held) >= self.settings.cap:
                return True
            else:
                self.run.pause(_AGAIN_S)
                if len(self.held) + len(self.freed) < self.settings.cap:
                    self.found.kept += monotonic_ns() - now
        return False

    def _join(self, over: Event) -> None:
        while not over.is_set() and not self.found.local_errors:
            self._try()
            gevent.sleep(_AGAIN_S)

    def _join_all(self, clients: list[gevent.Greenlet[..., Any]]) -> None:
        # An error in one of them is the run's: nobody dies unseen.
        gevent.joinall(clients, timeout=self.patience.deadline_s + 2, raise_error=True)
