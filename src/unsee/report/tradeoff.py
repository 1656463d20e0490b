"""What is removed against what is kept: of an edit beside its base, and of each scale of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.edits.card import Card
from unsee.evaluate.statistics import Score
from unsee.evaluate.suites.summary import REST
from unsee.report.before_after import Line


@dataclass(frozen=True)
class Mark:
    """A model in a plot of what is still seen (x) against what is kept (y), in per cent, with 95 % intervals."""

    text: str
    shape: str
    x: float
    y: float
    across: tuple[float, float]
    along: tuple[float, float]


def mark(text: str, shape: str, gone: Score, kept: Score) -> Mark:
    """The mark of two shares."""
    across, along = ((100 * one.low, 100 * one.high) for one in (gone, kept))
    return Mark(text, shape, 100 * gone.value, 100 * kept.value, across, along)


def beside_base(rows: Sequence[Line]) -> list[Mark]:
    """The base and an edit, by the first row of what is erased and by everything else; none if one is not counted."""
    gone = next((row.share for row in rows if row.removed and row.share), None)
    kept = next((row.share for row in rows if row.key == REST), None)
    if gone is None or kept is None or gone.base is None or kept.base is None:
        return []
    return [mark("base", "ring", gone.base, kept.base), mark("edit", "circle", gone.score, kept.score)]


def scale_taken(card: Card) -> list[str]:
    """A sentence with the scale that was taken, and with 1 beside it; none where no scale was chosen."""
    shares = {
        scale: f"removes {100 * removed:.0f} % and keeps {100 * kept:.0f} %" for scale, removed, kept in card.tradeoff
    }
    if not shares:
        return []
    beside = f"; scale 1 {shares[1.0]}" if card.scale != 1.0 and 1.0 in shares else ""
    return [f"auto: scale {card.scale:g} {shares[card.scale]} of what words add to recorded predictions{beside}"]


@dataclass(frozen=True)
class Point:
    """A scale of the edit in a drawing whose axes are 300 wide and 200 high, from the corner at (50, 210)."""

    scale: float
    x: float
    y: float
    taken: bool
    title: str


def places(points: Sequence[tuple[float, float, float]], taken: float) -> list[Point]:
    """The points of a curve (scale, removed, kept), and which of them was taken."""
    return [
        Point(
            scale,
            round(50 + 300 * removed, 1),
            round(210 - 200 * kept, 1),
            scale == taken,
            f"scale {scale:g}: {100 * removed:.1f} % removed, {100 * kept:.1f} % kept",
        )
        for scale, removed, kept in points
    ]
