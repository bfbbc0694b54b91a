"""``probe cap``: the limit, what happens at it, and the proof that it is one.

A step ramp that holds what it opens; then one by one, which finds the level a server that counts
sloppily in a burst comes back to; then past it; then one is closed and exactly one more must fit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from gserver.probe.attempt import Attempt
from gserver.probe.calibrate import Calibration
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import Speaks
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["CapFinding", "find_cap"]

_BIGGEST_STEP: Final = 256
_IN_A_ROW: Final = 3  # turned away that often, one by one, before a level is called the limit
_BETWEEN_S: Final = 0.05  # for a slot that is still being given back
_REFILL: Final = 8
_FIRST_TRIES: Final = 4

#: What the outcome at the limit says of the server.
POLICY: Final = {
    Outcome.FIN: "rejects: closes the connection (FIN)",
    Outcome.RST: "rejects: resets the connection (RST)",
    Outcome.MESSAGE: "rejects: says so, then closes",
    Outcome.REFUSED: "refuses: no handshake (ECONNREFUSED)",
    Outcome.QUEUED: "queues: connected, but never accepted; the client hangs",
    Outcome.SYN_PENDING: "drops: no answer to the handshake; the client hangs",
    Outcome.HANG: "hangs: accepted, but never served",
    Outcome.UNKNOWN: "cannot be told from here: connected, then silence",
}


@dataclass(slots=True)
class CapFinding:
    """What ``probe cap`` found.

    :param limit: connections served at the same time when the next is turned away one by one;
        None: no limit up to :attr:`peak`.
    :param peak: most connections proven served at the same time.
    :param turned_away: outcomes of those that were not admitted.
    :param fits_after_close: how many more were admitted once one was closed (1 is right).
    :param tries_after_close: attempts until the first was (1: the slot was free at once).
    :param slots_lost: how many did not come back when their clients had left.
    :param dropped_while_held: ended by the server after it had served them.
    """

    limit: int | None = None
    peak: int = 0
    turned_away: Counter[Outcome] = field(default_factory=Counter)
    message: bytes = b""
    fits_after_close: int | None = None
    tries_after_close: int | None = None
    dropped_while_held: int = 0
    slots_lost: int = 0
    local_errors: int = 0
    expected: int | None = None
    steps: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, held, tried

    @property
    def policy(self) -> Outcome | None:
        """The commonest way of being turned away; None: nobody was."""
        return self.turned_away.most_common(1)[0][0] if self.turned_away else None

    @property
    def over_admissions(self) -> int:
        """Certain ones: proven served at the same time, less the cap (given, or found)."""
        cap = self.expected if self.expected is not None else self.limit
        return max(0, self.peak - cap) if cap is not None else 0

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "limit": self.limit,
            "expected": self.expected,
            "peak": self.peak,
            "policy": self.policy,
            "turned_away": dict(self.turned_away),
            "message": self.message.decode("latin-1"),
            "over_admissions": self.over_admissions,
            "fits_after_close": self.fits_after_close,
            "tries_after_close": self.tries_after_close,
            "dropped_while_held": self.dropped_while_held,
            "slots_lost": self.slots_lost,
            "steps": self.steps,
        }


def find_cap(
    target: Target,
    calibration: Calibration,
    run: Run,
    *,
    maximum: int,
    expected: int | None = None,
) -> CapFinding:
    """Find the limit of *target*, holding at most *maximum* connections. Closes them all.

    :param expected: the cap it should have; over-admissions are counted against it.
    """
    search = _Search(target, calibration, run, maximum)
    search.finding.expected = expected
    try:
        search.ramp()
    finally:
        search.engine.close()
    if search.engine.failure is not None:
        raise search.engine.failure
    return search.finding


class _Search:
    def __init__(self, target: Target, calibration: Calibration, run: Run, maximum: int) -> None:
        self.finding = CapFinding()
        self.run = run
        self.maximum = maximum
        self.patience = calibration.patience
        self.is_silent = calibration.profile.speaks is Speaks.NOBODY
        self.closes_by_itself_s = calibration.closes_after_s
        self.held: set[Attempt] = set()
        self.waiting: set[Attempt] = set()
        self.promoted = 0
        self.engine = calibration.engine(
            target,
            on_outcome=self._on_outcome,
            on_change=self._on_change,
        )

    # -- the books ------------------------------------------------------------------------

    def _on_outcome(self, attempt: Attempt) -> None:
        finding = self.finding
        if attempt.outcome is Outcome.ADMITTED:
            self._hold(attempt)
        elif attempt.outcome is Outcome.LOCAL:
            finding.local_errors += 1
        elif attempt.outcome is not None:
            finding.turned_away[attempt.outcome] += 1
            finding.message = finding.message or attempt.received[:200]
            if attempt.is_waiting:
                self.waiting.add(attempt)

    def _on_change(self, attempt: Attempt) -> None:
        self.waiting.discard(attempt)
        if attempt.is_held:
            self.promoted += 1
            self._hold(attempt)
        elif attempt in self.held:
            self.held.discard(attempt)
            if self.is_silent and self.closes_by_itself_s is None and attempt.ended_by is not None:
                self.finding.turned_away[attempt.ended_by] += 1  # a rejection after quiet-time
            else:
                self.finding.dropped_while_held += 1

    def _hold(self, attempt: Attempt) -> None:
        self.held.add(attempt)
        if not self.is_silent:
            self.finding.peak = max(self.finding.peak, len(self.held))

    def _open(self, count: int) -> int:
        """Open *count* at once; how many of them were admitted."""
        began = self.run.began
        batch = [self.engine.start(keep=True) for _ in range(count)]
        self.run.until(lambda: all(a.outcome for a in batch), self.patience.deadline_s + 1.0)
        if self.is_silent:  # a slow rejection may still come: count who is left after a while
            self.run.pause(self.patience.quiet_s * 2)
            self.finding.peak = max(self.finding.peak, len(self.held))
        self.finding.steps.append(((batch[0].started / 1e9) - began, len(self.held), count))
        self.run.tell(f"holding {len(self.held)}, tried {count} more")
        return sum(a.is_held for a in batch if a.outcome is Outcome.ADMITTED)

    def _close_one(self) -> None:
        attempt = next(iter(self.held))
        self.held.discard(attempt)
        self.engine.end(attempt, reset=False)

    # -- the search -----------------------------------------------------------------------

    def ramp(self) -> None:
        """Raise, go one by one, go past, confirm. Ends early when the run is stopped."""
        for _ in range(_FIRST_TRIES):  # the slot of the calibration may still be coming back
            self.run.pause(_BETWEEN_S)
            if self._open(1):
                break
            for attempt in list(self.waiting):
                self.engine.end(attempt)
            self.waiting.clear()
        self.finding.turned_away.clear()
        step = 1
        while not self.run.stopped and not self.finding.local_errors:
            step = min(step, self.maximum - len(self.held))
            if step <= 0:
                return
            if self._open(step) < step and self._is_level():
                break
            step = min(max(1, len(self.held)), _BIGGEST_STEP)
        else:
            return
        self._confirm()

    def _is_level(self) -> bool:
        """One by one: whether nobody more is admitted; if so, the level is the limit."""
        turned = 0
        while turned < _IN_A_ROW and len(self.held) < self.maximum and not self.run.stopped:
            if self.waiting:  # those already in line come first: whoever joins shows nothing new
                before = self.promoted
                self.run.pause(_BETWEEN_S)
                turned = turned + 1 if before == self.promoted else 0
                continue
            if self._open(1):
                turned = 0
            else:
                turned += 1
                self.run.pause(_BETWEEN_S)
        if turned < _IN_A_ROW:
            return False
        self.finding.limit = len(self.held)
        return True

    def _confirm(self) -> None:
        """Go past the limit at once; come back to it one by one; close one: one more fits."""
        over = self._open(min(max(3, len(self.held) // 4), 32))
        if self.waiting:
            self._confirm_with_queue()
            return
        # A server that counts sloppily in a burst holds too many now, and admits nobody before
        # it is back below its limit: leave room, and fill up one by one.
        first = len(self.held) - over
        again = self._refill(over + _REFILL)
        if again < first and not self.run.stopped:
            # Either the ramp's own burst had let in too many, and this is the limit; or slots
            # do not come back, and another round gets lower still.
            third = self._refill(_REFILL)
            if third < again:
                self.finding.slots_lost = first - third
                self.finding.limit = first
                return
        if not self.held or self.run.stopped:
            return
        self._close_one()
        tries, fits = 0, 0
        gives_up = monotonic() + self.patience.deadline_s
        while not fits and not self.run.stopped and monotonic() < gives_up:
            tries += 1
            fits = self._open(1)
            if not fits and tries > 1:
                self.run.pause(min(0.001 * tries, _BETWEEN_S))
        fits += self._open(3)
        if not self.run.stopped:
            self.finding.tries_after_close, self.finding.fits_after_close = tries, fits

    def _refill(self, count: int) -> int:
        """Close *count*, fill up one by one; the level that is reached."""
        for _ in range(min(count, len(self.held) - 1)):
            self._close_one()
        self.run.pause(_BETWEEN_S * 4)
        while not self._is_level():
            if self.run.stopped or len(self.held) >= self.maximum:
                break
        return len(self.held)

    def _confirm_with_queue(self) -> None:
        before = self.promoted
        self._close_one()
        self.run.until(lambda: self.promoted > before, self.patience.deadline_s)
        self.run.pause(_BETWEEN_S * 4)  # nobody else may follow
        if not self.run.stopped:
            self.finding.tries_after_close = 1
            self.finding.fits_after_close = self.promoted - before
