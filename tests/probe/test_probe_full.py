"""Whether a server is full: what became of one more says so, or that nobody knows."""

from __future__ import annotations

import pytest

from gserver.probe.errors import LocalError, TargetError
from gserver.probe.holders import must_be_full
from gserver.probe.outcomes import Outcome
from gserver.probe.run import Run
from gserver.probe.target import parse_target

TARGET = parse_target("127.0.0.1:9")


@pytest.mark.parametrize(
    ("outcome", "error"),
    [(Outcome.ADMITTED, TargetError), (Outcome.LOCAL, LocalError), (None, LocalError)],
)
def test_a_cap_that_was_not_seen_to_hold_is_no_cap(
    outcome: Outcome | None, error: type[Exception]
) -> None:
    with Run(60, stream=None) as run, pytest.raises(error):
        must_be_full(TARGET, 3, outcome, run)


@pytest.mark.parametrize("outcome", [Outcome.FIN, Outcome.REFUSED, Outcome.QUEUED, Outcome.HANG])
def test_whoever_else_was_not_admitted_shows_that_it_is_full(outcome: Outcome) -> None:
    with Run(60, stream=None) as run:
        must_be_full(TARGET, 3, outcome, run)


def test_a_stopped_run_is_no_failure_of_this_machine() -> None:
    with Run(60, stream=None) as run:
        run.stop("interrupted")
        must_be_full(TARGET, 3, None, run)
