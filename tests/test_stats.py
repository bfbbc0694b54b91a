"""The counters and their snapshot, on a clock of the test's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gserver.admission.gate import Gate
from gserver.admission.verdict import REJECTED, Reason, Receipt
from gserver.stats import Audit, Counters, Ending


def snapshot(counters: Counters, now: float = 0.0, active: int = 0, pending: int = 0) -> Any:
    return counters.snapshot(
        cap=3,
        active=active,
        occupied=active,
        pending=pending,
        waiting=0,
        gate=Gate(3).figures(),
        now=now,
    )


def test_a_snapshot_is_frozen_and_does_not_follow_the_counters() -> None:
    counters = Counters()
    books = snapshot(counters)
    counters.accepted += 1
    counters.rejected[Reason.CAPACITY] += 1
    counters.accept_errors["EMFILE"] = 1
    assert (books.accepted, books.rejected[Reason.CAPACITY], books.accept_errors) == (0, 0, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        books.accepted = 1
    with pytest.raises(TypeError):
        books.rejected[Reason.CAPACITY] = 1


def test_the_rules_figures_of_a_snapshot_are_frozen() -> None:
    for mapping in (Gate(3).figures().would_reject, Gate(3).figures().offences):
        with pytest.raises(TypeError):
            mapping[next(iter(mapping))] = 1  # type: ignore[index]


def test_every_reason_and_every_ending_is_there_from_the_start() -> None:
    books = snapshot(Counters())
    assert books.rejected == dict.fromkeys(Reason, 0)
    assert books.finished == dict.fromkeys(Ending, 0)


@pytest.mark.parametrize(
    ("change", "balanced"),
    [
        ({}, True),
        ({"accepted": 1}, False),
        ({"accepted": 1, "pending": 1}, True),
        ({"accepted": 1, "admitted": 1}, False),
        ({"accepted": 1, "admitted": 1, "active": 1}, True),
        ({"active": 1}, False),
    ],
    ids=str,
)
def test_balanced_says_whether_each_client_is_in_one_place(
    change: dict[str, int], balanced: bool
) -> None:
    books = dataclasses.replace(snapshot(Counters()), **change)
    assert books.balanced is balanced


def test_rejected_and_finished_balance_too() -> None:
    counters = Counters(accepted=3, admitted=1)
    counters.rejected[Reason.DRAINING] = 2
    counters.finished[Ending.EXITED] = 1
    assert snapshot(counters).balanced


def test_peak_is_the_most_slots_ever_taken() -> None:
    counters = Counters()
    for in_use in 1, 3, 2, 0, 2:
        counters.occupancy(in_use, False, 0.0)
    assert snapshot(counters).peak == 3


def test_time_full_adds_up_the_times_without_a_free_slot() -> None:
    counters = Counters()
    for full, now in [(False, 0.0), (True, 1.0), (True, 2.0), (False, 4.0), (True, 10.0)]:
        counters.occupancy(3, full, now)
    assert snapshot(counters, now=10.0).time_full == 3.0
    assert snapshot(counters, now=10.5).time_full == 3.5  # the current one counts
    counters.occupancy(0, False, 11.0)
    assert snapshot(counters, now=99.0).time_full == 4.0


def test_an_audit_is_clean_when_all_is_zero() -> None:
    assert Audit().clean
    for field in dataclasses.fields(Audit):
        assert not dataclasses.replace(Audit(), **{field.name: 1}).clean


@pytest.mark.parametrize(
    ("in_use", "cap", "admitted"),
    [(0, 1, True), (1, 1, False), (2, 1, False), (99, 100, True), (100, 100, False)],
)
def test_the_gate_admits_below_the_cap_and_nobody_at_it(
    in_use: int, cap: int, admitted: bool
) -> None:
    gate = Gate(cap)
    verdict = gate.decide("192.0.2.1", 0.0, in_use=in_use)
    assert isinstance(verdict, Receipt) is admitted
    assert admitted or verdict is REJECTED[Reason.CAPACITY]
    assert gate.full(in_use) is not admitted
