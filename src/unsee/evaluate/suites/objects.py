"""Table 2 of Gandikota et al. (2023): each class drawn as "an image of a ...", erased ones and all others."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.context import EvalContext
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

CLASSES = 10
PART = 4  # of a row's pictures, for each class that stays


def ask(context: EvalContext) -> list[Question]:
    """A row for each class: those that stand for Imagenette's ten, and whatever is erased."""
    known, targets = context.labels("objects"), context.targets("objects")
    ten = [name for name in context.words.get("imagenette", {}).values() if name in known]
    ten = ten or spread([name for name in known if name not in targets], CLASSES - 1)
    classes = list(dict.fromkeys([*targets, *ten]))
    return [
        context.question(
            f"class/{name}", name, "objects", [(f"an image of {article(name)}", name)], 1 if name in targets else PART
        )
        for name in classes
    ]


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    removed = [question for question in asked if c.role(question) == "removed"]
    rest = [question for question in asked if question not in removed]
    yield from c.pooled("removed", "erased", removed, "removed")
    yield from c.pooled("kept", "all others", rest)
    yield from c.count(asked)


SUITE = Suite("objects", 'Each class as "an image of a ...": the share that a classifier recognises.', ask, score)
