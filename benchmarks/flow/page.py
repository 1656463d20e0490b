"""docs/evidence-flow.md and its plot, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.drawing import COLOURS, Interval, Panel, beyond, drawing, legend, words
from benchmarks.evidence.goals import UNMEASURED, Result, decided, reached, table
from benchmarks.evidence.page import lined
from benchmarks.flow.suites import REMOVED, WORDING
from benchmarks.flow.tasks import COLUMNS, GONE, METHODS, NEIGHBOUR, REST, UNSEEN, Task
from unsee.evaluate.context import BASE
from unsee.evaluate.records import Evaluation

SLOWER = 2.0
"""Times the seconds on the first miniature that a method may take, at most."""


@dataclass(frozen=True)
class Cell:
    """A method on a task.

    found    the base model and this edit beside it; None if the method refuses the task
    seconds  of one core until the edit exists, and until that of the first miniature does; None if it refuses there
    refused  why there is none
    """

    task: Task
    method: str
    found: Evaluation | None
    seconds: tuple[float, float | None] = (0.0, None)
    refused: str = ""

    def result(self, column: str) -> Result | None:
        """What was found for a goal of the task; None if it has none in this column."""
        if self.found is None or column not in self.task.goals:
            return None
        goal = self.task.goals[column]
        return decided(goal, [one for one in self.found.measured if one.variant == self.method])

    @property
    def ratio(self) -> float | None:
        return self.seconds[0] / self.seconds[1] if self.seconds[1] else None


HEAD = """# What erasing reaches on {model}

Made by `{command}`. Model: `{model}`, {steps} sampler steps, guidance scale {guidance:g}. The first picture of a row
has the seed {seed}, the next ones count up. All rows, with n: [{stem}.csv]({stem}.csv). Pictures for a row of what is
erased: {full} for the method that `unsee erase` takes for a task (its first row), {beside} for the others. Rows have
more or fewer where the CSV says so.

{decided}

- **Cell**: the number that a goal is about, the worst if there are several, with its 95 % interval. Shares have
  Wilson's interval. What is lost is measured picture by picture on equal prompts and seeds (Agresti and Min).
- **met**, **missed**: the whole interval is on one side of the goal's limit. **inconclusive**: the interval contains
  the limit. **void**: the base model draws the thing so rarely that nothing could be removed or lost, or the fall is
  not significant.
- **{gone}** is the per cent of pictures that still show it; of the implicit concept, per cent of the base's share.
- **Neighbours** are {alike} and the five objects whose texts are nearest, together; of a style, its subjects.
- **Unseen wording**: descriptions that no training caption contains and no method is told
  (`recipes/flow/held_out.yaml`).
