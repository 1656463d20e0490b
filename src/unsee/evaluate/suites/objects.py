"""Table 2 of Gandikota et al. (2023): each class drawn as "an image of a ...", erased ones and all others."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.suites import Answer, Asked, Column, Look, Measured, Suite, World, article, count, erased, pooled

NAME = "objects"
CLASSES = 10
PART = 4  # of a row's pictures, for each class that stays


def ask(world: World) -> list[Question]:
    """A row for each class: those that stand for Imagenette's ten, and whatever is erased."""
    known, targets = world.labels("objects"), world.targets("objects")
    ten = [name for name in world.words.get("imagenette", {}).values() if name in known]
    ten = ten or spread([name for name in known if name not in targets], CLASSES - 1)
    classes = list(dict.fromkeys([*targets, *ten]))
    return [
        world.question(name, "objects", [(f"an image of {article(name)}", name)], 1 if name in targets else PART)
        for name in classes
    ]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    gone = [question for question in asked if question.name in erased(world, column)]
    rest = [question for question in asked if question not in gone]
    yield from pooled(NAME, "erased", world, gone, column, look, gone=True)
    yield from pooled(NAME, "all others", world, rest, column, look)
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(NAME, 'Each class as "an image of a ...": the share that a classifier recognises.', ask, score)
