"""The ledger calls a rejection certainly false only when no count could justify it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gserver.probe.ledger import Falsehood, Ledger

GRACE = 100


def full(cap: int) -> Ledger:
    ledger = Ledger(cap, GRACE)
    for i in range(cap):
        ledger.begin(i, 0)
        ledger.admitted(i, 0)
    return ledger


def test_rejected_at_a_full_cap_is_no_false_rejection() -> None:
    ledger = full(3)
    ledger.begin("a", 10)
    assert ledger.rejected("a", 20) is Falsehood.NO


def test_rejected_just_after_a_close_is_possible_later_certain() -> None:
    ledger = full(3)
    ledger.closed(10)
    ledger.begin("a", 11)
    assert ledger.rejected("a", 12) is Falsehood.POSSIBLE
    ledger.begin("b", 11 + GRACE)
    assert ledger.rejected("b", 12 + GRACE) is Falsehood.CERTAIN


def test_full_at_any_time_of_the_attempt_is_enough_to_excuse_it() -> None:
    ledger = full(3)
    ledger.begin("a", 10)
    ledger.closed(11)
    assert ledger.rejected("a", 1000) is Falsehood.NO


def test_another_attempt_under_way_may_have_had_the_slot() -> None:
    ledger = full(3)
    ledger.closed(10)
    ledger.begin("a", 500)
    ledger.begin("b", 500)
    assert ledger.rejected("a", 501) is Falsehood.POSSIBLE
    ledger.admitted("b", 502)
    assert ledger.peak == 3


@given(st.lists(st.sampled_from(["join", "leave", "fail"]), max_size=60), st.integers(1, 5))
def test_an_exact_server_is_never_accused_with_certainty(steps: list[str], cap: int) -> None:
    """A model server that counts exactly, and frees a slot up to the grace time late."""
    ledger, now, served = Ledger(cap, GRACE), 0, 0
    freeing: list[int] = []
    for i, step in enumerate(steps):
        now += 7
        freeing = [t for t in freeing if t > now]
        if step == "leave" and served:
            served -= 1
            freeing.append(now + GRACE - 1)
            ledger.closed(now)
        elif step != "leave":
            ledger.begin(i, now)
            if served + len(freeing) < cap:
                served += 1
                ledger.admitted(i, now)
            else:
                assert ledger.rejected(i, now) is not Falsehood.CERTAIN
    assert ledger.held == served
    assert ledger.peak <= cap
