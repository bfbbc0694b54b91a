"""The books of ``probe cap``: who is held, who waits, and what became of everybody else."""

from __future__ import annotations

from collections import Counter
from time import monotonic, monotonic_ns
from typing import Final

from gserver.probe.attempt import Attempt, too_many_at_once
from gserver.probe.calibrate import Calibration
from gserver.probe.finding import CapFinding
from gserver.probe.outcomes import Outcome
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["Books"]

_BIGGEST_STEP: Final = 256
_LONG_S: Final = 0.5  # who takes longer to judge than that is judged while others are, too
_QUIET_TIMES: Final = 4  # until seen accepted, as long again, and twice that for a slow server


class Books:
    """Connections to *target* that are held, that wait, and that were turned away.

    The search opens and closes them through here; :attr:`finding` is kept up to date by callbacks.
    """

    def __init__(self, target: Target, calibration: Calibration, run: Run, maximum: int) -> None:
        self.finding = CapFinding()
        self.run = run
        self.maximum = maximum
        self.patience = calibration.patience
        self.by_silence = calibration.profile.judges_by_silence
        self.watch_s = calibration.watch_s
        # Who has been silent for so long since their connect is held; raised by who is late.
        self.settle_s = 0.0
        if self.by_silence:
            self.settle_s = min(_QUIET_TIMES * self.patience.quiet_s, self.watch_s)
        self.late = False
        self.held: set[Attempt] = set()
        self.waiting: set[Attempt] = set()
        self.biggest_step = _BIGGEST_STEP
        self.too_many = False  # the last that were opened at once
        self.usual_s = calibration.admitted_s
        self.promoted = 0
        self.freed_at = 0  # when we, or the server, last made a place, monotonic ns
        self.closed_at = monotonic_ns()  # when we last did: at the latest now, in the calibration
        self.oldest_at = self.closed_at  # when the first place was made that may not be back yet
        # By then a slot is back, as far as is known.
        self.back_s = max(self.patience.deadline_s, 2 * calibration.slot_back_s)
        self.engine = calibration.engine(
            target,
            on_outcome=self._on_outcome,
            on_change=self._on_change,
        )

    def _on_outcome(self, attempt: Attempt) -> None:
        finding = self.finding
        if attempt.outcome is Outcome.ADMITTED:
            self._hold(attempt)
        elif attempt.outcome is Outcome.LOCAL:
            finding.local_errors += 1
        elif attempt.outcome is not None:
            self._was_turned_away(attempt, attempt.outcome)
            if attempt.is_waiting:
                self.waiting.add(attempt)

    def _on_change(self, attempt: Attempt) -> None:
        self.waiting.discard(attempt)
        if attempt.is_held:
            self.promoted += 1
            if attempt.outcome is Outcome.SYN_PENDING and attempt.started > self.freed_at:
                # In without a place made for it: the server had room, the kernel had dropped its
                # handshake, and the next came through.
                self._was_overtaken(attempt)
            self._hold(attempt)
        elif attempt in self.held:
            self.held.discard(attempt)
            open_s = (attempt.ended - attempt.started) / 1e9
            if self.by_silence and attempt.ended_by is not None and open_s <= self.watch_s:
                self._was_turned_away(attempt, attempt.ended_by)  # never admitted
                if open_s > self.settle_s:
                    self.late = True
                    self.finding.late_s = max(self.finding.late_s, open_s)
            else:
                self.freed_at = attempt.ended
                moment_s = attempt.ended / 1e9 - self.run.began
                age_s = (attempt.ended - attempt.served) / 1e9
                self.finding.drops.append((moment_s, age_s))

    def _was_turned_away(self, attempt: Attempt, how: Outcome) -> None:
        self.finding.turned_away[how] += 1
        if how is Outcome.MESSAGE:
            self.finding.message = self.finding.message or attempt.received[:200]

    def _hold(self, attempt: Attempt) -> None:
        self.held.add(attempt)
        if not self.by_silence:
            self._note_peak()

    def _note_peak(self) -> None:
        """Called at each one who is held. Beyond the highest so far the kernel is asked who has
        been ended and was not told yet; below what is no over-admission, only at a step's end."""
        finding = self.finding
        bound = finding.limit if finding.expected is None else finding.expected
        if len(self.held) > max(finding.peak, bound or self.maximum):
            self._ask_for_peak()

    def _ask_for_peak(self) -> None:
        if len(self.held) > self.finding.peak:
            served = sum(self.engine.is_held(attempt) for attempt in self.held)
            self.finding.peak = max(self.finding.peak, served)

    def _open(self, count: int, *, apart_s: float = 0.0) -> list[bool]:
        """Open *count*, at once or that far apart; which of them are held, by their order."""
        began = self.run.began
        batch: list[Attempt] = []
        for i in range(count):
            if i and apart_s and not self.run.pause(apart_s):
                break
            batch.append(self.engine.start(keep=True))
        self.run.until(lambda: all(a.outcome for a in batch), self.patience.deadline_s + 1.0)
        if self.by_silence:  # a rejection may still come: count who is left after a while
            settled = batch[-1].started / 1e9 + self.settle_s
            self.run.until(lambda: not any(a.is_held for a in batch), settled - monotonic())
        self._ask_for_peak()
        self.too_many = too_many_at_once(batch, self.usual_s)
        self.finding.steps.append(((batch[0].started / 1e9) - began, len(self.held), count))
        self.run.tell(f"holding {len(self.held)}, tried {count} more")
        return [a.is_held and a.outcome is Outcome.ADMITTED for a in batch]

    def _they_are_in_line(self) -> bool:
        """Whether who comes now must wait like those who wait; if not, those are given up.

        Who came at once with others may wait for no server: the kernel has dropped their handshake
        because the backlog was too short, and tries again after a second or more.
        """
        if not self.waiting:
            return False
        before = set(self.waiting)
        self._open(1)
        if self.waiting - before:
            return True
        for attempt in before & self.waiting:
            self._was_overtaken(attempt)
            self.engine.end(attempt)
        self.waiting.clear()
        return False

    def _was_overtaken(self, attempt: Attempt) -> None:
        assert attempt.outcome is not None
        self.finding.turned_away[attempt.outcome] -= 1
        self.finding.turned_away += Counter()  # without those of 0
        self.finding.overtaken += 1

    def _close_one(self) -> None:
        attempt = next(iter(self.held))
        self.held.discard(attempt)
        self.freed_at = now = monotonic_ns()
        if now - self.closed_at > self.back_s * 1e9:
            self.oldest_at = now
        self.closed_at = now
        self.engine.end(attempt, reset=False)

    @property
    def _over(self) -> bool:
        """Whether nothing more can be found out: interrupted, outrun, or this machine failed."""
        return self.run.stopped or self.finding.outrun or self.finding.local_errors > 0

    @property
    def _takes_long(self) -> bool:
        return self.settle_s > _LONG_S
