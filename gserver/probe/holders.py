"""Holders: connections that were proven served and are kept, so that the server is full."""

from __future__ import annotations

from time import monotonic

from gserver.probe.attempt import Attempt, too_many_at_once
from gserver.probe.calibrate import Calibration
from gserver.probe.cap import find_cap
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.outcomes import Outcome
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["Holders", "cap_or_found"]

_STEP = 128
_COMES_BACK_S = 0.2  # for the slots of what was just closed
_ROUNDS_WITHOUT_GAIN = 5


class Holders:
    """Opens and keeps connections to *target*. :meth:`close` ends them all.

    :attr:`held` is who holds now; :attr:`dropped` when the server ended one (monotonic ns).
    """

    def __init__(self, target: Target, calibration: Calibration, run: Run) -> None:
        self.held: set[Attempt] = set()
        self.dropped: list[int] = []
        self.target = target
        self._run = run
        self._patience = calibration.patience
        self._usual_s = calibration.admitted_s
        self.engine = calibration.engine(
            target,
            on_change=self._on_change,
        )

    def _on_change(self, attempt: Attempt) -> None:
        if attempt.ended and attempt in self.held:
            self.held.discard(attempt)
            self.dropped.append(attempt.ended)

    def fill(self, count: int) -> None:
        """Hold *count* in all.

        :raises TargetError: the server does not let in that many.
        :raises LocalError: this machine could not make the connections.
        """
        barren, most = 0, _STEP
        while len(self.held) < count and barren < _ROUNDS_WITHOUT_GAIN and not self._run.stopped:
            before = len(self.held)
            step = min(max(1, before), most, count - before)
            batch = [self.engine.start(keep=True) for _ in range(step)]
            self._run.until(
                lambda batch=batch: all(a.outcome for a in batch),  # type: ignore[misc]
                self._patience.deadline_s + 1,
            )
            if too_many_at_once(batch, self._usual_s):
                most = max(1, step // 2)
            if any(attempt.outcome is Outcome.LOCAL for attempt in batch):
                raise LocalError(
                    f"after {len(self.held)} of {count} connections this machine could make no "
                    "more (descriptors or ports); raise the limit on open files"
                )
            for attempt in batch:
                if attempt.is_held:
                    self.held.add(attempt)
                else:
                    self.engine.end(attempt)
            self._run.tell(f"holding {len(self.held)} of {count}")
            barren = 0 if len(self.held) > before else barren + 1
            if barren:
                self._run.pause(0.05)
        if len(self.held) < count and not self._run.stopped:
            raise TargetError(
                f"{self.target.text}: only {len(self.held)} of {count} connections were admitted; "
                "is --cap right, and nobody else connected?"
            )

    def check_full(self) -> Outcome | None:
        """Try one more. What became of it; it is closed again.

        :raises TargetError: it was admitted.
        """
        attempt = self.engine.start(keep=True)
        self._run.until(lambda: attempt.outcome, self._patience.deadline_s + 1)
        self.engine.end(attempt)
        if attempt.outcome is Outcome.ADMITTED:
            raise TargetError(
                f"{self.target.text}: admits more than {len(self.held)}; give the real --cap, or "
                "leave it out to have it found"
            )
        return attempt.outcome

    def release(self, attempt: Attempt) -> None:
        """Close one, from our side, with FIN."""
        self.held.discard(attempt)
        self.engine.end(attempt, reset=False)

    def close(self) -> None:
        """End all. May be called again."""
        self.held.clear()
        self.engine.close()


def cap_or_found(
    target: Target, calibration: Calibration, run: Run, cap: int | None, maximum: int
) -> tuple[int, Calibration]:
    """The cap that was given, or the limit that ``probe cap`` finds; and how to judge from now on.

    Where only silence shows that a client was admitted, the calibration that is returned listens
    for as long as the server takes to turn somebody away. It shares *calibration*'s oracle.

    :raises TargetError: none given and none found.
    """
    if cap is not None:
        late_s = _late_s(target, calibration, run, cap)
    else:
        finding = find_cap(target, calibration, run, maximum=maximum)
        if finding.limit is None:
            raise TargetError(f"{target.text}: no limit found up to {finding.peak}; give --cap")
        cap, late_s = finding.limit, finding.late_s
        run.pause(_COMES_BACK_S)
    return cap, calibration.hearing_out(late_s) if late_s else calibration


def _late_s(target: Target, calibration: Calibration, run: Run, cap: int) -> float:
    """How long the server takes to turn away one more than *cap*, as far as silence hid it."""
    if not calibration.profile.judges_by_silence:
        return 0.0
    holders = Holders(target, calibration, run)
    try:
        run.pause(_COMES_BACK_S)
        holders.fill(cap)
        # All of them are looked at: one of the holders may be who came while a slot was taken.
        opened = [*holders.held, more := holders.engine.start(keep=True)]
        run.tell("is anybody turned away late?")
        run.until(lambda: more.outcome, calibration.patience.deadline_s + 1)
        if more.outcome is not Outcome.ADMITTED:
            return 0.0
        run.pause(max(0.0, more.started / 1e9 + calibration.watch_s - monotonic()))
        return max((a.ended - a.started) / 1e9 if a.ended else 0.0 for a in opened)
    finally:
        holders.close()
        run.pause(_COMES_BACK_S)
