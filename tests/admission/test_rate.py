"""Rates: what any window of time admits, and what a flood of sources does."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gserver.admission.rate import Bucket, SourceRates

rates = st.floats(0.01, 1000)
bursts = st.integers(1, 20)
# Intervals between attempts, in units of the rate's own interval.
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.just(1.0)), max_size=80)


def times(rate: float, gaps: list[float], start: float = 1000.0) -> list[float]:
    now, at = start, []
    for gap in gaps:
        now += gap / rate
        at.append(now)
    return at


@given(rates, bursts, gaps)
def test_no_window_admits_more_than_the_burst_and_the_rate(rate, burst, gaps):
    bucket = Bucket(rate, burst)
    admitted = [at for at in times(rate, gaps) if bucket.take(at)]
    for i, first in enumerate(admitted):
        for j in range(i, len(admitted)):
            assert j - i + 1 <= burst + (admitted[j] - first) * rate + 0.01


@given(rates, bursts, st.integers(1, 100))
def test_attempts_at_the_rate_are_all_admitted(rate, burst, count):
    bucket = Bucket(rate, burst)
    start = 1e6
    assert all(bucket.take(start + n / rate) for n in range(count))


@given(rates, bursts)
def test_a_rested_bucket_admits_its_burst_and_not_one_more(rate, burst):
    bucket = Bucket(rate, burst)
    for rest in range(3):
        now = 1e5 + rest * (burst + 1) / rate
        assert [bucket.take(now) for _ in range(burst + 1)] == [True] * burst + [False]


@given(rates, bursts, st.integers(1, 1000))
def test_an_attempt_that_exceeds_the_rate_consumes_nothing(rate, burst, tries):
    bucket = Bucket(rate, burst)
    for _ in range(burst):
        bucket.take(0.0)
    assert not any(bucket.take(0.5 / rate) for _ in range(tries))
    assert bucket.take(1 / rate)


@given(rates, bursts, st.lists(st.tuples(st.integers(0, 3), st.floats(0, 3)), max_size=80))
def test_each_source_has_its_own_bucket(rate, burst, attempts):
    shared = SourceRates(rate, burst, 4)
    own = {source: Bucket(rate, burst) for source in range(4)}
    now = 1000.0
    for source, gap in attempts:
        now += gap / rate
        assert shared.take(str(source), now) == own[source].take(now)
    assert shared.overflowed == 0


def test_flood_of_distinct_sources_frees_nobody_and_gets_the_share_of_one():
    bound, burst = 100, 5
    rates = SourceRates(1.0, burst, bound)
    held = [f"held {n}" for n in range(bound)]
    for source in held:
        assert [rates.take(source, 0.0) for _ in range(burst + 1)] == [True] * burst + [False]

    flood = 10_000
    now = 0.5
    admitted = sum(rates.take(f"flood {n}", now) for n in range(flood))
    assert admitted == burst
    assert rates.overflowed == flood
    assert len(rates) == bound
    assert not any(rates.take(source, now) for source in held)
    assert not any(f"flood {n}" in rates for n in range(flood))


def test_sources_that_have_recovered_make_room():
    bound = 100
    rates = SourceRates(1.0, 1, bound)
    for n in range(bound):
        rates.take(f"old {n}", 0.0)
    rates.take("held", 0.0)
    assert "held" not in rates
    assert rates.overflowed == 1
    # One interval later, and a slot's width.
    now = 1.0 + 1 / 64 + 1e-9
    for n in range(bound):
        assert rates.take(f"new {n}", now)
        assert f"new {n}" in rates
        assert len(rates) <= bound
    assert rates.overflowed == 1


def test_many_attempts_at_the_bound_take_no_search():
    rates = SourceRates(0.001, 3, 10_000)
    for n in range(300_000):  # quadratic would be minutes
        rates.take(str(n), n * 1e-5)
    assert len(rates) == 10_000
    assert rates.overflowed == 290_000


@given(st.lists(st.floats(0, 10), min_size=2, max_size=30))
def test_time_that_stands_still_is_no_time(gaps):
    bucket = Bucket(1.0, 1)
    at = times(1.0, gaps, 0.0)
    admitted = [now for now in at if bucket.take(now)]
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(admitted))
