"""Suites by name. A suite is data and two functions: what to draw, and what the pictures say.

    ask(context)              -> questions; knows the model's words and the concepts, not which variant erases them
    score(asked, comparison)  -> numbers for one variant: the base model, an edit, or a guard

A suite is a file of its own and one row under `unsee.suites` in a package's entry points. It raises NotMeasured, with
the reason, if it lacks something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

from unsee.errors import unknown
from unsee.evaluate.context import EvalContext
from unsee.evaluate.measures import Comparison
from unsee.evaluate.observations import Figure
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured

Asked = Sequence[Question]


@dataclass(frozen=True)
class Suite:
    """One of the paper's tables or figures, or one of ours.

    about  what it measures and how, in a sentence for the page
    """

    name: str
    about: str
    ask: Callable[[EvalContext], list[Question]]
    score: Callable[[Asked, Comparison], Iterable[Measured | Answer | Figure]]


def names() -> list[str]:
    """The suites that are installed."""
    return sorted(entry.name for entry in entry_points(group="unsee.suites"))


def find(name: str) -> Suite:
    """A suite by name. Raises InputError for an unknown one."""
    for entry in entry_points(group="unsee.suites"):
        if entry.name == name:
            suite: Suite = entry.load()
            return suite
    raise unknown("suite", name, names())
