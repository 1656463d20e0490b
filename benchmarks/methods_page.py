"""The page of benchmarks.methods and its plot, from its table: a row and a section for each variant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.evidence.record import EDIT, SECONDS, Cell
from unsee.evaluate.suites.summary import REST
from unsee.report.before_after import MISSING, Line, lines
from unsee.report.plots import COLOURS, SAID, Interval, svg
from unsee.report.tables import number

CHANGES = "changes"
"""The row of a cell that holds which share of the denoiser's parameters changes, and whose note is the method."""
STYLES, NEAR = "removed in styles", "neighbours"
COLUMNS = {"must go": "what must go: left is better", NEAR: "neighbours: right is better"}


@dataclass(frozen=True)
class Variant:
    """A section of the page.

    words  of the command, after `unsee erase`
    about  a sentence on what is special
    cost   how long it takes, in units of the default; a guess, for the time that is said to be left
    """

    name: str
    words: str
    about: str = ""
    cost: float = 1.0


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def starting(rows: Sequence[Line], key: str) -> Line | None:
    return next((row for row in rows if row.key.startswith(key)), None)


def picked(rows: Sequence[Line]) -> list[Line]:
    """The row of what must go, the worst if there are several, and that of everything else."""
    removed = [row for row in rows if row.removed and row.shares and not row.key.startswith(STYLES)]
    first = max(removed, key=lambda row: row.shares[1] if row.shares else 0, default=rows[0])
    return [first, next(row for row in rows if row.key == REST)]


def cell(row: Line | None) -> str:
    """A share before and after, with n."""
    if row is None:
        return ""
    if row.share is None or row.shares is None:
        change = row.change.score
        return f"{MISSING}; pictures change by {change.value:.0f} of 255, n {change.n}"
    before, after = (100 * share for share in row.shares)
    low, high = (number(end, "share") for end in (row.share.score.low, row.share.score.high))
    return f"{before:.1f} -> {after:.1f} ({low.removesuffix(' %')} to {high}), n {row.share.score.n}"


def line(one: Cell) -> str:
    """A row of the page's table."""
    rows = lines(one.rows, "edit")
    first, rest = picked(rows)
    changes, seconds = one.row(EDIT, CHANGES), one.row(EDIT, SECONDS)
    cells = [f"[{one.by}](#{re.sub(r'[^a-z0-9 -]', '', one.by.lower()).replace(' ', '-')})"]
    cells += [changes.note if changes else ""]
    cells += [f"{first.name}: {cell(first)}", cell(starting(rows, STYLES)), cell(starting(rows, NEAR)), cell(rest)]
    cells += [cell(starting(rows, "styles"))]
    cells += [number(changes.score.value, "share") if changes else "", f"{seconds.score.value:.0f}" if seconds else ""]
    return "| " + " | ".join(cells) + " |"


HEAD = """# Every variant

This page shows what each method, selection, setting and preset erases from the miniature, and what it damages.

**This page cannot rank variants that are near each other.** Each is one run at one seed. Where intervals overlap,
chance explains the difference.

![What is left of what must go, and of its neighbours, by variant, with 95 % intervals]({plot})

Each row is one run on the miniature, at one seed, of the command in its section. `{command}` writes this
page from [methods.csv](methods.csv).

- A cell is the per cent of pictures in which a detector sees what the prompt names, before -> after, with Wilson's
  95 % interval of "after". "Must go" is the worst row if several concepts are erased.
- "Method" is the method that ran. Where a command names none, its settings say which it is.
- "Changes" is the share of the denoiser's parameters. "Seconds" is the time until the edit exists, on the machine that
  wrote this page. A run that was interrupted has none.

| variant | method | must go | in every style | neighbours | everything else | styles | changes | seconds |
|---|---|---|---|---|---|---|---|---|
"""


def page(cells: Sequence[Cell], given: Sequence[Variant], commands: Mapping[str, str], out: Path) -> str:
    """The page in Markdown: what was measured, in the order of the variants."""
    sections = []
    for variant in (one for one in given if one.name in {cell.by for cell in cells}):
        image = f"![Before and after]({out.stem}/{slug(variant.name)}.webp)"
        parts = [f"## {variant.name}", variant.about, f"```sh\n{commands[variant.name]}\n```", image]
        sections.append("\n\n".join(filter(None, parts)))
    head = HEAD.format(command="python -m benchmarks.methods", plot=f"{out.stem}.svg")
    return head + "\n".join(map(line, cells)) + "\n\n" + "\n\n".join(sections) + "\n"


def numbers(cells: Sequence[Cell]) -> dict[str, dict[str, Interval]]:
    """Per cent after each edit with its 95 % interval, by variant and column; what was not measured is missing."""
    found: dict[str, dict[str, Interval]] = {}
    for one in cells:
        rows = lines(one.rows, "edit")
        shown = zip(COLUMNS, (picked(rows)[0], starting(rows, NEAR)), strict=True)
        scores = {column: row.share.score for column, row in shown if row and row.share}
        found[one.by] = {
            column: (100 * score.value, 100 * score.low, 100 * score.high) for column, score in scores.items()
        }
    return found


def plot(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """A line for each variant and a panel for each column; a dot with its interval."""
    told = [f"{name}, {column}: {cells[column][0]:.1f}" for name, cells in found.items() for column in cells]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(COLUMNS), sharey=True)
        for axes, colour, (column, title) in zip(panels, COLOURS, COLUMNS.items(), strict=False):
            for row, (name, cells) in enumerate(found.items()):
                if column in cells:
                    value, low, high = cells[column]
                    axes.plot([low, high], [row, row], color=colour, linewidth=2, clip_on=False)
                    (dot,) = axes.plot([value], [row], "o", color=colour, clip_on=False)
                    dot.set_gid(f"{SAID}{name}: {value:.1f} ({low:.1f} to {high:.1f})")
            axes.set(title=title, xlim=(0, 100), xticks=range(0, 101, 25), ylim=(len(found) - 0.5, -0.5))
            axes.set_yticks(range(len(found)), list(found))
            axes.tick_params(axis="y", length=0, pad=10)
            axes.grid(visible=False, axis="y")

    title = f"Per cent of pictures after each edit that show it, with 95 % intervals. {'; '.join(told)}"
    return svg(760, 20 * len(found) + 60, title, draw, alone=True)
