"""Curves as places in a drawing: what is removed against what is kept, and how a fit went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.evaluate.records import STAYS, Evaluation

NEAR = 6.0
"""Per cent; points of a curve that are nearer than this share a label."""


@dataclass(frozen=True)
class Curve:
    """For one suite, each variant as a point: what of the removed is left, and what of the kept, in per cent.

    spots  places with the numbers of the variants that are there, or so near that they would cover each other
    names  of the variants, in the order of their numbers from 1
    """

    suite: str
    removed: str
    kept: str
    spots: tuple[tuple[str, float, float], ...]
    names: tuple[str, ...]


def curves(evaluation: Evaluation) -> list[Curve]:
    """Removed against kept, for suites that have both as shares; the first row of each."""
    found = []
    for suite in evaluation.suites:
        rows = [one for one in evaluation.measured if one.suite == suite.name and one.unit == "share"]
        removed = next((one for one in rows if one.expect_removed), None)
        gone = {one.key for one in rows if one.role == "removed"}
        kept = next((one for one in rows if one.role in STAYS and one.key not in gone), None)
        if removed is None or kept is None:
            continue
        by = {(one.key, one.variant): 100 * one.score.value for one in rows}
        names = [v.name for v in evaluation.variants if {(removed.key, v.name), (kept.key, v.name)} <= by.keys()]
        if len(names) > 1:
            spots = _spots([(by[removed.key, name], by[kept.key, name]) for name in names])
            found.append(Curve(suite.name, removed.row, kept.row, spots, tuple(names)))
    return found


def _spots(points: Sequence[tuple[float, float]]) -> tuple[tuple[str, float, float], ...]:
    """Points by number; those that lie within NEAR of another's spot are named at that."""
    spots: dict[tuple[float, float], list[int]] = {}
    for k, (x, y) in enumerate(points, start=1):
        near = next((at for at in spots if abs(at[0] - x) < NEAR and abs(at[1] - y) < NEAR), (x, y))
        spots.setdefault(near, []).append(k)
    return tuple((", ".join(map(str, numbers)), x, y) for (x, y), numbers in spots.items())


@dataclass(frozen=True)
class Panel:
    """One line of a fit's curve, drawn 260 wide and 120 high.

    top    the error at the upper edge
    last   the error at the end
    points "x,y x,y ..." from the upper left
    stop   where the fit ended before all of its updates; None if it made them all
    """

    name: str
    top: float
    last: float
    points: str
    stop: float | None


def panels(curve: Sequence[tuple[float, float, float]], updates: int) -> list[Panel]:
    """Errors on held-out runs, where the concept is asked for and where something else is, each to its own scale."""
    found = []
    for k, name in ((1, "asked for the concept"), (2, "asked for what must stay")) if curve else ():
        top = max(point[k] for point in curve) or 1.0
        places = [(260 * point[0] / max(updates, 1), 120 * (1 - point[k] / top)) for point in curve]
        stop = places[-1][0] if curve[-1][0] < updates else None
        found.append(Panel(name, top, curve[-1][k], " ".join(f"{x:.1f},{y:.1f}" for x, y in places), stop))
    return found
