"""Settings: what is refused, in a line that names the setting, the value and what is accepted."""

from __future__ import annotations

import math

import pytest

from gserver.admission.limits import Limits
from gserver.errors import SettingError

BAD = [
    ({"max_connections": 10_000_001}, "max_connections", "whole number, 1 to 10,000,000"),
    ({"rate": 2e6}, "rate", "to 1,000,000 attempts per second"),
    ({"wait": 1e6}, "wait", "must be from 0 to 86,400 seconds"),
    ({"max_connections": 0}, "max_connections", "whole number, 1 to 10,000,000"),
    ({"max_connections": -1}, "max_connections", "whole number, 1 to 10,000,000"),
    ({"max_connections": True}, "max_connections", "whole number"),
    ({"max_connections": "10"}, "max_connections", "whole number"),
    ({"max_connections": 2.5}, "max_connections", "whole number"),
    ({"reserved": -1}, "reserved", "whole number, 0 to 10,000,000"),
    ({"reserved": 10, "reserved_for": ["all"]}, "reserved", "leaves nothing of max_connections 10"),
    ({"reserved": 5}, "reserved", "reserved_for"),
    ({"reserved_for": ["10.0.0.0/8"]}, "reserved_for", "reserved"),
    ({"reserved": 5, "reserved_for": "10.0.0.0/8"}, "reserved_for", "list"),
    ({"reserved": 5, "reserved_for": ["10.0.0.0/33"]}, "reserved_for", "is not a network"),
    ({"per_source": 0}, "per_source", "whole number, 1 to 10,000,000"),
    ({"source_prefix_v4": 33}, "source_prefix_v4", "whole number, 1 to 32"),
    ({"source_prefix_v6": 0}, "source_prefix_v6", "whole number, 1 to 128"),
    ({"source_exempt": ["10.0.0.1/8"]}, "source_exempt", "10.0.0.0/8"),
    ({"source_table": 0}, "source_table", "whole number, 1 to 10,000,000"),
    ({"rate": 0}, "rate", "attempts per second"),
    ({"rate": math.nan}, "rate", "attempts per second"),
    ({"rate": math.inf}, "rate", "attempts per second"),
    ({"rate_burst": 5}, "rate_burst", "needs rate"),
    ({"rate": 5, "rate_burst": 0}, "rate_burst", "whole number, 1 to 10,000,000"),
    ({"source_rate": "5/s"}, "source_rate", "attempts per second"),
    ({"source_rate_burst": 5}, "source_rate_burst", "needs source_rate"),
    ({"allow": [b"10.0.0.0/8"]}, "allow", "is not a network"),
    ({"deny": None}, "deny", "list"),
    ({"allow": ["unix"], "deny": ["all"]}, "deny", "allow list too"),
    ({"early_drop": "10:30"}, "early_drop", "start:rate:full"),
    ({"early_drop": "30:30:10"}, "early_drop", "start less than full"),
    ({"early_drop": "10:101:30"}, "early_drop", "percent"),
    ({"early_drop": 10}, "early_drop", "start:rate:full"),
    ({"penalty": -1}, "penalty", "seconds"),
    ({"penalty_threshold": math.nan}, "penalty_threshold", "seconds"),
    ({"penalty": 700}, "penalty", "must be at most penalty_max, 600"),
    ({"penalty": 5, "penalty_threshold": 700}, "penalty_threshold", "at most penalty_max, 600"),
    ({"penalty": 5, "penalty_max": 9}, "penalty_max", "must be at least penalty_threshold, 15"),
    ({"penalty": 25, "penalty_max": 20}, "penalty_max", "must be at least penalty, 25"),
    ({"penalty": 1, "penalty_threshold": 0, "penalty_max": 0.5}, "penalty_max", "must be from 1"),
    ({"wait": -0.1}, "wait", "seconds"),
    ({"wait": 1, "wait_queue": 0}, "wait_queue", "whole number, 1 to 10,000,000"),
    ({"wait_order": "random"}, "wait_order", "'fifo' and 'lifo'"),
    ({"wait_queue": 5}, "wait_queue", "needs wait"),
    ({"wait_order": "lifo"}, "wait_order", "needs wait"),
    ({"penalty_threshold": 5}, "penalty_threshold", "needs penalty"),
    ({"penalty_threshold": 700}, "penalty_threshold", "needs penalty"),
    ({"penalty_max": 5}, "penalty_max", "needs penalty"),
    ({"penalty_max": 700}, "penalty_max", "needs penalty"),
    ({"source_exempt": ["10.0.0.0/8"], "rate": 5}, "source_exempt", "needs per_source or source"),
    ({"source_table": 10, "rate": 5}, "source_table", "needs source_rate or penalty"),
    ({"dry_run": ["capacity"]}, "dry_run", "accepted: denied, penalty"),
    ({"dry_run": ["rate"]}, "dry_run", "is off"),
    ({"dry_run": "rate"}, "dry_run", "list"),
]


@pytest.mark.parametrize(("settings", "name", "says"), BAD, ids=lambda value: str(value)[:50])
def test_bad_value_is_one_line_that_names_the_setting(settings, name, says):
    with pytest.raises(SettingError) as caught:
        Limits(**{"max_connections": 10, **settings})
    error = caught.value
    assert error.setting == name
    assert says in error.problem
    line = str(error)
    assert line.startswith(f"{name} ")
    assert "\n" not in line
    assert repr(error.given) in line


def test_lists_are_kept_as_tuples_and_limits_compare():
    lists = ("reserved_for", "source_exempt", "allow", "deny")
    one = Limits(
        max_connections=10,
        reserved=1,
        per_source=1,
        dry_run=iter(["denied"]),
        **{k: [f"10.0.{i}.0/24"] for i, k in enumerate(lists)},
    )
    two = Limits(
        max_connections=10,
        reserved=1,
        per_source=1,
        dry_run=("denied",),
        **{k: (f"10.0.{i}.0/24",) for i, k in enumerate(lists)},
    )
    assert one == two
    assert one.deny == ("10.0.3.0/24",)


def test_a_burst_is_one_seconds_attempts_unless_given():
    limits = Limits(max_connections=1, rate=2.5, source_rate=0.1)
    assert (limits.burst_of("rate"), limits.burst_of("source_rate")) == (3, 1)
    assert Limits(max_connections=1, rate=2.5, rate_burst=9).burst_of("rate") == 9


def test_places_to_wait_count_only_where_clients_wait():
    assert Limits(max_connections=10).most_open == 10
    assert Limits(max_connections=10, wait_queue=5, wait=0.1).most_open == 15
