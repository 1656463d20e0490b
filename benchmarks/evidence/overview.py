"""The summary of docs/evidence.md and its plots, from the tables of its own sections: nothing is measured here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from benchmarks.drawing import COLOURS, Interval, Panel, drawing, heat, legend, words
from benchmarks.evidence.forest import MARKS, Bar, forest
from unsee import guards

BEGIN, END = "<!-- summary -->", "<!-- end of the summary -->"
BASE = "base"
TOGETHER = 50
"""Pictures of a row from which it is of many things together; fewer are of one thing."""
TELLING = 25
"""Pictures from which a row can be the worst one: of four, one is a quarter."""
WIDE, HIGH, GAP, EDGE = 250, 170, 96, 64


@dataclass(frozen=True)
class Row:
    """A row of a suite's table: per cent if it is a share, with 95 % intervals, by column.

    removed  whether it is of what is erased
    """

    name: str
    cells: Mapping[str, Interval]
    n: int
    unit: str
    removed: bool


@dataclass(frozen=True)
class Task:
    """A section that compares methods: what is erased (`gone`) and every other share."""

    title: str
    gone: Row
    rows: tuple[Row, ...]

    @property
    def kept(self) -> Row | None:
        """Other things together; None if the section has only rows of one thing each."""
        return next((row for row in self.rows if row.n > TOGETHER), None)

    def worst(self, column: str) -> tuple[str, Interval] | None:
        """The other row that loses most by a method, of those with enough pictures."""
        losses = [
            (row.cells[BASE][0] - row.cells[column][0], row.name, row.cells[column])
            for row in self.rows
            if row.n >= TELLING and column in row.cells
        ]
        return max(losses)[1:] if losses else None


def sections(page: str) -> dict[str, str]:
    """The sections of a page by their headings."""
    parts = re.split(r"(?m)^## (.+)$", page)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def grids(text: str) -> list[list[list[str]]]:
    """The tables of a text, each as lines of cells, its head first."""
    found: list[list[list[str]]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("|"):
            whole = [line, *takewhile(lambda other: other.startswith("|"), lines)]
            found.append([[cell.strip() for cell in one.strip("|").split("|")] for one in (whole[0], *whole[2:])])
    return found


def interval(cell: str) -> Interval | None:
    """A cell such as "**0.8 % (0.1 to 4.3)** ≈" as a value and its interval."""
    found = re.search(r"(-?[\d.]+(?:e-?\d+)?)(?: %)?(?: \((-?[\d.e-]+) to (-?[\d.e-]+)\))?", cell)
    if not found:
        return None
    value = float(found[1])
    return (value, float(found[2]), float(found[3])) if found[2] else (value, value, value)


def suite_rows(section: str) -> list[Row]:
    """The rows of all suites of a section, with base and methods as columns."""
    found = []
    for head, *lines in grids(section):
        if head[:2] != ["", BASE] or head[-2:] != ["n", "unit"]:
            continue
        for name, *cells in lines:
            numbers = {column: interval(cell) for column, cell in zip(head[1:-2], cells, strict=False)}
            known = {column: number for column, number in numbers.items() if number}
            found.append(Row(name, known, int(cells[-2]), cells[-1], any(cell.startswith("**") for cell in cells)))
    return found


def tasks(page: str) -> list[Task]:
    """The sections that compare methods on the same pictures."""
    found = []
    for title, text in sections(page).items():
        rows = [row for row in suite_rows(text) if row.unit == "share" and BASE in row.cells]
        gone = next((row for row in rows if row.removed), None)
        if gone and "uce" in gone.cells:
            others = tuple(row for row in rows if not row.removed and "uce" in row.cells)
            found.append(Task(title, gone, others))
    return found


def bars(page: str) -> list[Bar]:
    """The goals of all sections that were measured."""
    found = []
    for title, text in sections(page).items():
        for head, *lines in grids(text):
            for line in lines if head[0] == "goal" else ():
                goal, _, limit, measured, between, *_, state = line
                state = state.strip("*")
                if state in MARKS:
                    value = float(measured.split()[0])
                    low, high = map(float, between.split(" to ")) if between else (value, value)
                    short = title.split(":")[0].split(",")[0].split(" (")[0]
                    found.append(Bar(f"{short}: {goal}", state, float(limit.removeprefix("<= ")), value, low, high))
    return found


def squares(page: str) -> dict[str, dict[str, dict[str, float]]]:
    """Of sections with an edit for each of many things: the share that is seen, by what was erased and by prompt."""
    found = {}
    for title, text in sections(page).items():
        for head, *lines in grids(text):
            if head[0] == "erased" and lines and head[1:] == [line[0] for line in lines][: len(head) - 1]:
                numbers = {line[0]: dict(zip(head[1:], map(interval, line[1:]), strict=True)) for line in lines}
                found[title] = {
                    name: {column: one[0] / 100 for column, one in cells.items() if one}
                    for name, cells in numbers.items()
                }
    return found


def shown(number: Interval | None) -> str:
    return f"{number[0]:.1f} ({number[1]:.1f} to {number[2]:.1f})" if number else ""


def table(found: Sequence[Task]) -> str:
    """Tasks by methods, without guards, which change no weights."""
    lines = ["| task | method | still shows it | other things | the worst of them |", "|---|---|---:|---:|---|"]
    for task in found:
        edits = [column for column in task.gone.cells if column not in guards.names()]
        for column, title in zip(edits, [f"**{task.title}**", *[""] * len(edits)], strict=False):
            worst = task.worst(column) if column != BASE else None
            kept = shown(task.kept.cells.get(column)) if task.kept else ""
            least = f"{worst[0]}: {shown(worst[1])}" if worst else ""
            lines.append(f"| {title} | {column} | {shown(task.gone.cells[column])} | {kept} | {least} |")
    return "\n".join(lines)


TITLE = "What is still seen of each concept against the worst of all else: left and up is better."


def plot(found: Sequence[Task]) -> str:
    """A panel for each task: what is still seen against the worst of all else; a dot with its intervals a method."""
    names = list(dict.fromkeys(name for task in found for name in task.gone.cells if name not in guards.names()))
    colours = dict(zip(names, COLOURS, strict=False))
    parts: list[str] = []
    told = []
    for k, task in enumerate(found):
        left, top = EDGE + (WIDE + GAP) * (k % 2), 40 + (HIGH + GAP) * (k // 2)
        panel = Panel(left, top, WIDE, HIGH, (0.0, 100.0), (0.0, 100.0))
        parts += panel.axes(task.title, f"{task.gone.name}: still seen, per cent", "worst of all else")
        for column, gone in task.gone.cells.items():
            if worst := task.worst(column):
                title = f"{column}: {gone[0]:.1f} % still seen; {worst[0]} {worst[1][0]:.1f} %"
                parts.append(panel.point(colours.get(column, "#8a8a92"), gone, worst[1], title))
                told.append(f"{task.title}, {title}")
    right = EDGE + 2 * (WIDE + GAP) - 40
    used = {**colours, "guards": "#8a8a92"}
    parts += [*legend(right, 52, used), words(right - 4, 52 + 18 * len(used) + 6, "lines: 95 %")]
    height = 40 + (HIGH + GAP) * -(-len(found) // 2)
    title = f"{TITLE} {'; '.join(told)}"
    return drawing(right + 150, height, title, parts)


def summarised(page: str, stem: str) -> tuple[str, dict[str, str]]:
    """A page with its summary between BEGIN and END written anew, and its plots by file name.

    stem  of the page's name, with which those of its plots begin
    """
    found, goals, maps = tasks(page), bars(page), squares(page)
    plots: dict[str, str] = {}
    parts: list[str] = []
    if found:
        plots[f"{stem}-trade-off.svg"] = plot(found)
        parts += [
            SUMMARY,
            table(found),
            f"![Trade-off: what is still seen against the worst of all else, by method]({stem}-trade-off.svg)",
        ]
    if goals:
        plots[f"{stem}-goals.svg"] = forest(goals)
        parts.append(f"![Each goal: what was measured with its 95 % interval, against the limit]({stem}-goals.svg)")
    for k, (title, numbers) in enumerate(maps.items(), start=1):
        name = f"{stem}-square-{k}.svg"
        columns = list(next(iter(numbers.values())))
        unit = "per cent of pictures that show it; line: what was erased, column: what the prompt names"
        plots[name] = heat(title, numbers, columns, unit)
        parts.append(f"![Heat map, {title}: the share that is seen, by what was erased and what is asked for]({name})")
    before, _, rest = page.partition(BEGIN)
    return before + "\n\n".join([BEGIN, *parts, END]) + rest.partition(END)[2], plots


SUMMARY = f"""Per cent of pictures in which a detector sees what the prompt names, with 95 % intervals.
"Other things" are what must stay, together. "The worst of them" is the row that loses most, of those with {TELLING}
pictures or more: the worst of many rows is low by chance too. [The ablation](ablation.md) has seconds. Plots have
guards too, which change no weights."""
