"""The plot of docs/methods.md, from its table: what is left of what must go, and of its neighbours, by variant."""

from __future__ import annotations

import re
from collections.abc import Mapping

from matplotlib.figure import Figure

from unsee.report.plots import COLOURS, SAID, Interval, svg

AFTER = re.compile(r"-> ([\d.]+) \(([\d.]+) to ([\d.]+) %\)")
COLUMNS = {"must go": "what must go: left is better", "neighbours": "neighbours: right is better"}


def numbers(page: str) -> dict[str, dict[str, Interval]]:
    """Per cent after each edit with its 95 % interval, by variant and column; what was not measured is missing."""
    head, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith(("| variant |", "| ["))
    ]
    found: dict[str, dict[str, Interval]] = {}
    for line in lines:
        name = line[0].removeprefix("[").partition("](")[0]
        cells = {column: AFTER.search(line[head.index(column)]) for column in COLUMNS}
        found[name] = {
            column: (float(cell[1]), float(cell[2]), float(cell[3])) for column, cell in cells.items() if cell
        }
    return found


def plot(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """A line for each variant and a panel for each column; a dot with its interval."""
    told = [f"{name}, {column}: {cells[column][0]:g}" for name, cells in found.items() for column in cells]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(COLUMNS), sharey=True)
        for axes, colour, (column, title) in zip(panels, COLOURS, COLUMNS.items(), strict=False):
            for row, (name, cells) in enumerate(found.items()):
                if column in cells:
                    value, low, high = cells[column]
                    axes.plot([low, high], [row, row], color=colour, linewidth=2, clip_on=False)
                    (dot,) = axes.plot([value], [row], "o", color=colour, clip_on=False)
                    dot.set_gid(f"{SAID}{name}: {value:g} ({low:g} to {high:g})")
            axes.set(title=title, xlim=(0, 100), xticks=range(0, 101, 25), ylim=(len(found) - 0.5, -0.5))
            axes.set_yticks(range(len(found)), list(found))
            axes.tick_params(axis="y", length=0, pad=10)
            axes.grid(visible=False, axis="y")

    title = f"Per cent of pictures after each edit that show it, with 95 % intervals. {'; '.join(told)}"
    return svg(760, 20 * len(found) + 60, title, draw, alone=True)
