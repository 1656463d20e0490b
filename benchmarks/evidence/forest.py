"""The goals of docs/evidence.md as a forest plot: what was measured with its interval, against the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from unsee.report.plots import INK, SAID, svg

LEAST, MOST = -1.0, 4.0
"""Ends of the axis, in limits; a bar that goes on beyond is cut there."""
MARKS: dict[str, Any] = {
    "met": {"marker": "o", "color": "#2e9e5b"},
    "missed": {"marker": "X", "color": "#d64545"},
    "inconclusive": {"marker": "o", "color": "#c08a1e", "fillstyle": "none"},
}
"""Of states; the colours can be told from the paper of both themes."""


@dataclass(frozen=True)
class Bar:
    """A goal that was measured: its state, its limit, and what was found with its 95 % interval, in one unit."""

    text: str
    state: str
    limit: float
    value: float
    low: float
    high: float


def place(value: float, limit: float) -> float:
    """Where a value is on the axis, which counts in limits; where the limit is 0, in its own unit, from 1 on."""
    units = value / limit if limit > 0 else 1 + value
    return min(max(units, LEAST), MOST)


def forest(shown: Sequence[Bar]) -> str:
    """Goals that were measured, a line each."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(1, color=INK, linestyle="--", linewidth=1)
        for row, one in enumerate(shown):
            look = MARKS[one.state]
            value, low, high = (place(end, one.limit) for end in (one.value, one.low, one.high))
            axes.plot([low, high], [row, row], color=look["color"], linewidth=1.5)
            (mark,) = axes.plot([value], [row], markersize=8, linestyle="", clip_on=False, **look)
            mark.set_gid(f"{SAID}{one.text}: {one.value:.1f} ({one.low:.1f} to {one.high:.1f}), {one.state}")
        axes.set_yticks(range(len(shown)), [one.text for one in shown])
        axes.set(xticks=[1], xticklabels=["limit"], xlim=(LEAST, MOST), ylim=(len(shown) - 0.5, -0.8))
        axes.set_xlabel("left of the limit is better\nfilled: met, cross: missed, ring: inconclusive")
        axes.tick_params(axis="y", length=0, pad=10)
        axes.grid(visible=False)

    title = "; ".join(f"{one.text}: {one.state}" for one in shown)
    return svg(760, 24 * len(shown) + 82, title, draw, alone=True)
