"""How many connections are opened at once follows what the server's backlog takes."""

from __future__ import annotations

import pytest

from gserver.probe.attempt import Attempt, Batches, too_many_at_once
from gserver.probe.outcomes import Outcome

MS = 1_000_000


def attempt(outcome: Outcome | None, after_ms: int = 0) -> Attempt:
    one = Attempt(0, 0, keep=True)
    one.started = 1
    one.outcome = outcome
    one.served = 1 + after_ms * MS if outcome is Outcome.ADMITTED else 0
    return one


@pytest.mark.parametrize(
    ("one", "too_many"),
    [
        (attempt(Outcome.ADMITTED, 20), False),
        (attempt(Outcome.ADMITTED, 1020), True),  # its first SYN was dropped
        (attempt(Outcome.SYN_PENDING), True),
        (attempt(Outcome.HANG), True),
        (attempt(None), True),
        (attempt(Outcome.FIN), False),  # an answer
        (attempt(Outcome.REFUSED), False),
        (attempt(Outcome.LOCAL), False),  # not the server's doing
    ],
)
def test_who_must_knock_again_or_gets_no_answer_was_one_too_many(
    one: Attempt, too_many: bool
) -> None:
    assert too_many_at_once([attempt(Outcome.ADMITTED, 10), one], 0.01) is too_many


def test_batches_double_and_never_exceed_half_of_one_that_was_too_big() -> None:
    batches, held, sizes = Batches(0.01), 0, []
    while held < 40:
        size = batches.size(held, 40)
        sizes.append(size)
        slow = size > 4
        batches.came_to([attempt(Outcome.ADMITTED, 1020 if slow else 10)] * size)
        held += size
    assert sizes == [1, 1, 2, 4, 8, *[4] * 6]


def test_one_alone_was_not_too_many() -> None:
    batches = Batches(0.01)
    batches.came_to([attempt(Outcome.SYN_PENDING)])
    assert batches.size(100, 1000) == 100


def test_where_admission_takes_long_all_are_opened_at_once() -> None:
    assert Batches(4.0).size(0, 100) == 100
