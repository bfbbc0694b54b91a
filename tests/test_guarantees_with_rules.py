"""Every guarantee again, with every rule switched on: the same tests, other limiters."""

# ruff: noqa: F401  (pytest collects what is imported)

from __future__ import annotations

from typing import Any

import pytest
from every_rule import put_in_force
from hypothesis import settings
from hypothesis.stateful import invariant
from support import LOCAL, greet, load, running
from test_books import (
    LimiterMachine,
    test_audit_of_a_server_at_work_is_clean,
    test_books_balance_at_every_step_under_random_load,
)
from test_cheap import (
    test_no_greenlet_and_no_gevent_socket_is_made_for_a_rejected_client,
    test_the_work_of_a_rejection_does_not_depend_on_how_many_connections_are_held,
)
from test_endings import test_socket_closes_then_slot_comes_back_when
from test_exact import (
    test_count_and_handlers_agree_at_every_change,
    test_exactly_the_cap_is_served_of_a_burst_counted_inside_and_outside,
    test_sockets_seen_twice_by_the_kernel_never_exceed_the_cap_during_a_flood,
    test_two_servers_with_one_limiter_have_one_cap_between_them,
)
from test_isolation import (
    test_a_flood_does_not_keep_a_freed_slot_from_the_next_client,
    test_a_live_echo_goes_on_during_a_flood,
    test_no_turn_of_the_loop_rejects_more_than_its_share,
)
from test_no_false_rejection import (
    test_500_of_500_close_then_reconnect_at_a_full_cap,
    test_a_candidate_is_admitted_the_moment_a_slot_comes_back_not_at_the_end_of_its_settle,
    test_churners_that_together_hold_exactly_the_cap_are_never_turned_away,
    test_newcomers_never_overtake_candidates,
    test_stop_turns_candidates_away_at_once_as_draining,
)
from test_prompt import (
    test_a_client_at_the_cap_gets_its_verdict_while_nobody_leaves,
    test_of_500_at_the_same_instant_at_cap_3_exactly_3_are_served_and_497_answered,
)

import gserver.limiter
from gserver import Limiter, Limits, Reason, StreamServer
from gserver.admission.verdict import REJECTED


@pytest.fixture(autouse=True)
def _every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_force(monkeypatch)


class RuledLimiterMachine(LimiterMachine):
    """Where rules are asked, a newcomer for whom there is a slot besides those of the candidates
    has it before they have theirs, one turn of the loop later."""

    @invariant()
    def nobody_is_decided_twice_or_out_of_turn(self) -> None:
        if hasattr(self, "limiter"):
            assert len(self.desk.verdicts) == len(set(self.desk.verdicts))


class TestLimiterWithRules(RuledLimiterMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=20, stateful_step_count=25, deadline=None)


def test_it_is_every_rule() -> None:
    gate = Limiter(3).gate
    assert not gate.bare
    assert gate.needs_source
    assert not gate.may_wait


@pytest.mark.parametrize("cap", [1, 2, 10])
def test_churners_that_hold_all_of_their_sources_slots_are_never_turned_away(cap: int) -> None:
    """G3 for a source's cap: 100 slots, and one source that uses all of its own."""
    limits = Limits(max_connections=100, per_source=cap)
    with running(StreamServer(LOCAL, greet, limits=limits)) as server:
        with load("churn", server, cap, 2000) as churn:
            assert set(churn.read()) == {"served"}


def test_control_without_being_candidates_those_churners_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gserver.limiter, "ENDINGS_MAKE_ROOM", (REJECTED[Reason.CAPACITY],))
    limits = Limits(max_connections=100, per_source=10)
    with running(StreamServer(LOCAL, greet, limits=limits)) as server:
        for _ in range(40):
            with load("churn", server, 10, 2000) as churn:
                churn.read()
            if server.stats.rejected[Reason.SOURCE]:
                return
    pytest.fail("nobody was turned away")
