"""Figs. 4 and 5 of Gandikota et al. (2023) as counts: every style, and whether the subject stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from unsee.evaluate.detectors import Detector
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
    fits,
    moved,
    pooled,
)
from unsee.evaluate.words import IMAGENETTE

NAME = "styles"
SUBJECT = "subject in {}"
UNASKED = "{}, where no style is named"
PART = 8  # of a row's pictures, for each style that stays


def ask(world: World) -> list[Question]:
    """For each style whether it shows, and whether its subject does; each erased object in every style.

    And how often the base model's pictures show an erased style that no prompt names: erasing leads to such pictures.
    Without a judge of styles, those that the model's words name; without one of objects, its subjects are not counted.
    """
    judged = isinstance(world.judges.get("styles"), Detector)
    styles = list(world.labels("styles") if judged else world.words.get("styles", ()))
    if not judged and (not styles or world.clip() is None):
        world.labels("styles")  # says what is missing
    objects = world.labels("objects") if "objects" in world.judges else ()
    gone = {world.target(concept) for concept in world.concepts}
    known = [name for name in objects or world.words.get("objects", IMAGENETTE) if name not in gone | set(styles)]
    subjects = spread(known, world.n)
    if not objects and not gone & set(styles):
        words = ", ".join(concept.erase for concept in world.concepts) or "nothing"
        raise NotMeasured(f"what is erased ({words}) is no style and no object here: --words FILE lists styles")
    asked = []
    for style in styles:
        drawn = [(world.styled(name, style), name) for name in subjects]
        part = 1 if style in gone else PART
        asked.append(world.question(style, "styles", [(prompt, style) for prompt, _ in drawn], part))
        if judged and style in gone:
            plain = world.question(UNASKED.format(style), "styles", [(article(name), style) for name in subjects])
            asked.append(replace(plain, reference=True))
        if objects:
            asked.append(world.question(SUBJECT.format(style), "objects", drawn, part))
    for name in [name for name in objects if name in gone and name not in styles]:
        pairs = [(world.styled(name, style), name) for style in styles]
        asked.append(world.question(f"{name}, in every style", "objects", pairs))
    return asked


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    gone = erased(world, column)
    plain, asked = [[question for question in asked if question.reference is bare] for bare in (True, False)]
    styles = [question for question in asked if question.judge == "styles"]
    subjects = [question for question in asked if question.name.startswith(SUBJECT.format(""))]
    lost = [question for question in styles if question.name in gone]
    kept = [question for question in styles if question not in lost]
    names = {SUBJECT.format(name) for name in gone}
    if "styles" in world.judges:
        yield from pooled(NAME, "erased styles", world, lost, column, look, gone=True)
        yield from pooled(NAME, "other styles", world, kept, column, look)
    yield from pooled(NAME, "subject of erased styles", world, [q for q in subjects if q.name in names], column, look)
    yield from pooled(
        NAME, "subject of other styles", world, [q for q in subjects if q.name not in names], column, look
    )
    for title, some in (("erased styles", lost), ("other styles", kept)):
        shots = [shot for question in some for shot in question.shots]
        texts = [f"in the style of {label}" for question in some for label in question.labels]
        if some:
            yield from fits(NAME, f"{title}: CLIP with the style", column, look, shots, texts, gone=some is lost)
            yield from moved(NAME, title, column, look, shots)
    yield from count(NAME, world, [q for q in asked if q.judge in world.judges], column, look)
    if column.kind == BASE:
        yield from count(NAME, world, plain, column, look)


SUITE = Suite(NAME, "Things drawn in every style: whether the style shows, and whether the thing does.", ask, score)
