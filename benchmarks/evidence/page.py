"""A page of evidence and its plots, from its table."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.drawing import beyond, heat, legend
from benchmarks.evidence.forest import MARKS, Bar, forest
from benchmarks.evidence.goals import UNMEASURED, Result, State, decided, reached, said, table
from benchmarks.evidence.record import ASKED, EDIT, SECONDS, Cell
from benchmarks.evidence.suites import SAID, WORDING
from benchmarks.evidence.tasks import BESIDE, COLUMNS, FID, GONE, NEIGHBOUR, REST, Task
from unsee import guards
from unsee.evaluate.context import BASE
from unsee.evaluate.records import Measured
from unsee.evaluate.statistics import rate
from unsee.report.plots import COLOURS, Interval, point, svg
from unsee.report.tables import number

SLOWER = 2.0
"""Times the seconds on the other miniature that a method may take, at most."""


class Said(NamedTuple):
    """What a page says of itself: its name, its model, the one that edits are timed on too, and what is asked."""

    page: str
    model: str
    reference: str
    alike: tuple[str, ...]
    described: bool


class Line(NamedTuple):
    """A task, or a group of tasks, by one method: what is measured of it."""

    tasks: tuple[Task, ...]
    cells: tuple[Cell, ...]

    @property
    def task(self) -> Task:
        return self.tasks[0]

    @property
    def by(self) -> str:
        return self.cells[0].by

    def result(self, column: str) -> Result | None:
        """What was found for a goal; None if it has none in this column. Of a group, what is erased counts together."""
        goal = self.task.goals.get(column)
        if goal is None or any(cell.refused for cell in self.cells):
            return None
        each = [decided(task.goals[column], cell.rows) for task, cell in zip(self.tasks, self.cells, strict=True)]
        rows = [one.worst for one in each if one.worst]
        if len(rows) > 1 and column == GONE:
            rows = [together(rows)]
        return decided(replace(goal, pick=lambda one: True), rows)

    @property
    def seconds(self) -> tuple[float, float | None] | None:
        """Of one core for an edit, and on the other miniature; None where none was made."""
        if not (rows := [one for cell in self.cells if (one := cell.row(EDIT, SECONDS))]):
            return None
        base = rows[0].base
        return sum(one.score.value for one in rows) / len(rows), base.value if base else None


def together(rows: Sequence[Measured]) -> Measured:
    """Shares of several edits as one, of all their pictures."""

    def pooled(pairs: Sequence[tuple[float, int]]) -> list[bool]:
        hits, n = sum(round(value * n) for value, n in pairs), sum(n for _, n in pairs)
        return [True] * hits + [False] * (n - hits)

    score = rate(pooled([(one.score.value, one.score.n) for one in rows]))
    base = rate(pooled([(one.base.value, one.base.n) for one in rows if one.base]))
    return replace(rows[0], row=f"{len(rows)} edits together", score=score, base=base)


def lines_of(every: Sequence[Task], cells: Sequence[Cell]) -> list[Line]:
    """Tasks by methods, the default of each first; groups as one."""
    by_name = {task.name: task for task in every}
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.task in by_name:
            found.setdefault((by_name[cell.task].line, cell.by), []).append(cell)
    lines = [Line(tuple(by_name[cell.task] for cell in some), tuple(some)) for some in found.values()]
    order = list(dict.fromkeys(task.line for task in every))
    return sorted(lines, key=lambda one: (order.index(one.task.line), one.by != one.task.default))


HEAD = """# What erasing reaches on {model}

Each task erases something from {model}, by each method. What is left of it, and what is lost beside it, must be within
a limit: the goals of the task.

{decided}

Each line is a task by a method, on equal prompts and seeds with the base model. The first method of a task is the one
that `unsee erase` takes. <span class="met">met</span>: the whole 95 % interval is within the goal's limit.
<span class="missed">**missed**</span>: all of it is beyond. <span class="inconclusive">?</span> inconclusive: the limit
is in it. <span class="void">void</span>: the base model draws too little of it to lose."""

MADE = """## How it was measured

