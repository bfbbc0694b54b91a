"""Each animal of the zoo gets its outcome every time: 200 of 200."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from probe_attempts import run_attempts

from gserver.probe.attempt import Patience
from gserver.probe.outcomes import Outcome
from gserver.probe.profiles import PROFILES, profile_named

TRIES = 200
# Who acts at once is never waited for, so quiet-time is far above what the busiest machine needs
# to close 200 sockets: no timing is under test.
AT_ONCE = Patience(quiet_s=8.0, deadline_s=20.0)
LONG = Patience(quiet_s=0.25, deadline_s=20.0)
SHORT = Patience(quiet_s=0.05, deadline_s=0.5)


@pytest.mark.parametrize(
    ("kind", "profile", "outcome", "patience"),
    [
        ("fin", "echo", Outcome.FIN, AT_ONCE),
        ("fin", "silent", Outcome.FIN, AT_ONCE),
        ("fin", "banner", Outcome.FIN, AT_ONCE),
        ("fin_late", "banner", Outcome.FIN, LONG),
        ("reset", "echo", Outcome.RST, AT_ONCE),
        ("reset", "silent", Outcome.RST, AT_ONCE),
        ("message_fin", "redis", Outcome.MESSAGE, AT_ONCE),
        ("message_rst", "redis", Outcome.MESSAGE, AT_ONCE),
        ("message_fin", "echo", Outcome.MESSAGE, AT_ONCE),
        ("message_rst", "echo", Outcome.MESSAGE, AT_ONCE),
        ("text_fin", "banner", Outcome.MESSAGE, AT_ONCE),
        ("silent", "silent", Outcome.ADMITTED, LONG),
        ("silent", "echo", Outcome.HANG, SHORT),
        ("stall", "echo", Outcome.HANG, SHORT),
        ("never_accepts", "echo", Outcome.QUEUED, SHORT),
        ("never_accepts", "silent", Outcome.QUEUED, SHORT),
        ("banner_late", "banner", Outcome.ADMITTED, LONG),
        ("banner_late", "smtp", Outcome.ADMITTED, LONG),
        ("echo", "echo", Outcome.ADMITTED, LONG),
        ("trickle_reply", "echo", Outcome.ADMITTED, LONG),
        ("closes_by_itself", "echo", Outcome.ADMITTED, LONG),
        ("syn_dropped", "echo", Outcome.SYN_PENDING, SHORT),
        ("refuse", "echo", Outcome.REFUSED, AT_ONCE),
    ],
)
def test_zoo_outcome_200_of_200(
    zoo: Callable[..., int], kind: str, profile: str, outcome: Outcome, patience: Patience
) -> None:
    attempts = run_attempts(zoo(kind), PROFILES[profile], TRIES, patience)
    assert Counter(a.outcome for a in attempts) == {outcome: TRIES}
    assert all(a.intended <= a.started <= a.finished for a in attempts)
    assert all(a.sock is None and a.watcher is None for a in attempts)


@pytest.mark.parametrize(
    ("kind", "profile", "outcome"),
    [
        ("fin", "echo", Outcome.FIN),
        ("reset", "echo", Outcome.RST),
        ("message_fin", "echo", Outcome.MESSAGE),
        ("message_rst", "echo", Outcome.MESSAGE),
        ("message_fin", "redis", Outcome.MESSAGE),
        ("message_rst", "redis", Outcome.MESSAGE),
    ],
)
def test_zoo_outcome_200_of_200_one_at_a_time_at_the_usual_quiet_time(
    zoo: Callable[..., int], kind: str, profile: str, outcome: Outcome
) -> None:
    """Nobody waits for another, so 10 ms are enough.

    A busy machine's server may need longer: spoken to by then, it resets, as those below that are
    late, or its message comes all the same. Who was spoken to is judged by that, and tried again.
    """
    port, judged = zoo(kind), []
    spoken_to: Counter[Outcome | None] = Counter()
    for _ in range(2 * TRIES):
        (attempt,) = run_attempts(port, PROFILES[profile], 1, Patience())
        if attempt.probed:
            spoken_to[attempt.outcome] += 1
        else:
            judged.append(attempt)
        if len(judged) == TRIES:
            break
    assert Counter(a.outcome for a in judged) == {outcome: TRIES}
    assert set(spoken_to) <= {Outcome.RST, outcome}


def test_fin_later_than_quiet_time_is_a_fin_when_the_wait_is_longer(
    zoo: Callable[..., int],
) -> None:
    """A silent server that rejects slowly needs a longer quiet-time: it is not admitted in it."""
    patience = Patience(quiet_s=2.0, deadline_s=20.0)
    attempts = run_attempts(zoo("fin_late", 0.05), PROFILES["silent"], TRIES, patience)
    assert Counter(a.outcome for a in attempts) == {Outcome.FIN: TRIES}


def test_late_fin_after_the_probe_is_never_an_admission(zoo: Callable[..., int]) -> None:
    """The probe lies unread when such a server closes, so the kernel makes its FIN a reset."""
    patience = Patience(quiet_s=0.010, deadline_s=20.0)
    attempts = run_attempts(zoo("fin_late", 0.5), PROFILES["echo"], TRIES, patience)
    assert Counter(a.outcome for a in attempts) == {Outcome.RST: TRIES}
    assert all(a.probed for a in attempts)


def test_backlog_of_one_queues_two_and_drops_the_rest(zoo: Callable[..., int]) -> None:
    attempts = run_attempts(zoo("backlog_one"), PROFILES["echo"], TRIES, SHORT)
    counts = Counter(a.outcome for a in attempts)
    assert counts == {Outcome.QUEUED: 2, Outcome.SYN_PENDING: TRIES - 2}


def test_without_an_oracle_silence_is_unknown_not_admitted(zoo: Callable[..., int]) -> None:
    port = zoo("silent")
    attempts = run_attempts(port, PROFILES["silent"], 20, SHORT, use_oracle=False)
    assert Counter(a.outcome for a in attempts) == {Outcome.UNKNOWN: 20}


@pytest.mark.parametrize("kind", ["never_accepts", "stall"])
def test_without_an_oracle_no_reply_is_unknown_not_a_hang(
    zoo: Callable[..., int], kind: str
) -> None:
    """Silence does not tell who was never accepted from who was, and is not served."""
    attempts = run_attempts(zoo(kind), PROFILES["echo"], TRIES, SHORT, use_oracle=False)
    assert Counter(a.outcome for a in attempts) == {Outcome.UNKNOWN: TRIES}


def test_own_patterns_decide(zoo: Callable[..., int]) -> None:
    profile = profile_named("banner", expect="^220", reject="busy")
    assert run_attempts(zoo("text_fin"), profile, 1, AT_ONCE)[0].outcome is Outcome.MESSAGE
    assert run_attempts(zoo("banner_late"), profile, 1, LONG)[0].outcome is Outcome.ADMITTED
