"""Numbers that travel with their n and an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal."""


@dataclass(frozen=True)
class Score:
    """A measured value with its 95 % interval.

    value, low, high  the estimate and the interval's ends
    n                 how many pictures it rests on
    """

    value: float
    low: float
    high: float
    n: int


def rate(hits: Sequence[bool]) -> Score:
    """The share of hits with Wilson's interval (Wilson, 1927).

    centre = (p + z^2 / 2n) / (1 + z^2 / n),   half = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n)
    """
    n = len(hits)
    p = sum(hits) / n
    scale = 1 + Z95**2 / n
    centre = (p + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2)) / scale
    return Score(p, max(0.0, centre - half), min(1.0, centre + half), n)


def mean(values: Sequence[float]) -> Score:
    """The mean with the normal interval, mean +- z s / sqrt(n), s the sample's standard deviation."""
    n = len(values)
    centre = sum(values) / n
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (n - 1)) if n > 1 else math.inf
    half = Z95 * spread / math.sqrt(n)
    return Score(centre, centre - half, centre + half, n)
