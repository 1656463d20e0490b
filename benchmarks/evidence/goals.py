"""What is aimed at, whether it is reached, and whether the numbers decide that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks.evidence.quantities import Quantity
from unsee.evaluate.records import Measured
from unsee.report.tables import number

State = Literal["met", "missed", "inconclusive", "void", "not measured"]
UNMEASURED: State = "not measured"


@dataclass(frozen=True)
class Goal:
    """What is aimed at, as a test of one method's numbers, with the paper's own figure for Stable Diffusion 1.4.

    pick   the rows of `suite` that it is about
    limit  of the worst of them, at most
    """

    text: str
    paper: str
    suite: str
    pick: Callable[[Measured], bool]
    quantity: Quantity
    limit: float


@dataclass(frozen=True)
class Result:
    """A goal beside what was measured for it.

    worst         the number that decides; None if nothing was measured
    picked, void  how many numbers the goal is about, and how many of them are void
    """

    goal: Goal
    state: State
    worst: Measured | None = None
    picked: int = 0
    void: int = 0

    @property
    def interval(self) -> tuple[float, float, float]:
        """The number that decides and the ends of its 95 % interval, in the unit of the goal."""
        assert self.worst
        value = self.goal.quantity.value(self.worst) + 0.0
        low, high = self.goal.quantity.bounds(self.worst) or (value, value)
        return value, low + 0.0, high + 0.0


def void(goal: Goal, one: Measured) -> bool:
    """Whether a number decides nothing: the base model hardly draws the thing, so it could not be removed or lost.

    What should go must fall significantly. The base rate of what should stay must be above the limit of its loss.
    """
    if one.unit != "share" or one.base is None or one.difference is None:
        return False
    if one.expect_removed:
        if not one.base.value:
            return True
        return goal.quantity.value(one) <= goal.limit and not one.difference.differs
    return 100 * one.base.value <= goal.limit


def state(goal: Goal, one: Measured) -> State:
    """Met or missed if the whole interval is on one side of the limit, else inconclusive."""
    value = goal.quantity.value(one)
    low, high = goal.quantity.bounds(one) or (value, value)
    if high <= goal.limit:
        return "met"
    return "missed" if low > goal.limit else "inconclusive"


def weight(goal: Goal, one: Measured) -> tuple[bool, float]:
    """How bad a number is: a miss is worse than a larger number that is inconclusive."""
    return state(goal, one) == "missed", goal.quantity.value(one)


def decided(goal: Goal, measured: Sequence[Measured]) -> Result:
    """A goal beside those numbers that it is about: the worst that is not void decides."""
    picked = [one for one in measured if one.suite == goal.suite and goal.pick(one)]
    if not picked:
        return Result(goal, UNMEASURED)
    telling = [one for one in picked if not void(goal, one)]
    worst = max(telling or picked, key=partial(weight, goal))
    return Result(goal, state(goal, worst) if telling else "void", worst, len(picked), len(picked) - len(telling))


def cells(result: Result) -> tuple[str, ...]:
    """A result as texts, under HEAD."""
    goal, worst = result.goal, result.worst
    first = (goal.text, goal.paper, f"<= {goal.limit:g}")
    if worst is None:
        return *first, UNMEASURED, "", "", ""
    where = f"{worst.row}; base {number(worst.base.value, worst.unit)}" if worst.base else worst.row
    where += f"; {result.void} of {result.picked} void" if 0 < result.void < result.picked else ""
    value, low, high = result.interval
    between = f"{low:.1f} to {high:.1f}" if goal.quantity.bounds(worst) else ""
    return *first, f"{value:.1f} ({where})", between, str(worst.score.n), said(result.state)


def said(state: State, unsure: str = "inconclusive") -> str:
    """A state in its colour where the page has colours, in bold where it is missed. unsure: what inconclusive is."""
    word = {"missed": "**missed**", "inconclusive": unsure}.get(state, state)
    return f'<span class="{state}">{word}</span>'


PAPER = "the paper's figure"
HEAD = ("goal", PAPER, "limit", "measured, the worst", "95 %", "n", "result")


def table(found: Sequence[Result]) -> str:
    """Results as a table of Markdown, without the paper's figures where it has none; nothing if there are none."""
    shown = [name != PAPER or any(one.goal.paper != "-" for one in found) for name in HEAD]
    rows = [[cell for cell, there in zip(row, shown, strict=True) if there] for row in (HEAD, *map(cells, found))]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) if found else ""


def reached(found: Sequence[Result]) -> str:
    """How many goals are met, and which are not; first of all, how many cannot be decided."""
    by: dict[State, list[str]] = {}
    for one in found:
        by.setdefault(one.state, []).append(one.goal.text)
    if not (measured := sum(len(names) for state, names in by.items() if state != UNMEASURED)):
        return ""
    open_ = len(by.get("inconclusive", ()))
    unsure = f"**This page cannot decide {open_} of {measured} goals: the limit is in the interval.**\n\n"
    text = f"{unsure if open_ else ''}Goals measured: {measured}. Met: {len(by.get('met', ()))}."
    kinds: tuple[tuple[str, State], ...] = (("Missed", "missed"), ("Inconclusive", "inconclusive"), ("Void", "void"))
    for title, kind in kinds:
        names = by.get(kind, [])
        named = names if kind != "inconclusive" else []  # of which there may be many: tables and the plot have them
        text += f" {title}: {len(names)}" + (f" ({'; '.join(named)})." if named else ".")
    return text
