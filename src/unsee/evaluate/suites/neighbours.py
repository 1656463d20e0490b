"""What an edit hurts most: every object, apart from them the nearest texts and what an edit was told to keep."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.concepts import Concept
from unsee.evaluate.questions import NEIGHBOURS, Question, nearest
from unsee.evaluate.suites import Answer, Asked, Column, Look, Measured, Suite, World, article, count, erased, pooled

NAME = "neighbours"
PART_NEAR, PART = 5, 32
NEAR, KEPT = " (near)", " (to keep)"


def ask(world: World) -> list[Question]:
    """A row for every object: n pictures of each that is to be kept, n of the nearest together, a few of the others.

    Those few are among the pictures that the suite "fidelity" looks at.
    """
    targets = world.targets("objects")
    rest = [name for name in world.labels("objects") if name not in targets]
    near = {name for target in targets for name in nearest(world.pipe, [target], rest)[:NEIGHBOURS]}
    kept = {world.target(Concept(word)) for concept in world.concepts for word in concept.keep}

    def row(name: str) -> Question:
        mark, part = (KEPT, 1) if name in kept else (NEAR, PART_NEAR) if name in near else ("", PART)
        return world.question(name + mark, "objects", [(article(name), name)], part)

    return [*map(row, targets), *map(row, rest)]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    rest = [question for question in asked if question.labels[0] not in erased(world, column)]
    near = [question for question in rest if question.name.endswith(NEAR)]
    other = [question for question in rest if not question.name.endswith((NEAR, KEPT))]
    names = ", ".join(question.labels[0] for question in near)
    yield from pooled(NAME, "nearest texts", world, near, column, look, note=names)
    yield from pooled(NAME, "all other objects", world, other, column, look)
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(
    NAME,
    "Every object that the judge knows; near: its text is among the five most like an erased one; to keep: named so.",
    ask,
    score,
)
