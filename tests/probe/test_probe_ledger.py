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
    ledger.ended(10)
    ledger.begin("a", 11)
    assert ledger.rejected("a", 12) is Falsehood.POSSIBLE
    ledger.begin("b", 11 + GRACE)
    assert ledger.rejected("b", 12 + GRACE) is Falsehood.CERTAIN


def test_full_at_any_time_of_the_attempt_is_enough_to_excuse_it() -> None:
    ledger = full(3)
    ledger.begin("a", 10)
    ledger.ended(11)
    assert ledger.rejected("a", 1000) is Falsehood.NO


def test_another_attempt_under_way_may_have_had_the_slot() -> None:
    ledger = full(3)
    ledger.ended(10)
    ledger.begin("a", 500)
    ledger.begin("b", 500)
    assert ledger.rejected("a", 501) is Falsehood.POSSIBLE
    ledger.admitted("b", 502)
    assert ledger.peak == 3


def test_ended_by_the_server_or_given_up_by_us_counts_for_the_grace_time_too() -> None:
    ledger = full(3)
    ledger.ended(10)  # from whichever side
    ledger.begin("queued", 20)
    ledger.given_up("queued", 500)  # the server may have taken it in meanwhile
    ledger.begin("a", 500 + GRACE)
    assert ledger.rejected("a", 501 + GRACE) is Falsehood.POSSIBLE
    ledger.begin("b", 502 + GRACE)
    assert ledger.rejected("b", 503 + GRACE) is Falsehood.CERTAIN


def test_without_grace_the_first_rejection_after_a_close_is_certain() -> None:
    ledger = Ledger(1, 0)
    ledger.begin(0, 0)
    ledger.admitted(0, 1)
    ledger.ended(10)
    ledger.begin("a", 11)
    ledger.begin("a", 11)  # told twice: begun once
    assert ledger.rejected("a", 12) is Falsehood.CERTAIN


def test_who_never_left_this_machine_excuses_nobody() -> None:
    ledger = full(3)
    ledger.ended(10)
    ledger.begin("local", 500)
    ledger.never_left("local")
    ledger.never_left("unknown")
    ledger.given_up("unknown", 500)
    ledger.begin("a", 501)
    assert ledger.rejected("a", 502) is Falsehood.CERTAIN


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
            ledger.ended(now)
        elif step != "leave":
            ledger.begin(i, now)
            if served + len(freeing) < cap:
                served += 1
                ledger.admitted(i, now)
            else:
                assert ledger.rejected(i, now) is not Falsehood.CERTAIN
    assert ledger.held == served
    assert ledger.peak <= cap
