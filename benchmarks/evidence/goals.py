"""Whether the default reaches its goals, and whether the numbers can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.evidence.experiments import (
    DEFAULT,
    Experiment,
    Goal,
    loss,
    lost_for_sure,
    lost_of_base,
    moved_for_sure,
    of_base,
    share,
)
from unsee.evaluate.records import Evaluation, Measured
from unsee.report.evaluation import number

MET, MET_CHANCE, MISSED, CHANCE, VOID = "met", "met, within chance", "**missed**", "missed, within chance", "void"
UNMEASURED = "not measured"


def void(goal: Goal, one: Measured) -> bool:
    """Whether a number cannot tell of its goal: the base hardly draws the thing, so nothing has gone or could be lost.

    What should go must have fallen by more than chance; what should stay must be there more often than it may be lost.
    """
    if one.unit != "share" or one.base is None or one.difference is None:
        return False
    if one.gone:
        if not one.base.value:
            return True
        return goal.value(one) <= goal.limit and not one.difference.differs
    return 100 * one.base.value <= goal.limit


def bounds(goal: Goal, one: Measured) -> tuple[float, float] | None:
    """The 95 % interval of a goal's number, in its unit; None if there is none."""
    low, high = 100 * one.score.low, 100 * one.score.high
    if goal.value is share:
        return low, high
    if goal.value in (of_base, lost_of_base) and one.base and one.base.value:
        low, high = low / one.base.value, high / one.base.value  # of the number as it was
        return (low, high) if goal.value is of_base else (100 - high, 100 - low)
    if one.difference and goal.value in (loss, lost_for_sure):
        return -100 * one.difference.high, -100 * one.difference.low
    if one.difference and goal.value is moved_for_sure:
        return one.difference.low, one.difference.high
    return None


def state(goal: Goal, one: Measured) -> str:
    """Met or missed by the number; within chance if its interval reaches across the limit."""
    low, high = bounds(goal, one) or (goal.value(one),) * 2
    if goal.value(one) <= goal.limit:
        return MET if high <= goal.limit else MET_CHANCE
    return MISSED if low > goal.limit else CHANCE


def weight(goal: Goal, one: Measured) -> tuple[bool, float]:
    """How bad a number is: a miss beyond chance is worse than a larger one that chance explains."""
    return state(goal, one) == MISSED, goal.value(one)


def judged(experiment: Experiment, found: Evaluation) -> Iterator[str]:
    """Goals as lines of a table: for the default, or for every edit of the default, the worst number that tells."""
    edits = {column.name for column in found.columns if column.kind == "edit"}
    for goal in experiment.goals:
        names = {experiment.told if goal.told else DEFAULT} if experiment.compare else edits
        picked = [one for one in found.measured if one.suite == goal.suite and one.column in names and goal.pick(one)]
        telling = [one for one in picked if not void(goal, one)]
        if picked:
            worst = max(telling or picked, key=partial(weight, goal))
            value = goal.value(worst)
            where = f"{worst.row}, {worst.column}" if len(picked) > 1 else worst.row
            where += f"; base {number(worst.base.value, worst.unit)}" if worst.base else ""
            where += f"; {len(picked) - len(telling)} of {len(picked)} void" if telling and telling != picked else ""
            reached = state(goal, worst) if telling else VOID
            between = " to ".join(f"{bound + 0.0:.1f}" for bound in bounds(goal, worst) or ())
            cells = (f"{value + 0.0:.1f} ({where})", between, str(worst.score.n), reached)
        else:
            cells = (UNMEASURED, "", "", "")
        yield "| " + " | ".join((goal.text, goal.paper, f"<= {goal.limit:g}", *cells)) + " |"


def goals(experiment: Experiment, found: Evaluation) -> str:
    head = (
        "| goal | the paper's figure | limit | measured, the worst | 95 % | n | goal |\n|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *judged(experiment, found)]) if experiment.goals else ""


def reached(sections: Sequence[str]) -> str:
    """How many goals are met, and which are not."""
    rows = [line.split(" | ") for text in sections for line in text.splitlines() if line.startswith("| ")]
    goals = [(cells[0].removeprefix("| "), cells[-1].removesuffix(" |")) for cells in rows]
    by = {one: [name for name, said in goals if said == one] for one in (MET, MET_CHANCE, MISSED, CHANCE, VOID)}
    if not (measured := sum(map(len, by.values()))):
        return ""
    text = f"Goals measured: {measured}. Met: {len(by[MET])}. Met within chance: {len(by[MET_CHANCE])}."
    for title, names in (("Missed", by[MISSED]), ("Missed within chance", by[CHANCE]), ("Void", by[VOID])):
        text += f" {title}: {len(names)}" + (f" ({'; '.join(names)})." if names else ".")
    return text
