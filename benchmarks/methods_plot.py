"""The plot of docs/methods.md, from its table: what is left of what must go, and of its neighbours, by variant."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmarks.drawing import COLOURS, Interval, drawing, words

AFTER = re.compile(r"-> ([\d.]+) \(([\d.]+) to ([\d.]+) %\)")
COLUMNS = {"must go": "what must go: left is better", "neighbours": "neighbours: right is better"}
LEFT, WIDE, GAP, ROW, TOP = 210, 230, 46, 20, 52


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
    bottom = TOP + ROW * len(found)
    parts, told = [], []
    for k, title in enumerate(COLUMNS.values()):
        left = LEFT + (WIDE + GAP) * k
        parts.append(words(left, TOP - 30, title, more=' font-weight="600"'))
        for tick in (0, 25, 50, 75, 100):
            x = left + WIDE * tick / 100
            grid = f'<path d="M{x:.1f} {TOP - 8}V{bottom - 6}" stroke="currentColor" stroke-opacity=".15"/>'
            parts += [grid, words(x, TOP - 14, f"{tick}", "middle")]
    for row, (name, cells) in enumerate(found.items()):
        y = TOP + ROW * row + 4
        parts.append(words(LEFT - 14, y + 4, name, "end"))
        for k, column in enumerate(COLUMNS):
            if column in cells:
                value, low, high = (LEFT + (WIDE + GAP) * k + WIDE * end / 100 for end in cells[column])
                parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{COLOURS[k]}" stroke-width="2"/>')
                parts.append(f'<circle cx="{value:.1f}" cy="{y}" r="4" fill="{COLOURS[k]}"/>')
                told.append(f"{name}, {column}: {cells[column][0]:g}")
    title = f"Per cent of pictures after each edit that show it, with 95 % intervals. {'; '.join(told)}"
    return drawing(LEFT + 2 * WIDE + GAP + 24, bottom + 8, title, parts)
