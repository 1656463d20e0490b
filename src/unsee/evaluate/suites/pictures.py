"""What needs no classifier: how much the pictures of the erased thing change, and those of other things."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Column, Look, Measured, NotMeasured, Suite, World, article, erased, fits, moved
from unsee.evaluate.words import IMAGENETTE

NAME = "pictures"
OTHERS = 10
REST = "other things"


def ask(world: World) -> list[Question]:
    """A row for each erased thing, and one for ten others."""
    if not world.concepts:
        raise NotMeasured("no concept is named: --concept WORD")
    gone = list(dict.fromkeys(concept.from_ or concept.erase for concept in world.concepts))
    rest = [name for name in world.words.get("objects", IMAGENETTE) if name not in gone]
    rows = {**{name: [article(name)] for name in gone}, REST: [article(name) for name in spread(rest, OTHERS)]}
    return [
        Question(name, False, tuple(Shot(prompts[k % len(prompts)], world.seed + k) for k in range(world.n)))
        for name, prompts in rows.items()
    ]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured]:
    for question in asked:
        gone = question.name in erased(world, column)
        texts = [shot.prompt for shot in question.shots]
        yield from fits(NAME, f"{question.name}: fit to the prompt", column, look, question.shots, texts, gone=gone)
        yield from moved(NAME, question.name, column, look, question.shots)


SUITE = Suite(
    NAME, "Without a classifier: how far pictures move from the base's, and how well they fit the prompt.", ask, score
)
