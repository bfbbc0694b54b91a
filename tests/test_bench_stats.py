"""The comparison's arithmetic: what it must never claim, and what it must see."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats

figures = st.floats(min_value=1e-6, max_value=1e6)
blocks = st.lists(figures, min_size=6, max_size=12)


def test_every_second_block_runs_in_the_opposite_order() -> None:
    assert stats.orders("ABC", 4) == [list("ABC"), list("CBA"), list("ABC"), list("CBA")]


@pytest.mark.parametrize("blocks", [2, 6, 8])
def test_in_an_even_number_of_blocks_every_subject_has_the_same_mean_place(blocks: int) -> None:
    orders = stats.orders("ABCD", blocks)
    places = {sum(order.index(subject) for order in orders) for subject in "ABCD"}
    assert len(places) == 1


@given(blocks, st.integers())
def test_interval_lies_within_the_values_and_is_the_same_for_the_same_seed(
    values: list[float], seed: int
) -> None:
    interval = stats.bootstrap(values, seed=seed)
    assert min(values) * (1 - 1e-9) <= interval.low <= interval.high <= max(values) * (1 + 1e-9)
    assert interval == stats.bootstrap(values, seed=seed)


@given(blocks)
def test_band_holds_one_and_is_even_in_ratio(same: list[float]) -> None:
    band = stats.band(same, seed=1)
    assert band.low <= 1.0 <= band.high
    assert band.low * band.high == pytest.approx(1.0)


@given(blocks)
def test_server_compared_with_itself_is_never_resolved(values: list[float]) -> None:
    assert not stats.compare(values, values, values, seed=1).resolved


def test_band_does_not_depend_on_which_twin_is_called_the_first() -> None:
    first, second = [10.0, 11.0, 9.0, 12.0, 10.0, 10.5], [11.0, 11.5, 10.0, 11.0, 12.0, 11.0]
    one = stats.band(stats.ratios(first, second), seed=1)
    other = stats.band(stats.ratios(second, first), seed=1)
    assert one.high == pytest.approx(other.high, rel=0.02)


def test_difference_within_the_noise_of_twins_is_not_resolved() -> None:
    reference = [10.0, 12.0, 9.0, 11.0, 10.0, 13.0]
    again = [12.0, 10.0, 11.5, 9.0, 12.5, 11.0]
    slower = [value * 1.05 for value in reference]
    found = stats.compare(slower, reference, again, seed=1)
    assert found.ratio == pytest.approx(1.05)
    assert not found.resolved


def test_difference_beyond_the_noise_of_twins_is_resolved() -> None:
    reference = [10.0, 12.0, 9.0, 11.0, 10.0, 13.0]
    again = [12.0, 10.0, 11.5, 9.0, 12.5, 11.0]
    slower = [value * 2.0 for value in reference]
    found = stats.compare(slower, reference, again, seed=1)
    assert found.resolved
    assert found.ratio == pytest.approx(2.0)


@pytest.mark.parametrize(("figures", "reference"), [([1.0], [1.0, 2.0]), ([0.0], [1.0])])
def test_ratio_needs_a_figure_above_zero_from_both_in_every_block(
    figures: list[float], reference: list[float]
) -> None:
    with pytest.raises(ValueError, match=r"above 0|shorter|longer"):
        stats.ratios(figures, reference)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.bootstrap([], seed=1)


@pytest.mark.parametrize(("count", "claimed"), [(6, 0.85), (12, 0.90)])
def test_interval_holds_the_truth_as_often_as_its_docstring_says(
    count: int, claimed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gserver.probe.stats.RESAMPLES", 400)
    draw = random.Random(7)
    held = 0
    for trial in range(600):
        values = [math.exp(draw.gauss(0.0, 0.1)) for _ in range(count)]
        interval = stats.bootstrap(values, seed=trial)
        held += interval.low <= 1.0 <= interval.high
    # Four standard errors of a share of 600 trials.
    assert held / 600 == pytest.approx(claimed, abs=4 * math.sqrt(claimed * (1 - claimed) / 600))


def test_identical_servers_are_resolved_as_rarely_as_the_docstring_says() -> None:
    draw = random.Random(5)

    def figures() -> list[float]:
        return [math.exp(draw.gauss(0.0, 0.1)) for _ in range(3)]

    wrong = 0
    for seed in range(2000):
        reference = figures()
        wrong += stats.compare(figures(), reference, figures(), seed=seed).resolved
    assert 0.002 < wrong / 2000 < 0.02
