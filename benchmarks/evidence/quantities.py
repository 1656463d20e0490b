"""What a goal is about: a number of one record, with its 95 % interval, in the unit that the goal's text names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unsee.evaluate.records import Measured


@dataclass(frozen=True)
class Quantity:
    """bounds: of the number's interval; None where it has none."""

    value: Callable[[Measured], float]
    bounds: Callable[[Measured], tuple[float, float] | None]


def _share(one: Measured) -> float:
    return 100 * one.score.value


def _share_bounds(one: Measured) -> tuple[float, float]:
    return 100 * one.score.low, 100 * one.score.high


def _gain(one: Measured) -> float:
    return 100 * one.difference.value if one.difference else 0.0


def _gain_bounds(one: Measured) -> tuple[float, float] | None:
    return (100 * one.difference.low, 100 * one.difference.high) if one.difference else None


def _loss(one: Measured) -> float:
    return -_gain(one)


def _loss_bounds(one: Measured) -> tuple[float, float] | None:
    bounds = _gain_bounds(one)
    return (-bounds[1], -bounds[0]) if bounds else None


def _of_base(one: Measured) -> float:
    return 100 * one.score.value / one.base.value if one.base and one.base.value else 100.0


def _of_base_bounds(one: Measured) -> tuple[float, float] | None:
    """Of the number as it was: the base's own interval is left out."""
    if not (one.base and one.base.value):
        return None
    return 100 * one.score.low / one.base.value, 100 * one.score.high / one.base.value


def _lost_of_base_bounds(one: Measured) -> tuple[float, float] | None:
    bounds = _of_base_bounds(one)
    return (100 - bounds[1], 100 - bounds[0]) if bounds else None


def _above(one: Measured) -> float:
    return float(one.base is not None and one.score.value > one.base.high)


SHARE = Quantity(_share, _share_bounds)
LOSS = Quantity(_loss, _loss_bounds)
"""Points of per cent that a share falls by."""
GAIN = Quantity(_gain, _gain_bounds)
"""Points of per cent that it rises by."""
OF_BASE = Quantity(_of_base, _of_base_bounds)
"""A share as per cent of the base's."""
LOST_OF_BASE = Quantity(lambda one: 100 - _of_base(one), _lost_of_base_bounds)
ABOVE = Quantity(_above, lambda one: None)
"""Whether a number is beyond the interval of the base's own."""
