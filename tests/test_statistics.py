"""Intervals against numbers worked out by hand."""

import math

import pytest

from unsee.evaluate.statistics import mean, rate


def test_wilson_by_hand() -> None:
    # p = 0.5, n = 4, z^2 = 3.8415: centre 0.5, half = z sqrt(1/16 + z^2/64) / (1 + z^2/4) = 0.34996
    score = rate([True, False, True, False])
    assert (score.value, score.n) == (0.5, 4)
    assert score.low == pytest.approx(0.15004, abs=1e-4)
    assert score.high == pytest.approx(0.84996, abs=1e-4)


def test_no_hit_is_not_certainty() -> None:
    # p = 0: the upper end is z^2 / (n + z^2) = 3.8415 / 103.8415
    score = rate([False] * 100)
    assert score.low == pytest.approx(0, abs=1e-12)
    assert score.high == pytest.approx(0.036994, abs=1e-5)


def test_mean_by_hand() -> None:
    # 1, 2, 3: s = 1, half = 1.96 / sqrt(3)
    score = mean([1.0, 2.0, 3.0])
    assert score.value == 2
    assert score.high - 2 == pytest.approx(1.95996 / math.sqrt(3), abs=1e-4)
