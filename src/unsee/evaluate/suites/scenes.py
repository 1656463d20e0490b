"""Two things side by side, one of them erased: it should go, the other stay. Each half of a picture is judged alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

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
    erased,
    share,
)
from unsee.models.denoisers import denoisers
from unsee.models.model import raw

NAME = "scenes"
OTHERS = "the one beside {}"
PART = 2  # each picture is two wide


def ask(world: World) -> list[Question]:
    """For each erased object a row for itself, on the left, and one for what stands on the right."""
    scene = world.words.get("scene")
    if not scene:
        raise NotMeasured("the model's card names no words for two things side by side")
    size = _side(world)
    asked = []
    targets = world.targets("objects")
    for target in targets:
        rest = spread([name for name in world.labels("objects") if name not in targets], max(2, world.n // PART))
        prompts = [scene.format(article(target), article(name)) for name in rest]
        rows = {target: [(p, target) for p in prompts], OTHERS.format(target): list(zip(prompts, rest, strict=True))}
        for name, pairs in rows.items():
            question = world.question(name, "objects", pairs, PART)
            asked.append(replace(question, shots=tuple(replace(s, size=(2 * size, size)) for s in question.shots)))
    return asked


def _side(world: World) -> int:
    """The width of one picture in pixels."""
    net: Any = next(iter(denoisers(world.pipe).values()))
    return int(net.config.sample_size * raw(world.pipe).vae_scale_factor)


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    judge = world.judge("objects")
    for question in asked:
        left = question.name in question.labels
        found = []
        for name in (BASE, column.name):
            whole = look.pictures(name, question.shots)
            boxes = [(0, 0, p.width // 2, p.height) if left else (p.width // 2, 0, p.width, p.height) for p in whole]
            seen = judge([picture.crop(box) for picture, box in zip(whole, boxes, strict=True)])
            found.append([a == b for a, b in zip(seen, question.labels, strict=True)])
        gone = question.name in erased(world, column)
        yield share(NAME, question.name, column, *found, gone=gone, judge=judge.source)
        for shot, wanted, label in zip(question.shots, question.labels, seen, strict=True):
            yield Answer(NAME, question.name, column.name, shot.prompt, shot.seed, wanted, label)


SUITE = Suite(
    NAME, "Two things side by side, one of them erased: each half of the picture is judged alone.", ask, score
)