- **Seconds** of one core until the edit exists. **Ratio**: to those on `{reference}` in the same run; met up to 2.
"""


def page(cells: Sequence[Cell], said: Mapping[str, object], stem: str) -> str:
    """The page. said: what HEAD names, but for what was decided."""
    defaults = [cell for cell in cells if cell.method == cell.task.default and cell.found]
    goals = [
        replace(result, goal=replace(result.goal, text=f"{cell.task.name}: {result.goal.text}"))
        for cell in defaults
        for column in COLUMNS
        if (result := cell.result(column))
    ]
    first = reached(goals) or "Nothing is measured yet."
    parts = [HEAD.format(**said, stem=stem, decided=first, gone=GONE.capitalize()), summary(cells)]
    drawn = f"![Trade-off: what is left of each concept against what its neighbours lose, by method]({stem}.svg)"
    parts += [drawn] if any(cell.found for cell in cells) else []
    for task in dict.fromkeys(cell.task.name for cell in cells):
        parts.append(section([cell for cell in cells if cell.task.name == task]))
    return "\n\n".join(parts) + "\n"


def summary(cells: Sequence[Cell]) -> str:
    """The first table: tasks by methods."""
    rows: list[list[str]] = [["task", "method", *COLUMNS, "seconds", "ratio"]]
    for cell in cells:
        if cell.found is None:
            rows.append([cell.task.name, cell.method, f"refused: {cell.refused}", *[""] * (len(COLUMNS) + 1)])
            continue
        slow = cell.ratio
        times = "" if slow is None else said_state(f"{slow:.1f}", "met" if slow <= SLOWER else "missed")
        results = [cell.result(column) for column in COLUMNS]
        rows.append([cell.task.name, cell.method, *map(shown, results), f"{cell.seconds[0]:.1f}", times])
    return lined(rows)


def said_state(text: str, state: str) -> str:
    return f"{text} **{state}**" if state == "missed" else f"{text} {state}"


def shown(result: Result | None) -> str:
    """A number with its interval and whether the goal is met."""
    if result is None:
        return ""
    if result.worst is None:
        return UNMEASURED
    value, low, high = numbers(result)
    return said_state(f"{value:.1f} ({low:.1f} to {high:.1f})", result.state)


def numbers(result: Result) -> Interval:
    assert result.worst
    value = result.goal.quantity.value(result.worst) + 0.0
    low, high = result.goal.quantity.bounds(result.worst) or (value, value)
    return value, low + 0.0, high + 0.0


def section(cells: Sequence[Cell]) -> str:
    """A task: its goals by the default method, how often the base draws what is erased, and its unseen wording."""
    task = cells[0].task
    lead = next((cell for cell in cells if cell.method == task.default), None)
    parts = [f"## {task.title}", f"Concepts: {', '.join(task.words)}."]
    parts[-1] += f" Told to keep: {', '.join(task.keep)}." if task.keep else ""
    if lead and lead.found:
        parts.append(f"The goals, by `{task.default}`:")
        parts.append(table([result for column in COLUMNS if (result := lead.result(column))]))
    if UNSEEN in task.goals:
        parts.append(descriptions([cell for cell in cells if cell.found]))
    return "\n\n".join(part for part in parts if part)


def descriptions(cells: Sequence[Cell]) -> str:
    """How often each unseen description of what is erased still leads to it: pictures that show it, of n."""
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    most = max((cell.found.n for cell in cells if cell.found), default=0)
    lead = next((cell for cell in cells if cell.found and cell.found.n == most), None)
    for cell in cells:
        assert cell.found
        for one in cell.found.answers:
            if one.suite == WORDING and one.key.startswith(REMOVED):
                if one.variant == BASE and cell is not lead:
                    continue  # the same pictures, or fewer of them
                hits, n = counts.setdefault(one.prompt, {}).get(one.variant, (0, 0))
                counts[one.prompt][one.variant] = (hits + (one.found == one.wanted), n + 1)
    names = [BASE, *(cell.method for cell in cells)]
    if not counts:
        return ""
    rows = [["unseen description", *names]]
    for prompt, by in counts.items():
        rows.append([prompt, *("{} of {}".format(*by[name]) if name in by else "" for name in names)])
    return lined(rows)


TITLE = "What is left of each concept, per cent, against what is lost beside it: down and left is better."
WIDE, HIGH, GAP, EDGE = 190, 150, 84, 64


def plot(cells: Sequence[Cell]) -> str:
    """A panel for each task, its axes cut to what was measured; a dot with 95 % intervals for each method."""
    names = dict(zip(METHODS, COLOURS, strict=False))
    parts, told = [], []
    tasks = list({cell.task.name: cell.task for cell in cells if cell.found}.values())
    for k, task in enumerate(tasks):
        column = NEIGHBOUR if NEIGHBOUR in task.goals else REST
        points = {}
        for cell in (one for one in cells if one.task.name == task.name):
            pair = [cell.result(name) for name in (GONE, column)]
            if all(result and result.worst for result in pair):
                points[cell.method] = [numbers(result) for result in pair if result]
        most = max((x[2] for x, _ in points.values()), default=1.0)
        ends = [end for _, y in points.values() for end in y[1:]]
        left, top = EDGE + (WIDE + GAP) * (k % 3), 40 + (HIGH + GAP) * (k // 3)
        spanned = beyond(min([*ends, 0.0])), beyond(max([*ends, 1.0]))
        panel = Panel(left, top, WIDE, HIGH, (0.0, beyond(most) or 1.0), spanned)
        lost = task.goals[column].text.replace("no neighbour loses more", "worst neighbour loses")
        parts += panel.axes(task.name, "left, per cent", lost.rpartition(", ")[0].replace(" (significant only)", ""))
        for method, (x, y) in points.items():
            title = f"{method}: {x[0]:.1f} % left, {y[0]:.1f} lost"
            parts.append(panel.point(names.get(method, "currentColor"), x, y, title))
            told.append(f"{task.name}, {title}")
    used = {name: colour for name, colour in names.items() if any(cell.method == name for cell in cells)}
    rows = -(-len(tasks) // 3)
    right = EDGE + (WIDE + GAP) * min(3, len(tasks)) - 40
    parts += [*legend(right, 52, used), words(right - 4, 52 + 18 * len(used) + 6, "lines: 95 %")]
    height = 40 + (HIGH + GAP) * rows
    return drawing(right + 110, max(height, 90 + 18 * len(used)), f"{TITLE} {'; '.join(told)}", parts)