`python -m benchmarks.evidence{page}` writes this page from [{stem}.csv]({stem}.csv), which has all rows: n, both ends
of each interval, the base's number, and the day of the measurement. Model: `{model}`, {asked}. Seeds of a row count up.

- **Cell**: the number that a goal is about, the worst if there are several, with its 95 % interval. Shares have
  Wilson's interval. What is lost is measured picture by picture on equal prompts and seeds (Agresti and Min).
- **erased**: per cent of pictures in which a detector still sees it; of the implicit concept, per cent of the base's
  share. *void* also if what must go does not fall significantly.
- **Neighbours**: {alike} and the five objects whose texts are nearest, together; of a style, its subjects.
{more}- **seconds** of one core until the edit exists.{ratio}
- **The paper's figures** (Gandikota et al., ICCV 2023) are for Stable Diffusion 1.4. Do not compare them with these.
"""
UNSEEN_SAID = """- **Unseen wording**: descriptions that no training caption contains and no method is told
  (`recipes/flow/held_out.yaml`).
"""
COMPARED = """- **ESD-x, paper** and **ESD-u, paper** are the paper's loop with its own learning rate, chosen for Stable
  Diffusion 1.4. **Guards** change no weights: {guards}. SLD-Strong waits 7 steps, SLD-Max none.
- **filtered twin**: a miniature trained without the concept ([twins/README.md](../twins/README.md)). All its pictures
  differ from the base model's. Its text encoder is the shipped one and knows the word.
