"""The goals of docs/evidence.md as a forest plot: what was measured with its interval, against the limit."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, LEFT, RIGHT, ROW, TOP = 900, 510, 870, 24, 40
LEAST, MOST = -1.0, 4.0
"""Ends of the axis, in limits; a bar that goes on beyond is cut there."""
MARKS = {
    "met": '<circle cx="{x}" cy="{y}" r="5" fill="currentColor"/>',
    "missed": '<path d="M{x} {y}m-5 -5l10 10m0 -10l-10 10" stroke="currentColor" stroke-width="2.5"/>',
    "inconclusive": '<circle cx="{x}" cy="{y}" r="4.5" fill="none" stroke="currentColor" stroke-width="1.8"/>',
}
LEGEND = "left of the limit is better; filled: met, cross: missed, ring: inconclusive"
STYLE = """<style>
svg { background: #fff; color: #1b1b1f; font: 12px system-ui, sans-serif }
.met { color: #10743c } .missed { color: #b3261e } .inconclusive { color: #8a5a00 }
@media (prefers-color-scheme: dark) {
  svg { background: #16161a; color: #e8e8ee }
  .met { color: #62c98a } .missed { color: #ff8a80 } .inconclusive { color: #e0b050 }
}
</style>"""


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
    return round(LEFT + (RIGHT - LEFT) * (min(max(units, LEAST), MOST) - LEAST) / (MOST - LEAST), 1)


def forest(shown: Sequence[Bar]) -> str:
    """Goals that were measured as SVG, a line each, in the colours of the reader's theme."""
    height = TOP + ROW * len(shown) + 34
    edge = place(1, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" fill="currentColor">',
        f"<title>{html.escape('; '.join(f'{one.text}: {one.state}' for one in shown))}</title>",
        STYLE,
        f'<path d="M{edge} {TOP - 12}V{height - 30}" stroke="currentColor" stroke-dasharray="4 3"/>',
        f'<text x="{edge}" y="{TOP - 20}" text-anchor="middle">limit</text>',
        f'<text x="{RIGHT}" y="{height - 10}" text-anchor="end">{LEGEND}</text>',
    ]
    for k, one in enumerate(shown):
        y, x = TOP + ROW * k, place(one.value, one.limit)
        bar = f"M{place(one.low, one.limit)} {y}H{place(one.high, one.limit)}"
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{html.escape(one.text)}</text>')
        parts.append(f'<g class="{one.state}"><path d="{bar}" stroke="currentColor" stroke-width="1.5"/>')
        parts.append(MARKS[one.state].format(x=x, y=y) + "</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"
