"""The trade-off curve of an edit's scale: as a line for the record, and as places in a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unsee.edits.card import Card


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