"""


def goals_of(lines: Sequence[Line]) -> list[Result]:
    """What was found for the goals of all tasks, by the default of each."""
    return [
        replace(result, goal=replace(result.goal, text=f"{line.task.line}: {result.goal.text}"))
        for line in lines
        if line.by == line.task.default
        for column in COLUMNS
        if (result := line.result(column))
    ]


def page(every: Sequence[Task], cells: Sequence[Cell], said_of: Said, out: Path, drawn: Collection[str] = ()) -> str:
    """The page as Markdown. drawn: the files of its plots."""
    lines, stem = lines_of(every, cells), out.stem
    parts = [
        HEAD.format(model=said_of.model, decided=reached(goals_of(lines)) or "Nothing is measured yet."),
        summary(lines),
    ]
    titles = {
        f"{stem}.svg": "Trade-off by task: what is left of a concept against what is lost beside it, by method",
        f"{stem}-goals.svg": "Each goal: what was measured with its 95 % interval, against the limit",
    }
    for name in drawn:
        what = name.removeprefix(f"{stem}-").removesuffix(".svg").replace("-", " ")
        parts.append(f"![{titles.get(name, f'Heat map, {what}: what was erased by what is asked for')}]({name})")
    for task in dict.fromkeys(line.task.line for line in lines):
        parts.append(section([line for line in lines if line.task.line == task], out))
    asked = dict.fromkeys(one.note for cell in cells if (one := cell.row(EDIT, ASKED)))
    beside = [name for name in guards.names() if any(cell.by == name for cell in cells)]
    ratio = f" **ratio**: to those on `{said_of.reference}` in the same run; met up to 2." if said_of.reference else ""
    more = UNSEEN_SAID * said_of.described + (COMPARED.format(guards=", ".join(beside)) if beside else "")
    name = "" if said_of.page == "evidence" else f" {said_of.page}"
    parts.append(
        MADE.format(
            page=name, stem=stem, model=said_of.model, asked="; ".join(asked), ratio=ratio, more=more,
            alike=", ".join(said_of.alike) or "none that are named",
        )
    )  # fmt: skip
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def summary(lines: Sequence[Line]) -> str:
    """The first table: tasks by methods."""
    goals = [name for name in COLUMNS if name not in (BESIDE, FID) and any(name in line.task.goals for line in lines)]
    ratio = ["ratio"] if any(line.seconds and line.seconds[1] for line in lines) else []
    rows: list[list[str]] = [["task", "by", *goals, "pictures change", "seconds", *ratio]]
    for line in (one for one in lines if any(name in goals for name in one.task.goals)):
        first = [f"**{line.task.line}**" if line.by == line.task.default else line.task.line, line.by]
        if refused := next((cell.refused for cell in line.cells if cell.refused), ""):
            rows.append([*first, f"refused: {refused}", *[""] * (len(rows[0]) - 3)])
            continue
        change = line.cells[0].row(*line.task.change)
        spent, other = line.seconds or (None, None)
        slow = spent / other if spent and other else None
        times = [signed(f"{slow:.1f}", "met" if slow <= SLOWER else "missed") if slow else ""] * len(ratio)
        rows.append(
            [
                *first,
                *(shown(line.result(name)) for name in goals),
                number(change.score.value, change.unit) if change else "",
                f"{spent:.1f}" if spent else "",
                *times,
            ]
        )
    return lined(rows, left=2)


def shown(result: Result | None) -> str:
    """A number with its interval and whether the goal is met."""
    if result is None:
        return ""
    if result.worst is None:
        return UNMEASURED
    value, low, high = result.interval
    return signed(f"{value:.1f} ({low:.1f} to {high:.1f})", result.state)


def signed(text: str, state: State) -> str:
    """A number with its state."""
    return f"{text} {said(state, '?')}"


def section(lines: Sequence[Line], out: Path) -> str:
    """A task: pictures by each method, its goals by the default, its unseen wording."""
    task = lines[0].task
    lead = next((line for line in lines if line.by == task.default), None)
    title = task.title.rpartition(":")[0] if task.group else task.title
    parts = [f"## {title}"]
    words_said = [word for line in lines[:1] for one in line.tasks for word in one.words]
    parts.append(f"Concepts: {', '.join(words_said)}.")
    parts[-1] += f" Named with `--keep`: {', '.join(task.keep)}." if task.keep else ""
    if not task.group:
        parts.append(strips(task, lines, out))
    if lead:
        goals = table([result for column in COLUMNS if (result := lead.result(column))])
        parts.append(f"<details markdown><summary>The goals, by {task.default}</summary>\n\n{goals}\n\n</details>")
    parts.append(descriptions(lines))
    return "\n\n".join(part for part in parts if part)


def strip_of(out: Path, task: str, by: str) -> Path:
    """The file of some pictures of a cell, or of the base."""
    return out.with_suffix("") / (re.sub(r"\W+", "-", f"{task} {by}".lower()) + ".webp")


def strips(task: Task, lines: Sequence[Line], out: Path) -> str:
    """Pictures of what must go and of what must stay, a line for each method."""
    rows = [["", "what must go, and what must stay"]]
    for by in (BASE, *(line.by for line in lines)):
        path = strip_of(out, task.name, by)
        if path.is_file():
            rows.append([by, f"![{task.title}, {by}]({path.parent.name}/{path.name})"])
    return lined(rows, left=2) if len(rows) > 1 else ""


def descriptions(lines: Sequence[Line]) -> str:
    """How often each unseen description of what is erased still leads to it: pictures that show it, of n."""
    counts: dict[str, dict[str, str]] = {}
    for line in lines:
        for one in line.cells[0].rows:
            if one.suite == WORDING and one.key.startswith(SAID) and one.base:
                own = counts.setdefault(one.row, {BASE: ""})
                own[BASE] = own[BASE] or f"{round(one.base.value * one.base.n)} of {one.base.n}"
                own[line.by] = f"{round(one.score.value * one.score.n)} of {one.score.n}"
    if not counts:
        return ""
    names = [BASE, *(line.by for line in lines)]
    return lined(
        [
            ["unseen description", *names],
            *([text, *(by.get(name, "") for name in names)] for text, by in counts.items()),
        ]
    )


def lined(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of Markdown, its head first; the first columns have their text at the left, all others numbers."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * left + "---:|" * (len(rows[0]) - left), *lines[1:]])


def plots(every: Sequence[Task], cells: Sequence[Cell], stem: str) -> dict[str, str]:
    """The page's plots by file name: the trade-off, the goals, and a heat map for each group."""
    lines = lines_of(every, cells)
    found = {}
    if any(line.result(GONE) for line in lines):
        found[f"{stem}.svg"] = trade_off([line for line in lines if not line.task.group])
    if bars := goal_bars(lines):
        found[f"{stem}-goals.svg"] = forest(bars)
    for line in lines:
        if line.task.group and line.by == line.task.default:
            about = "per cent of pictures that show it; line: what was erased, column: what the prompt names"
            values, columns = square(line)
            name = f"{stem}-{line.task.group.replace(' ', '-')}.svg"
            found[name] = heat(line.task.title.rpartition(":")[0], values, columns, about)
    return found


