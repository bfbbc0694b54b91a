"""The slots that calibration has used itself: waiting until the server has given them back."""

from __future__ import annotations

from time import monotonic
from typing import Final

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.engine import Engine
from gserver.probe.errors import TargetError
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import Profile
from gserver.probe.run import Run
from gserver.probe.target import Target

__all__ = ["Slots", "gives_up_at", "slots_are_gone"]

_RETRIES: Final = 4
_BETWEEN_S: Final = 0.05
_SLOW_S: Final = 0.2  # a slot that takes longer to come back is given its time before each try
_MORE: Final = 1.5  # of that time
_STILL: Final = {
    Outcome.FIN: "is turned away with FIN",
    Outcome.RST: "is turned away with RST",
    Outcome.MESSAGE: "is turned away with a message",
    Outcome.REFUSED: "is refused",
    Outcome.QUEUED: "waits to be accepted",
    Outcome.SYN_PENDING: "gets no answer to its handshake",
    Outcome.HANG: "is accepted and not served",
    Outcome.UNKNOWN: "hears nothing",
}


def gives_up_at(run: Run) -> float:
    """Until when (monotonic) the slots of our own that come back slowly are waited for.

    Half of the run's time: the rest is for what is to be found out.
    """
    return run.began + (run.ends - run.began) / 2


def slots_are_gone(target: Target, outcome: Outcome | None, waited_s: float) -> TargetError:
    """What to raise when nobody is admitted any more, *waited_s* after the last of ours left."""
    how = "has no outcome" if outcome is None else _STILL.get(outcome, outcome.value)
    return TargetError(
        f"{target.tried}: clients of ours were served and left, and {waited_s:.1f} s later a "
        f"single one still {how}: their slots have not come back; free them (restart the server), "
        "or give a longer --duration, of which half is waited"
    )


class Slots:
    """Attempts one after the other, each once the slot of the one before has come back.

    A server with a small limit may be slow to give them back: those of who asked what it speaks,
    too. :attr:`back_s` is the longest that was seen to take.
    """

    def __init__(self, engine: Engine, run: Run, patience: Patience, gives_up: float) -> None:
        self.engine = engine
        self.run = run
        self.patience = patience
        self.gives_up = gives_up
        self.waits_until = 0.0
        self.used = False  # certainly
        self.left_at = 0.0
        self.back_s = 0.0
        self.server_is_slow = False

    @property
    def are_slow(self) -> bool:
        """Whether a slot is given its time to come back before the next attempt."""
        return self.back_s > _SLOW_S

    def were_used(self, *, certainly: bool) -> None:
        """One of ours has just left; not certainly: who knows whether the server had served it."""
        self.left_at = monotonic()
        self.used = self.used or certainly
        soon = self.left_at + 2 * self.patience.deadline_s
        self.waits_until = self.gives_up if self.used else min(soon, self.gives_up)

    def take(self) -> Attempt:
        """The attempt that is admitted; or the last that was not, when waiting has no more use."""
        given_time = self.are_slow
        self.run.pause(self.back_s * _MORE if given_time else 0.0)
        tries = 0
        while True:
            self.run.pause(_BETWEEN_S)
            attempt = self.engine.start(keep=True)
            self.run.until(lambda a=attempt: a.outcome, self.patience.deadline_s + 1)  # type: ignore[misc]
            self.run.go_on()
            tries += 1
            if attempt.outcome is Outcome.ADMITTED:
                self._came_in(attempt, at_once=tries == 1, given_time=given_time)
                return attempt
            if self._was_in_line(attempt):
                tries, given_time = 0, True
                continue
            self.engine.end(attempt)
            enough = monotonic() >= self.waits_until or attempt.outcome is Outcome.LOCAL
            if tries >= _RETRIES and enough:
                return attempt
            if self.left_at:
                self.run.tell(
                    f"a client has left, the next is not admitted yet ({attempt.outcome}): waiting "
                    "for its slot"
                )

    def _came_in(self, attempt: Attempt, *, at_once: bool, given_time: bool) -> None:
        if not self.left_at:
            return
        took_s = (attempt.finished - attempt.started) / 1e9 - 2 * self.patience.quiet_s
        if at_once and (took_s <= _SLOW_S or self.server_is_slow):
            return
        if at_once and given_time:  # with a slot there: the server itself takes so long
            self.server_is_slow, self.back_s = True, 0.0
        else:
            self.back_s = max(self.back_s, attempt.finished / 1e9 - self.left_at)

    def _was_in_line(self, attempt: Attempt) -> bool:
        """Of one that the server has not accepted: whether its turn came. Who gave up and came anew
        would stand behind itself: the server serves those who have left, too, and slowly."""
        if attempt.outcome is not Outcome.QUEUED or not self.left_at:
            return False
        self.run.tell("a client has left, the next is not accepted yet: waiting for its slot")
        self.run.until(
            lambda: attempt.served or attempt.ended, max(0.0, self.waits_until - monotonic())
        )
        self.run.go_on()
        if not attempt.served:
            return False
        self.back_s = max(self.back_s, attempt.served / 1e9 - self.left_at)
        self.engine.end(attempt)
        self.were_used(certainly=True)
        self.run.pause(self.back_s * _MORE)
        return True

    def must_be_admitted(self, attempt: Attempt, target: Target, profile: Profile) -> None:
        """Raise what :meth:`take` came to, if that is not an admission."""
        if self.used and attempt.outcome not in (Outcome.ADMITTED, Outcome.LOCAL):
            raise slots_are_gone(target, attempt.outcome, monotonic() - self.left_at)
        _must_be_admitted(attempt, target, profile)


def _must_be_admitted(attempt: Attempt, target: Target, profile: Profile) -> None:
    outcome = attempt.outcome
    if outcome is Outcome.ADMITTED:
        return
    where = f"{target.tried}, profile {profile.name}"
    text = attempt.received[:60]
    reasons = {
        Outcome.REFUSED: "the connection is refused: is the server running there?",
        Outcome.SYN_PENDING: "no answer to the handshake: is the address right?",
        Outcome.UNKNOWN: "connected, then nothing that could be read as admission; give --profile, "
        "or --send and --expect",
        Outcome.HANG: "no reply to the probe; give --profile (silent, when the server never "
        "answers), or --send and --expect",
        Outcome.QUEUED: "the server did not accept a single connection: is it full already?",
        Outcome.MESSAGE: f"a single client is told {text!r}: is it full already, or is the "
        "profile wrong? Give --profile, or --send and --expect",
        Outcome.FIN: "a single client is turned away with FIN: is it full already?",
        Outcome.RST: "a single client is turned away with RST: is it full already?",
        Outcome.LOCAL: "this machine could not make the connection",
    }
    why = reasons.get(outcome, "no outcome") if outcome is not None else "no outcome"
    raise TargetError(f"{where}: {why}")
