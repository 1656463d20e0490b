"""What an edit hurts most: every object, the nearest texts apart."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import NEIGHBOURS, Question, nearest
from unsee.evaluate.suites import Answer, Asked, Column, Look, Measured, Suite, World, article, count, erased, pooled

NAME = "neighbours"
PART_NEAR, PART = 5, 32
NEAR = " (near)"


def ask(world: World) -> list[Question]:
    """A row for every object: n pictures of the nearest together, and of each other one a few.

    Those are among the pictures that the suite "fidelity" looks at.
    """
    targets = world.targets("objects")
    rest = [name for name in world.labels("objects") if name not in targets]
    near = {name for target in targets for name in nearest(world.pipe, target, rest)[:NEIGHBOURS]}
    return [
        world.question(
            name + NEAR * (name in near), "objects", [(article(name), name)], PART_NEAR if name in near else PART
        )
        for name in (*targets, *rest)
    ]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    rest = [question for question in asked if question.labels[0] not in erased(world, column)]
    near = [question for question in rest if question.name.endswith(NEAR)]
    other = [question for question in rest if question not in near]
    names = ", ".join(question.labels[0] for question in near)
    yield from pooled(NAME, "nearest texts", world, near, column, look, note=names)
    yield from pooled(NAME, "all other objects", world, other, column, look)
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(
    NAME, "Every object that the judge knows; near: its text is among the five most like an erased one.", ask, score
)
