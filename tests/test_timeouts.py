"""Timeouts, the pure part: which ending is due, and which values are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gserver import Ending, Keepalive, SettingError, Timeouts
from gserver.timeouts import sweep_every

ALL = Timeouts(first_byte=5.0, idle=10.0, lifetime=100.0)
seconds = st.floats(0.001, 1000.0)


@pytest.mark.parametrize(
    ("why", "age", "heard", "idle", "expected"),
    [
        ("nothing is over", 4.9, False, 4.9, None),
        ("not a byte in time", 5.0, False, 5.0, Ending.FIRST_BYTE_TIMEOUT),
        ("its first byte is long since here", 99.0, True, 0.0, None),
        ("silent for too long after an answer", 50.0, True, 10.0, Ending.IDLE_TIMEOUT),
        ("an answer is being computed: not idle, however long", 99.0, True, None, None),
        ("old, whatever it does", 100.0, True, None, Ending.LIFETIME),
        ("a system that cannot tell ends nobody", 99.0, None, None, None),
        ("except by lifetime", 100.0, None, None, Ending.LIFETIME),
    ],
)
def test_verdict(
    why: str, age: float, heard: bool | None, idle: float | None, expected: Ending | None
) -> None:
    assert ALL.verdict(age, heard, idle) is expected, why


@given(age=seconds, heard=st.sampled_from([True, False, None]), idle=st.none() | seconds)
def test_nobody_is_ended_when_no_timeout_is_set(
    age: float, heard: bool | None, idle: float | None
) -> None:
    assert Timeouts().verdict(age, heard, idle) is None


@given(
    timeouts=st.builds(
        Timeouts,
        first_byte=st.none() | seconds,
        idle=st.none() | seconds,
        lifetime=st.none() | seconds,
    ),
    age=seconds,
    heard=st.sampled_from([True, False, None]),
    share=st.none() | st.floats(0.0, 1.0),
)
def test_nobody_younger_than_the_shortest_timeout_is_ended(
    timeouts: Timeouts, age: float, heard: bool | None, share: float | None
) -> None:
    idle = None if share is None else age * share
    if timeouts.shortest is None or age < timeouts.shortest:
        assert timeouts.verdict(age, heard, idle) is None


@given(seconds)
def test_a_sweep_is_at_most_a_tenth_or_five_seconds_late(shortest: float) -> None:
    assert 0.01 <= sweep_every(shortest) <= max(0.01, min(5.0, shortest * 0.1))


@pytest.mark.parametrize("setting", ["first_byte", "idle", "lifetime", "user_timeout", "grace"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, 1e12, 10**400])
def test_a_time_that_cannot_be_used_is_one_line_naming_its_setting(
    setting: str, value: Any
) -> None:
    with pytest.raises(SettingError, match=rf"^{setting} .*must be a number of seconds") as error:
        Timeouts(**{setting: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"idle": 0}, "keepalive idle"),
        ({"idle": 40_000}, "keepalive idle"),
        ({"interval": 1.5}, "keepalive interval"),
        ({"count": 128}, "keepalive count"),
    ],
)
def test_a_keepalive_the_kernel_would_not_take_is_refused(arguments: Any, setting: str) -> None:
    with pytest.raises(SettingError, match=f"^{setting} .*must be a whole number"):
        Keepalive(**arguments)


def test_a_keepalive_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^keepalive 60:"):
        Timeouts(keepalive=60)  # type: ignore[arg-type]
