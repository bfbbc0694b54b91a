"""Who has been quiet for long enough, and whose deadline has passed: by the numbers alone."""

from __future__ import annotations

from gserver.probe.attempt import Attempt, Patience
from gserver.probe.outcomes import Outcome
from gserver.probe.waits import Waits

QUIET, DEADLINE = 10, 100  # ns


def waiting(waits: Waits, index: int, now: int) -> Attempt:
    attempt = Attempt(index, now, keep=True)
    attempt.started, attempt.sock = now, object()
    waits.listen(attempt, now)
    return attempt


def new() -> Waits:
    return Waits(Patience(QUIET / 1e9, DEADLINE / 1e9))


def test_each_is_quiet_once_and_overdue_once_at_its_time() -> None:
    waits = new()
    attempts = [waiting(waits, i, now=i) for i in range(3)]
    assert list(waits.quiet(9)) == []
    assert list(waits.quiet(11)) == attempts[:2]
    assert list(waits.quiet(12)) == attempts[2:]
    assert list(waits.overdue(99)) == []
    assert list(waits.overdue(1000)) == attempts
    assert (list(waits.quiet(1000)), list(waits.overdue(1000))) == ([], [])


def test_who_is_heard_of_gets_a_whole_quiet_time_but_no_later_deadline() -> None:
    waits = new()
    attempt = waiting(waits, 0, now=0)
    waits.listen(attempt, 7)
    assert list(waits.quiet(16)) == []
    assert list(waits.quiet(17)) == [attempt]
    assert list(waits.overdue(100)) == [attempt]


def test_who_is_served_closed_or_decided_waits_for_nothing() -> None:
    waits = new()
    served, closed, decided = (waiting(waits, i, now=0) for i in range(3))
    served.served, closed.sock = 5, None
    assert list(waits.quiet(10)) == [decided]
    decided.outcome = Outcome.FIN
    assert list(waits.overdue(100)) == []


def test_who_listens_again_in_the_sweep_is_not_handed_out_in_the_same_one() -> None:
    waits = new()
    attempt = waiting(waits, 0, now=0)
    for found in waits.quiet(10):
        waits.listen(found, 10)
    assert list(waits.quiet(20)) == [attempt]
