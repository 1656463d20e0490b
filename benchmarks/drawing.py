"""Plots as SVG that follow the theme of the reader: points with intervals in panels, and heat maps."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

COLOURS = (
    "#4269d0", "#ff725c", "#3ca951", "#a463f2", "#d99a00", "#2aa4a4", "#9c6b4e", "#e8609a", "#6b8e23", "#ef5675",
    "#5a7d9a", "#7a5195", "#c0a060", "#b35c2a",
)  # fmt: skip
"""Of series; each can be told from the paper of both themes."""
STYLE = """<style>
svg { background: #fff; color: #1b1b1f; font: 12px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { background: #16161a; color: #e8e8ee } }
</style>"""
HEAT = "#e8462f"
Interval = tuple[float, float, float]
"""A value, and the ends of its interval."""


def drawing(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """An SVG. title: what it shows, for those who do not see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
    return "\n".join(
        [f'{head}fill="currentColor">', f"<title>{html.escape(title)}</title>", STYLE, *parts, "</svg>", ""]
    )


def words(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(text)}</text>'


def beyond(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not nearer to zero: an end of an axis; 0 for 0."""
    if not value:
        return 0.0
    ten = 10.0 ** math.floor(math.log10(abs(value)))
    return math.copysign(next(step * ten for step in (1, 2, 5, 10) if step * ten >= abs(value) * (1 - 1e-9)), value)


@dataclass(frozen=True)
class Panel:
    """Axes of a plot: its corner and size in the drawing, and what they span."""

    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + self.width * (min(max(value, low), high) - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return self.top + self.height * (1 - (min(max(value, low), high) - low) / (high - low))

    def axes(self, title: str, across: str, up: str) -> list[str]:
        """Grid, ticks and names."""
        bottom, right, middle = self.top + self.height, self.left + self.width, self.top + self.height / 2
        parts = [words(self.left, self.top - 10, title, more=' font-weight="600"')]
        for part in (0, 0.5, 1):
            x, y = (low + part * (high - low) for low, high in (self.across, self.up))
            parts += [
                f'<path d="M{self.left} {self.y(y):.1f}H{right}M{self.x(x):.1f} {self.top}V{bottom}" '
                'stroke="currentColor" stroke-opacity=".15"/>',
                words(self.left - 6, self.y(y) + 4, f"{y:.3g}", "end"),
                words(self.x(x), bottom + 16, f"{x:.3g}", "middle"),
            ]
        side = self.left - 44
        turned = f' transform="rotate(-90 {side:.0f} {middle:.0f})"'
        return [
            *parts,
            words(self.left + self.width / 2, bottom + 33, across, "middle"),
            words(side, middle, up, "middle", turned),
        ]

    def point(self, colour: str, x: Interval, y: Interval, title: str) -> str:
        """A dot with both intervals."""
        bars = f"M{self.x(x[1]):.1f} {self.y(y[0]):.1f}H{self.x(x[2]):.1f}"
        bars += f"M{self.x(x[0]):.1f} {self.y(y[1]):.1f}V{self.y(y[2]):.1f}"
        dot = f'<circle cx="{self.x(x[0]):.1f}" cy="{self.y(y[0]):.1f}" r="4.5" fill="{colour}"/>'
        return (
            f'<g><title>{html.escape(title)}</title><path d="{bars}" stroke="{colour}" stroke-opacity=".6"/>{dot}</g>'
        )

    def dot(self, colour: str, x: float, y: float) -> str:
        return f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2.5" fill="{colour}"/>'

    def line(self, colour: str, points: Sequence[tuple[float, float]]) -> str:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.8"/>'


def legend(x: float, y: float, names: Mapping[str, str]) -> list[str]:
    """Names by colour, below each other."""
    parts = []
    for k, (name, colour) in enumerate(names.items()):
        parts.append(f'<circle cx="{x:.0f}" cy="{y + 18 * k - 4:.0f}" r="4.5" fill="{colour}"/>')
        parts.append(words(x + 12, y + 18 * k, name))
    return parts


def shade(x: float, y: float, wide: float, high: float, value: float) -> list[str]:
    """A cell of a heat map at its place: a number from 0 to 1, as per cent."""
    box = f'<rect x="{x:.0f}" y="{y}" width="{wide - 2}" height="{high - 2}"'
    return [
        f'{box} fill="{HEAT}" fill-opacity="{0.05 + 0.8 * min(max(value, 0.0), 1.0):.2f}"/>',
        words(x + wide / 2 - 1, y + high / 2 + 4, f"{round(100 * value)}", "middle"),
    ]


def heat(title: str, values: Mapping[str, Mapping[str, float]], columns: Sequence[str], unit: str = "") -> str:
    """Numbers from 0 to 1 as per cent, a line for each key of `values`; a cell that is missing stays empty."""
    wide, high, left, top = 46, 24, 12 + 6.7 * max(map(len, values), default=0), 118
    parts = [words(8, 18, title, more=' font-weight="600"'), words(8, 34, unit, more=' fill-opacity=".75"')]
    for k, name in enumerate(columns):
        at = f"translate({left + wide * k + 26:.0f} {top - 8}) rotate(-40)"
        parts.append(words(0, 0, name, more=f' transform="{at}"'))
    for row, (name, cells) in enumerate(values.items()):
        y = top + high * row
        parts.append(words(left - 8, y + 16, name, "end"))
        for k, column in enumerate(columns):
            if column in cells:
                parts += shade(left + wide * k, y, wide, high, cells[column])
    width = left + wide * len(columns) + 70
    return drawing(max(width, 8.2 * max(len(title), len(unit))), top + high * len(values) + 14, title, parts)
