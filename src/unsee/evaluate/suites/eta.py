"""Sec. 5.5 of Gandikota et al. (2023): how far to steer away. Edits that differ in eta, erased against kept.

There, eta 1, 3 and 10 erase 83, 88 and 92 % of what is to go and cost other objects 7, 14 and 34 points.
"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.suites import (
    BASE,
    Answer,
    Asked,
    Column,
    Look,
    Measured,
    NotMeasured,
    Suite,
    World,
    article,
    count,
    erased,
    pooled,
)

NAME = "eta"
CLASSES = 10
PART = 4
KEPT = "kept: {}"


def ask(world: World) -> list[Question]:
    """A row for what is erased, asked for as its kind of thing is met; and ten objects that are to stay."""
    known = world.labels("objects")
    gone = list(dict.fromkeys(map(world.target, world.concepts)))
    some = spread([name for name in known if name not in gone], world.n)
    ways = {
        "objects": lambda name: [(f"an image of {article(name)}", name)],
        "styles": lambda name: [(world.styled(thing, name), name) for thing in some],
    }
    asked = []
    for name in gone:
        kind = next((kind for kind in world.judges if name in world.judges[kind].labels), None)
        if kind is not None:
            # What is no object and no style appears unasked.
            pairs = ways[kind](name) if kind in ways else [(article(thing), name) for thing in some]
            asked.append(world.question(name, kind, pairs))
    if not asked:
        raise NotMeasured("no judge has a word for what is erased")
    ten = [name for name in world.words.get("imagenette", {}).values() if name in known and name not in gone]
    for name in ten or spread(some, CLASSES):
        asked.append(world.question(KEPT.format(name), "objects", [(f"an image of {article(name)}", name)], PART))
    return asked


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    """For edits that were made with an eta; others have no row here."""
    if column.kind != BASE and "eta" not in column.settings:
        return
    said = "" if column.kind == BASE else f"eta {column.settings['eta']:g}"
    note = "" if said in column.name else f"{column.name} has {said}"
    kept = [question for question in asked if question.name.startswith(KEPT.format(""))]
    gone = [question for question in asked if question not in kept and set(question.labels) <= erased(world, column)]
    yield from pooled(NAME, "erased", world, gone, column, look, gone=True, note=note)
    yield from pooled(NAME, "kept", world, kept, column, look, note=note)
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(
    NAME, "Edits that steer away by different eta: what is left of the erased, and of ten others.", ask, score
)
