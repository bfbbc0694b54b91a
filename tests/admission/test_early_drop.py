"""Early drop: the chance by slots in use."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver import Limiter, SettingError
from gserver.admission.early_drop import EarlyDrop
from gserver.admission.gate import Gate
from gserver.admission.limits import Limits
from gserver.admission.sources import ANY
from gserver.admission.verdict import REJECTED, Reason, Receipt


@pytest.mark.parametrize(
    ("in_use", "chance"), [(0, 0), (9, 0), (10, 0.3), (20, 0.65), (29, 0.965), (30, 1), (99, 1)]
)
def test_chance_rises_as_sshd_says(in_use, chance):
    assert EarlyDrop(10, 30, 30).chance(in_use) == pytest.approx(chance)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_chance_never_falls_and_ends_at_one(start, rate, span):
    drop = EarlyDrop(start, rate, start + span)
    chances = [drop.chance(in_use) for in_use in range(start + span + 2)]
    assert chances == sorted(chances)
    assert all(chance == 0 for chance in chances[:start])
    assert chances[-2] == pytest.approx(1)


def test_gate_turns_away_that_share_by_lot():
    limits = Limits(max_connections=100, early_drop="10:30:30")
    gate = Gate.from_limits(limits, draw=random.Random(7).random)
    verdicts = [gate.decide(ANY, 0.0, in_use=20) for _ in range(10_000)]
    dropped = sum(verdict is REJECTED[Reason.EARLY_DROP] for verdict in verdicts)
    assert 6_300 < dropped < 6_700
    assert all(isinstance(gate.decide(ANY, 0.0, in_use=9), Receipt) for _ in range(100))


def test_reserved_networks_are_not_dropped_and_a_full_server_says_so():
    limits = Limits(
        max_connections=100, reserved=1, reserved_for=["10.0.0.0/8"], early_drop="10:100:30"
    )
    gate = Gate.from_limits(limits)
    operator, other = gate.source(("10.0.0.1", 1)), gate.source(("192.0.2.1", 1))
    assert isinstance(gate.decide(operator, 0.0, in_use=99), Receipt)
    assert gate.decide(other, 0.0, in_use=98) is REJECTED[Reason.EARLY_DROP]
    assert gate.decide(other, 0.0, in_use=99) is REJECTED[Reason.CAPACITY]


def test_one_that_begins_above_the_cap_is_an_error_unless_the_cap_was_lowered() -> None:
    with pytest.raises(SettingError, match=r"^early_drop '11:30:20': begins above max_connections"):
        Limiter(Limits(max_connections=10, early_drop="11:30:20"))
    limiter = Limiter(Limits(max_connections=20, early_drop="11:30:20"))
    limiter.max_connections = 10
    assert limiter.limits.early_drop == "11:30:20"
