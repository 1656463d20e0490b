"""Plots of the documentation, by report/plots.py: heat maps, panels of points, and what they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unsee.report.plots import INK, SAID, svg

HEAT = LinearSegmentedColormap.from_list("heat", [(0.91, 0.27, 0.18, 0.05), (0.91, 0.27, 0.18, 0.85)])
CELL = 46, 26
"""Width and height of a cell of a heat map, pixels."""
LETTER = 7.4
"""Width of a letter at most, pixels."""


def beyond(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not nearer to zero: an end of an axis; 0 for 0."""
    if not value:
        return 0.0
    ten = 10.0 ** math.floor(math.log10(abs(value)))
    return math.copysign(next(step * ten for step in (1, 2, 5, 10) if step * ten >= abs(value) * (1 - 1e-9)), value)


def heat(
    title: str,
    values: Mapping[str, Mapping[str, float]],
    columns: Sequence[str],
    unit: str = "",
    groups: Mapping[str, str] | None = None,
) -> str:
    """Shares as per cent, a line for each key of `values`; a cell that is missing stays empty.

    groups  what lines belong to, which is written beside the first of them
    """
    array = np.array([[cells.get(column, np.nan) for column in columns] for cells in values.values()], float)
    array = np.clip(array, 0, None).reshape(len(values), len(columns))

    def draw(figure: Figure) -> None:
        figure.suptitle("\n".join(filter(None, [title, unit])), x=0.01, ha="left", fontsize=12)
        axes = figure.add_subplot()
        axes.pcolormesh(np.ma.masked_invalid(array), cmap=HEAT, vmin=0, vmax=1, edgecolors="none")
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(np.arange(len(values)) + 0.5, list(values))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (row, k), value in np.ndenumerate(array):
            if not np.isnan(value):
                axes.text(k + 0.5, row + 0.5, f"{round(100 * value)}", ha="center", va="center")
        beside = [groups[line] for line in values] if groups else []
        for k, name in enumerate(beside):
            if not k or beside[k - 1] != name:
                axes.axhline(k, color=INK, linewidth=0.8, alpha=0.5)
                axes.text(len(columns) + 0.2, k + 0.5, name, va="center")

    label, head, last = (LETTER * max(map(len, some), default=0) for some in (values, columns, (groups or {}).values()))
    width = max(label + CELL[0] * len(columns) + max(0.77 * head, last), LETTER * max(len(title), len(unit))) + 24
    height = CELL[1] * len(values) + 0.64 * head + 70
    return svg(round(width), round(height), title, draw, alone=True)


def effort(axes: Axes, points: Iterable[tuple[float, float]], colour: str, said: str) -> None:
    """A line with a dot at each of its points."""
    if found := list(points):
        (line,) = axes.plot(*zip(*found, strict=True), ".-", color=colour, linewidth=1.8, clip_on=False)
        line.set_gid(SAID + said)


def legend(figure: Figure, names: Mapping[str, str], note: str = "") -> None:
    """Names by colour at the right, and a note under them."""
    marks = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in names.items()]
    figure.legend(
        handles=[*marks, *([Line2D([], [], linestyle="", label=note)] if note else [])], loc="outside right upper"
    )
