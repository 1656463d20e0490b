"""Figs. 4 and 5 of Gandikota et al. (2023) as counts: every style, and whether the subject stays."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import STYLED, Question, spread
from unsee.evaluate.suites import (
    Answer,
    Asked,
    Column,
    Look,
    Measured,
    Suite,
    World,
    article,
    count,
    erased,
    pooled,
)

NAME = "styles"
SUBJECT = "subject in {}"


def ask(world: World) -> list[Question]:
    """For each style whether it shows, and whether its subject does; each erased object in every style."""
    styles, objects = world.labels("styles"), world.labels("objects")
    gone = {world.target(concept) for concept in world.concepts}
    subjects = spread([name for name in objects if name not in gone], world.n)
    asked = []
    for style in styles:
        drawn = [(STYLED.format(article(name), style), name) for name in subjects]
        asked.append(world.question(style, "styles", [(prompt, style) for prompt, _ in drawn]))
        asked.append(world.question(SUBJECT.format(style), "objects", drawn))
    for name in [name for name in objects if name in gone]:
        pairs = [(STYLED.format(article(name), style), name) for style in styles]
        asked.append(world.question(f"{name}, in every style", "objects", pairs))
    return asked


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    gone = erased(world, column)
    styles = [question for question in asked if question.judge == "styles"]
    subjects = [question for question in asked if question.name.startswith(SUBJECT.format(""))]
    lost = [question for question in styles if question.name in gone]
    names = {SUBJECT.format(name) for name in gone}
    yield from pooled(NAME, "erased styles", world, lost, column, look, gone=True)
    yield from pooled(NAME, "other styles", world, [q for q in styles if q not in lost], column, look)
    yield from pooled(NAME, "subject of erased styles", world, [q for q in subjects if q.name in names], column, look)
    yield from pooled(
        NAME, "subject of other styles", world, [q for q in subjects if q.name not in names], column, look
    )
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(NAME, "Things drawn in every style: whether the style shows, and whether the thing does.", ask, score)
