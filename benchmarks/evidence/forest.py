"""The goals of docs/evidence.md as a forest plot: what was measured with its interval, against the limit."""

from __future__ import annotations

import html
from collections.abc import Sequence

from benchmarks.evidence.goals import Result

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 330, 690, 24, 40
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


def place(value: float, limit: float) -> float:
    """Where a value is on the axis, which counts in limits; where the limit is 0, in its own unit, from 1 on."""
    units = value / limit if limit > 0 else 1 + value
    return round(LEFT + (RIGHT - LEFT) * (min(max(units, LEAST), MOST) - LEAST) / (MOST - LEAST), 1)


def forest(found: Sequence[Result]) -> str:
    """Goals that were measured as SVG, a line each, in the colours of the reader's theme."""
    shown = [one for one in found if one.state in MARKS and one.worst]
    height = TOP + ROW * len(shown) + 34
    edge = place(1, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" fill="currentColor">',
        f"<title>{html.escape('; '.join(f'{one.goal.text}: {one.state}' for one in shown))}</title>",
        STYLE,
        f'<path d="M{edge} {TOP - 12}V{height - 30}" stroke="currentColor" stroke-dasharray="4 3"/>',
        f'<text x="{edge}" y="{TOP - 20}" text-anchor="middle">limit</text>',
        f'<text x="{LEFT}" y="{height - 10}">{LEGEND}</text>',
    ]
    for k, one in enumerate(shown):
        assert one.worst
        y, limit, quantity = TOP + ROW * k, one.goal.limit, one.goal.quantity
        x = place(quantity.value(one.worst), limit)
        low, high = quantity.bounds(one.worst) or (quantity.value(one.worst),) * 2
        bar = f"M{place(low, limit)} {y}H{place(high, limit)}"
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{html.escape(one.goal.text)}</text>')
        parts.append(f'<g class="{one.state}"><path d="{bar}" stroke="currentColor" stroke-width="1.5"/>')
        parts.append(MARKS[one.state].format(x=x, y=y) + "</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"
