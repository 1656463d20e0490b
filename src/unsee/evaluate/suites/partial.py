"""Fig. 11 of Gandikota et al. (2023): is the thing gone, or only the part of it that the classifier goes by?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from unsee.evaluate.questions import Question
from unsee.evaluate.suites import (
    BASE,
    Answer,
    Asked,
    Column,
    Look,
    Measured,
    Suite,
    World,
    article,
    average,
    erased,
    hits,
    share,
)

NAME = "partial"
GUESSES = 5


def ask(world: World) -> list[Question]:
    return [
        world.question(name, "objects", [(article(name), name), (f"a picture of {article(name)}", name)])
        for name in world.targets("objects")
    ]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    """Three readings, each stricter on the edit: first guess, among the first five, and the mean probability.

    Its parts that the judge knows too, such as a church's cross, are counted beside it: has only that part gone?
    """
    judge = world.judge("objects")
    for question in asked:
        name = question.name
        gone = name in erased(world, column)
        base, now = (judge.likely(look.pictures(c, question.shots)) for c in (BASE, column.name))
        k = judge.labels.index(name)
        seen = look.labels(column.name, "objects", question.shots)
        note = "seen as " + ", ".join(f"{label} {times}" for label, times in Counter(seen).most_common(3))
        first = [hits(look, c, question) for c in (BASE, column.name)]
        yield share(NAME, f"{name}, first guess", column, *first, gone=gone, judge=judge.source, note=note)
        for shot, label in zip(question.shots, seen, strict=True):
            yield Answer(NAME, question.name, column.name, shot.prompt, shot.seed, name, label)
        top = min(GUESSES, len(judge.labels))
        parts = world.words.get("objects", {}).get(name, {}).get("parts", ())
        for label in (name, *(part for part in parts if part in judge.labels)):
            of = judge.labels.index(label)
            five: list[list[bool]] = [(p.topk(top).indices == of).any(1).tolist() for p in (base, now)]
            what = name if label == name else f"{name}: its {label}"
            yield share(
                NAME, f"{what}, among the first {top}", column, *five, gone=gone and of == k, judge=judge.source
            )
        sure: list[list[float]] = [p[:, k].to(torch.float64).tolist() for p in (base, now)]
        yield average(NAME, f"{name}, probability", column, "probability", *sure, gone=gone, judge=judge.source)


SUITE = Suite(
    NAME, "Whether something of the erased thing is left: the classifier's further guesses count too.", ask, score
)
