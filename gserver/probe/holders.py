"""Holders: connections that were proven served and are kept, so that the server is full."""

from __future__ import annotations

from gserver.probe.attempt import Attempt, Batches
from gserver.probe.calibrate import Calibration
from gserver.probe.errors import LocalError, TargetError
from gserver.probe.outcomes import Outcome
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["Holders", "must_be_full"]

_ROUNDS_WITHOUT_GAIN = 5


def must_be_full(target: Target, held: int, outcome: Outcome | None, run: Run) -> None:
    """Judge what became of one more client than the *held*.

    :param outcome: None: it has none yet, which only a stopped run excuses.
    :raises TargetError: it was admitted.
    :raises LocalError: this machine could not try it.
    """
    if outcome is Outcome.ADMITTED:
        raise TargetError(
            f"{target.text}: admits more than {held}; give the real --cap, or leave it out to "
            "have it found"
        )
    if outcome is Outcome.LOCAL or (outcome is None and not run.stopped):
        raise LocalError(
            f"with {held} connections held this machine could not make one more (descriptors or "
            "ports), so nobody knows whether the server is full"
        )


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
        self._batches = Batches(calibration.admitted_s)
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
        barren = 0
        while len(self.held) < count and barren < _ROUNDS_WITHOUT_GAIN and not self._run.stopped:
            before = len(self.held)
            self._run.tell(f"holding {before} of {count}")
            batch = [self.engine.start(keep=True) for _ in range(self._batches.size(before, count))]
            self._run.until(
                lambda batch=batch: all(a.outcome for a in batch),  # type: ignore[misc]
                self._patience.deadline_s + 1,
            )
            self._batches.came_to(batch)
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
            barren = 0 if len(self.held) > before else barren + 1
            if barren:
                self._run.pause(0.05)
        if len(self.held) < count and not self._run.stopped:
            raise TargetError(
                f"{self.target.text}: only {len(self.held)} of {count} connections were admitted; "
                "is --cap right, and nobody else connected?"
            )

    def check_full(self) -> None:
        """Try one more, which must not be admitted; it is closed again. Nothing of a stopped run.

        :raises TargetError: it was admitted.
        :raises LocalError: this machine could not try it.
        """
        attempt = self.engine.start(keep=True)
        self._run.until(lambda: attempt.outcome, self._patience.deadline_s + 1)
        self.engine.end(attempt)
        must_be_full(self.target, len(self.held), attempt.outcome, self._run)

    def release(self, attempt: Attempt) -> None:
        """Close one, from our side, with FIN."""
        self.held.discard(attempt)
        self.engine.end(attempt, reset=False)

    def were_lost(self) -> list[str]:
        """Why a run does not count; empty: nobody was. Ask before :meth:`close`.

        One place that is free is enough: who came meanwhile was not rejected at a full server, and
        who was let in shows nothing.
        """
        if not self.dropped:
            return []
        return [
            f"the cap was not held: the server ended {len(self.dropped)} connections; take a "
            "shorter --duration, or raise the server's own time limit"
        ]

    def close(self) -> None:
        """End all. May be called again."""
        self.held.clear()
        self.engine.close()
