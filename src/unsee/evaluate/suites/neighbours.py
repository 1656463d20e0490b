"""Every object, with rows for those that an edit hurts most: the nearest texts, and what it was made to keep."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.concepts import Concept
from unsee.evaluate.context import EvalContext
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import NEIGHBOURS, Question, nearest
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

PART_NEAR, PART = 5, 32
NEAR, KEPT, OBJECT = "near/", "to keep/", "object/"
"""How the keys of rows begin: one of the nearest texts, one that was named to be kept, any other object."""


def ask(context: EvalContext) -> list[Question]:
    """A row for every object: n pictures of each that is to be kept, n of the nearest together, a few of the others.

    Those few are among the pictures that the suite "fidelity" looks at.
    """
    targets = context.targets("objects")
    rest = [name for name in context.labels("objects") if name not in targets]
    near = {name for target in targets for name in nearest(context.pipe, [target], rest)[:NEIGHBOURS]}
    kept = {context.target(Concept(word)) for concept in context.concepts for word in concept.keep}

    def row(name: str) -> Question:
        pairs = [(article(name), name)]
        if name in kept:
            return context.question(f"{KEPT}{name}", f"{name} (to keep)", "objects", pairs, 1, "neighbour")
        if name in near:
            return context.question(f"{NEAR}{name}", f"{name} (near)", "objects", pairs, PART_NEAR, "neighbour")
        return context.question(f"{OBJECT}{name}", name, "objects", pairs, PART)

    return [*map(row, targets), *map(row, rest)]


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    rest = [question for question in asked if c.role(question) != "removed"]
    near = [question for question in rest if question.key.startswith(NEAR)]
    other = [question for question in rest if question.key.startswith(OBJECT)]
    names = ", ".join(question.labels[0] for question in near)
    yield from c.pooled("near", "nearest texts", near, "neighbour", names)
    yield from c.pooled("kept", "all other objects", other)
    yield from c.count(asked)


SUITE = Suite(
    "neighbours",
    "Every object that the detector knows. Near: among the five objects whose texts are most similar to an erased one. "
    "To keep: named by the user.",
    ask,
    score,
)
