"""Intervals against numbers worked out by hand."""

import math

import numpy as np
import pytest

from unsee.evaluate.statistics import (
    bootstrap,
    frechet,
    jackknifed,
    kernel_distance,
    paired_means,
    paired_rates,
    rate,
)


def test_wilsons_interval_is_that_computed_by_hand() -> None:
    # p = 0.5, n = 4, z^2 = 3.8415: centre 0.5, half = z sqrt(1/16 + z^2/64) / (1 + z^2/4) = 0.34996
    score = rate([True, False, True, False])
    assert (score.value, score.n) == (0.5, 4)
    assert score.low == pytest.approx(0.15004, abs=1e-4)
    assert score.high == pytest.approx(0.84996, abs=1e-4)


def test_the_interval_of_no_hits_does_not_end_at_zero() -> None:
    # p = 0: the upper end is z^2 / (n + z^2) = 3.8415 / 103.8415
    score = rate([False] * 100)
    assert score.low == pytest.approx(0, abs=1e-12)
    assert score.high == pytest.approx(0.036994, abs=1e-5)


def test_the_paired_test_is_that_computed_by_hand() -> None:
    # 10 pairs: b = 6 lost, c = 0 won. d = -6/12, half = z sqrt(7 - 36/12) / 12 = 0.32666; chance = 2 / 2^6 = 0.03125
    change = paired_rates([True] * 8 + [False] * 2, [False] * 6 + [True] * 2 + [False] * 2)
    assert (change.value, change.n, change.differs) == (-0.6, 10, True)
    assert (change.low, change.high) == pytest.approx((-0.82666, -0.17334), abs=1e-4)


def test_five_of_five_lost_is_not_yet_a_difference() -> None:
    # 2 / 2^5 = 0.0625
    assert not paired_rates([True] * 5, [False] * 5).differs


def test_the_interval_of_no_changes_is_not_empty() -> None:
    # b = c = 0, n = 98: half = z / 100
    change = paired_rates([True] * 98, [True] * 98)
    assert (change.value, change.differs) == (0, False)
    assert change.high == pytest.approx(0.0195996, abs=1e-6)


def test_pairs_see_what_two_rates_cannot() -> None:
    """8 of 100 lost and none won: Wilson's intervals of 60 and 52 % overlap, the pairs differ."""
    before, after = [True] * 60 + [False] * 40, [True] * 52 + [False] * 48
    assert rate(before).low < rate(after).high
    assert paired_rates(before, after).differs


def test_the_bootstrap_of_two_values_is_that_computed_by_hand() -> None:
    # Means of two draws from {0, 1} are 0, 1/2, 1 with chances 1/4, 1/2, 1/4: the interval is all of it.
    score = bootstrap([0.0, 1.0])
    assert (score.value, score.low, score.high, score.n) == (0.5, 0.0, 1.0, 2)


def test_a_mean_of_nothing_is_no_number_and_no_error() -> None:
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        score = bootstrap([])
    assert (score.n, math.isnan(score.value), math.isnan(score.low)) == (0, True, True)


def test_bootstrap_is_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=400)
    found, half = bootstrap(values.tolist()), 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_paired_means_have_the_interval_computed_by_hand() -> None:
    first = [1.0, 5.0, 9.0, 1.0, 5.0, 9.0]
    change = paired_means(first, [value + 1 for value in first])  # always one more, whatever the spread
    assert (change.value, change.low, change.high, change.differs) == (1, 1, 1, True)
    assert not paired_means([0.0, 1.0], [1.0, 0.0]).differs


def test_five_means_that_all_rise_are_not_yet_a_difference() -> None:
    """As with shares: five coins that fall alike do so in 6 % of cases, six in 3 %."""
    assert not paired_means([0.0] * 5, [1.0] * 5).differs
    assert paired_means([0.0] * 6, [1.0] * 6).differs


def test_a_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0, 3.0, 5.0, 8.0, 0.0, 7.0, 6.0])
    assert jackknifed(10, lambda rows: float(values[rows].mean())) == pytest.approx(
        2.262 * values.std(ddof=1) / 10**0.5
    )
    assert jackknifed(10, lambda rows: 3.0) == 0


def test_the_frechet_distance_is_that_computed_by_hand() -> None:
    # One feature: (m - m')^2 + (s - s')^2. {0, 2} has m 1, s^2 2; {3, 7} has m 5, s^2 8: 16 + 2
    x, y = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    assert frechet(x, y) == pytest.approx(18)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    # Two independent features: the sum.
    square = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
    few, wide = np.random.default_rng(0).normal(size=(2, 6, 9))  # fewer rows than features: the other way to the root
    c_x, c_y = np.cov(few, rowvar=False), np.cov(wide, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(c_x @ c_y).astype(complex)).real.sum()
    assert frechet(few, wide) == pytest.approx(
        ((few.mean(0) - wide.mean(0)) ** 2).sum() + np.trace(c_x + c_y) - 2 * root
    )
    assert frechet(square, square * [1, 2] + [0, 1]) == pytest.approx((2 + 1 - 1) ** 2 + (4 / 3) * (2 - 1) ** 2)


def test_pairs_of_one_prompt_do_not_count_in_a_kernel_distance() -> None:
    """k(0, 0) = k(0, 1) = 1 and k(1, 1) = 8: equal sets are at 1 + 1 - 2 across, 2.75 with the pairs and 1 without."""
    x, pairs = np.array([[0.0], [1.0]]), np.arange(2)
    assert kernel_distance(x, x) == pytest.approx(2 - 2 * 2.75)
    assert kernel_distance(x, x, pairs) == pytest.approx(0)
    assert kernel_distance(x, x[::-1], pairs[::-1].copy()) == pytest.approx(0)
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 2))
    halves = [kernel_distance(z, z, np.arange(20)) for z in np.array_split(y, 2)]
    assert kernel_distance(y, y, np.arange(40), block=20) == pytest.approx(np.mean(halves))


def test_the_kernel_distance_is_that_computed_by_hand() -> None:
    # D = 1, kernel (ab + 1)^3. x = {0, 1}: k(0, 1) = 1. y = {1, 2}: k(1, 2) = 27. Across: 1, 1, 8, 27: mean 37/4.
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kid_of_many_is_the_mean_over_blocks() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 7, 3))
    parts = [kernel_distance(a, b) for a, b in zip(np.array_split(x, 2), np.array_split(y, 2), strict=True)]
    assert kernel_distance(x, y, block=3) == pytest.approx(np.mean(parts))
    assert kernel_distance(x, y, block=4) == kernel_distance(x, y)
