"""Whether the default reaches its goals, and whether the numbers can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.evidence.experiments import DEFAULT, Experiment, Goal
from unsee.evaluate.records import Evaluation, Measured
from unsee.report.tables import number

State = Literal["met", "met, within chance", "missed", "missed, within chance", "void", "not measured"]
UNMEASURED: State = "not measured"


@dataclass(frozen=True)
class Result:
    """A goal beside what was measured for it.

    worst         the number that decides; None if nothing was measured
    picked, void  how many numbers the goal is about, and how many of them cannot tell
    """

    goal: Goal
    state: State
    worst: Measured | None = None
    picked: int = 0
    void: int = 0


def void(goal: Goal, one: Measured) -> bool:
    """Whether a number cannot tell of its goal: the base hardly draws the thing, so nothing has gone or could be lost.

    What should go must have fallen by more than chance; what should stay must be there more often than it may be lost.
    """
    if one.unit != "share" or one.base is None or one.difference is None:
        return False
    if one.expect_removed:
        if not one.base.value:
            return True
        return goal.quantity.value(one) <= goal.limit and not one.difference.differs
    return 100 * one.base.value <= goal.limit


def state(goal: Goal, one: Measured) -> State:
    """Met or missed by the number; within chance if its interval reaches across the limit."""
    value = goal.quantity.value(one)
    low, high = goal.quantity.bounds(one) or (value, value)
    if value <= goal.limit:
        return "met" if high <= goal.limit else "met, within chance"
    return "missed" if low > goal.limit else "missed, within chance"


def weight(goal: Goal, one: Measured) -> tuple[bool, float]:
    """How bad a number is: a miss beyond chance is worse than a larger one that chance explains."""
    return state(goal, one) == "missed", goal.quantity.value(one)


def results(experiment: Experiment, found: Evaluation) -> Iterator[Result]:
    """Each goal: for the default, or for every edit of the default, the worst number that tells."""
    edits = {variant.name for variant in found.variants if variant.kind == "edit"}
    for goal in experiment.goals:
        names = {experiment.told if goal.told else DEFAULT} if experiment.compare else edits
        picked = [one for one in found.measured if one.suite == goal.suite and one.variant in names and goal.pick(one)]
        telling = [one for one in picked if not void(goal, one)]
        if picked:
            worst = max(telling or picked, key=partial(weight, goal))
            reached = state(goal, worst) if telling else "void"
            yield Result(goal, reached, worst, len(picked), len(picked) - len(telling))
        else:
            yield Result(goal, UNMEASURED)


def cells(result: Result) -> tuple[str, ...]:
    """A result as texts, under HEAD."""
    goal, worst = result.goal, result.worst
    first = (goal.text, goal.paper, f"<= {goal.limit:g}")
    if worst is None:
        return *first, UNMEASURED, "", "", ""
    where = f"{worst.row}, {worst.variant}" if result.picked > 1 else worst.row
    where += f"; base {number(worst.base.value, worst.unit)}" if worst.base else ""
    where += f"; {result.void} of {result.picked} void" if 0 < result.void < result.picked else ""
    between = " to ".join(f"{bound + 0.0:.1f}" for bound in goal.quantity.bounds(worst) or ())
    said = f"**{result.state}**" if result.state == "missed" else result.state
    return *first, f"{goal.quantity.value(worst) + 0.0:.1f} ({where})", between, str(worst.score.n), said


HEAD = "| goal | the paper's figure | limit | measured, the worst | 95 % | n | goal |\n|---|---|---|---|---|---|---|"


def table(found: Sequence[Result]) -> str:
    """Results as a table of Markdown; nothing if there are none."""
    return "\n".join([HEAD, *("| " + " | ".join(cells(one)) + " |" for one in found)]) if found else ""


def reached(found: Sequence[Result]) -> str:
    """How many goals are met, and which are not."""
    by: dict[State, list[str]] = {}
    for one in found:
        by.setdefault(one.state, []).append(one.goal.text)
    if not (measured := sum(len(names) for state, names in by.items() if state != UNMEASURED)):
        return ""
    met, within = len(by.get("met", ())), len(by.get("met, within chance", ()))
    text = f"Goals measured: {measured}. Met: {met}. Met within chance: {within}."
    kinds: tuple[tuple[str, State], ...] = (
        ("Missed", "missed"), ("Missed within chance", "missed, within chance"), ("Void", "void")
    )  # fmt: skip
    for title, kind in kinds:
        names = by.get(kind, [])
        text += f" {title}: {len(names)}" + (f" ({'; '.join(names)})." if names else ".")
    return text
