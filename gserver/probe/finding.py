"""What ``probe cap`` found, and what the outcome at the limit says of the server. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from gserver.probe.outcomes import Outcome

__all__ = ["POLICY", "CapFinding"]

#: What the outcome at the limit says of the server.
POLICY: Final = {
    Outcome.FIN: "rejects: closes the connection (FIN)",
    Outcome.RST: "rejects: resets the connection (RST)",
    Outcome.MESSAGE: "rejects: says so",
    Outcome.REFUSED: "refuses: no handshake (ECONNREFUSED)",
    Outcome.QUEUED: "queues: connected, but never accepted; the client hangs",
    Outcome.SYN_PENDING: "drops: no answer to the handshake; the client hangs",
    Outcome.HANG: "hangs: accepted, but never served",
    Outcome.UNKNOWN: "cannot be told from here: connected, then silence",
}

_DROPS_THAT_SHOW: Final = 3
_ABOUT_THE_SAME: Final = 0.2  # of the longest


@dataclass(slots=True)
class CapFinding:
    """What ``probe cap`` found.

    :param limit: connections served at the same time when the next is turned away one by one;
        None: no limit up to :attr:`peak`.
    :param peak: most connections proven served at the same time.
    :param turned_away: outcomes of those that were not admitted.
    :param fits_after_close: how many more were admitted once one was closed (1 is right).
    :param tries_after_close: attempts until the first was (1: the slot was free at once).
    :param lag_s: the longest that was seen from a close of ours to when the next fitted, seconds.
    :param slots_lost: how many did not come back, a whole deadline after their clients had left.
    :param drops: of each that the server ended after it had served them, when, and how long it had
        been served (and silent) then, seconds.
    :param overtaken: came at once with others and got no answer by their deadline, when who came
        after them did, or they themselves with no place made for them: a backlog too short. They
        are not among ``turned_away``.
    :param listen_queue: connections that waited in it with the server full and knocked at, and how
        many may; None: nobody who was left waiting shows it.
    :param outrun: the search was given up: the server ended those who were held faster than others
        could be tried one by one. :attr:`limit` is None then, and says nothing.
    :param late_s: the longest that somebody whom silence had admitted was left open before the
        server turned them away after all, seconds; 0: nobody.
    :param watched_s: how long those who are held were watched, where only silence shows it.
    """

    limit: int | None = None
    peak: int = 0
    turned_away: Counter[Outcome] = field(default_factory=Counter)
    message: bytes = b""
    fits_after_close: int | None = None
    tries_after_close: int | None = None
    lag_s: float = 0.0
    drops: list[tuple[float, float]] = field(default_factory=list)
    overtaken: int = 0
    slots_lost: int = 0
    local_errors: int = 0
    expected: int | None = None
    listen_queue: tuple[int, int] | None = None
    outrun: bool = False
    late_s: float = 0.0
    watched_s: float = 0.0
    steps: list[tuple[float, int, int]] = field(default_factory=list)  # seconds, held, tried

    @property
    def policy(self) -> Outcome | None:
        """The commonest way of being turned away; None: nobody was."""
        return self.turned_away.most_common(1)[0][0] if self.turned_away else None

    @property
    def dropped_while_held(self) -> int:
        """How many the server ended after it had served them."""
        return len(self.drops)

    @property
    def ends_after_s(self) -> float | None:
        """How long the server leaves a silent client before it ends it; None: that is not shown.

        It is, where the ages of those it ended lie closer together than the moments it ended them
        at: by a server that ends everybody at once, ages differ as much as arrivals.
        """
        if len(self.drops) < _DROPS_THAT_SHOW:
            return None
        moments = [moment_s for moment_s, _ in self.drops]
        ages = sorted(age_s for _, age_s in self.drops)
        apart = ages[-1] - ages[0]
        if apart > _ABOUT_THE_SAME * ages[-1] or apart >= max(moments) - min(moments):
            return None
        return ages[len(ages) // 2]

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
            "slot_back_after_s": self.lag_s,
            "dropped_while_held": self.dropped_while_held,
            "ends_silent_clients_after_s": self.ends_after_s,
            "slots_lost": self.slots_lost,
            "overtaken": self.overtaken,
            "listen_queue": self.listen_queue,
            "outrun": self.outrun,
            "turned_away_late_after_s": self.late_s,
            "watched_s": self.watched_s,
            "steps": self.steps,
        }
