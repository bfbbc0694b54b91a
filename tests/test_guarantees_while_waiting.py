"""Guarantees again, with every rule and clients that may wait for a slot."""

# ruff: noqa: F401  (pytest collects what is imported)

from __future__ import annotations

import pytest
from every_rule import put_in_force
from support import LOCAL, Holding, clients, load, running
from test_books import checked_at_every_step
from test_cheap import test_no_greenlet_and_no_gevent_socket_is_made_for_a_rejected_client
from test_endings import test_socket_closes_then_slot_comes_back_when
from test_exact import (
    test_count_and_handlers_agree_at_every_change,
    test_exactly_the_cap_is_served_of_a_burst_counted_inside_and_outside,
)
from test_isolation import (
    test_a_flood_does_not_keep_a_freed_slot_from_the_next_client,
    test_a_live_echo_goes_on_during_a_flood,
)
from test_no_false_rejection import (
    test_500_of_500_close_then_reconnect_at_a_full_cap,
    test_churners_that_together_hold_exactly_the_cap_are_never_turned_away,
)
from test_prompt import (
    test_a_client_at_the_cap_gets_its_verdict_while_nobody_leaves,
    test_of_500_at_the_same_instant_at_cap_3_exactly_3_are_served_and_497_answered,
)

from gserver import Limiter, Reason, StreamServer


@pytest.fixture(autouse=True)
def _every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_force(monkeypatch, wait=0.02, wait_queue=20)


def test_they_may_wait() -> None:
    assert Limiter(3).gate.may_wait


def test_the_books_balance_at_every_step_while_clients_wait_and_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with checked_at_every_step(monkeypatch) as checks:
        with running(StreamServer(LOCAL, Holding(), max_connections=2)) as server:
            with clients(server, 2), load("churn", server, 50, 5000) as churn:
                churn.read()
            books = server.stats
    assert len(checks) > 500
    assert books.rejected[Reason.WAIT_TIMEOUT]
    assert books.rejected[Reason.WAIT_FULL]