def goal_bars(lines: Sequence[Line]) -> list[Bar]:
    """The goals of all defaults that were measured."""
    return [
        Bar(one.goal.text, one.state, one.goal.limit, *one.interval)
        for one in goals_of(lines)
        if one.worst and one.state in MARKS
    ]


def square(line: Line) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Of a group, the share of pictures that show each thing: by what was erased, and of the base."""
    columns = [task.words[0] for task in line.tasks]
    found: dict[str, dict[str, float]] = {}
    base: dict[str, float] = {}
    for task, cell in zip(line.tasks, line.cells, strict=True):
        for word in columns:
            if one := next((row for row in cell.rows if row.key == task.square + word), None):
                found.setdefault(task.words[0], {})[word] = one.score.value
                base |= {word: one.base.value} if one.base and word == task.words[0] else {}
    return found | {"nothing": base}, columns


TITLE = "What is left of each concept, per cent, against what is lost beside it: down and left is better."
WIDE, HIGH, ACROSS = 290, 250, 2
"""Pixels of a panel, and panels of a row."""
GUARDED = "#8a8a92"


def trade_off(lines: Sequence[Line]) -> str:
    """A panel for each task, its axes cut to what was measured; a dot with 95 % intervals for each method."""
    known = list(dict.fromkeys(line.by for line in lines if line.by not in guards.names()))
    colours = dict(zip(known, COLOURS, strict=False))
    tasks = list({line.task.name: line.task for line in lines if len(line.task.by) > 1}.values())
    panels = {task.name: _points([line for line in lines if line.task.name == task.name]) for task in tasks}
    told = [
        f"{name}, {by}: {x[0]:.1f} % left, {y[0]:.1f} lost"
        for name, points in panels.items()
        for by, (x, y) in points.items()
    ]
    across = min(ACROSS, max(1, len(tasks)))
    rows = max(1, -(-len(tasks) // across))

    def draw(figure: Figure) -> None:
        used = {}
        places = figure.subplots(rows, across, squeeze=False).flat
        for axes, task in zip(places, tasks, strict=False):
            lost = task.goals[_beside(task)].text.replace("no neighbour loses more", "worst neighbour loses")
            axes.set(title=task.name, xlabel="left, per cent")
            axes.set_ylabel(lost.rpartition(", ")[0].replace(" (significant only)", ""), fontsize=10)
            for by, (x, y) in panels[task.name].items():
                colour = colours.get(by, GUARDED)
                used["guards" if by in guards.names() else by] = colour
                point(axes, x, y, f"{by}: {x[0]:.1f} % left, {y[0]:.1f} lost", colour=colour)
            most = max((x[2] for x, _ in panels[task.name].values()), default=1.0)
            ends = [end for _, y in panels[task.name].values() for end in y[1:]]
            axes.set(xlim=(0, beyond(most) or 1.0), ylim=(beyond(min([*ends, 0.0])), beyond(max([*ends, 1.0]))))
        for axes in list(figure.axes)[len(tasks) :]:
            axes.set_axis_off()
        legend(figure, used, "lines: 95 %")

    return svg(WIDE * across + 150, HIGH * rows, f"{TITLE} {'; '.join(told)}", draw, alone=True)


def _beside(task: Task) -> str:
    """What is lost beside the concept: of neighbours where the task has them, else of all others."""
    return NEIGHBOUR if NEIGHBOUR in task.goals else REST


def _points(lines: Sequence[Line]) -> dict[str, tuple[Interval, Interval]]:
    """By method, what is left and what is lost; methods of which both were measured."""
    pairs = {line.by: [line.result(name) for name in (GONE, _beside(line.task))] for line in lines}
    return {
        by: (gone.interval, lost.interval)
        for by, (gone, lost) in pairs.items()
        if gone and lost and gone.worst and lost.worst
    }
