"""Fig. 11 of Gandikota et al. (2023): is the thing gone, or only the part of it that the classifier goes by?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from unsee.evaluate.questions import Question
from unsee.evaluate.suites import (
    BASE,
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


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured]:
    """Three readings, each stricter on the edit: first guess, among the first five, and the mean probability."""
    judge = world.judge("objects")
    for question in asked:
        name = question.name
        gone = name in erased(world, column)
        base, now = (judge.likely(look.pictures(c, question.shots)) for c in (BASE, column.name))
        k = judge.labels.index(name)
        seen = Counter(look.labels(column.name, "objects", question.shots)).most_common(3)
        note = "seen as " + ", ".join(f"{label} {times}" for label, times in seen)
        first = [hits(look, c, question) for c in (BASE, column.name)]
        yield share(NAME, f"{name}, first guess", column, *first, gone=gone, judge=judge.source, note=note)
        top = min(GUESSES, len(judge.labels))
        five: list[list[bool]] = [(p.topk(top).indices == k).any(1).tolist() for p in (base, now)]
        yield share(NAME, f"{name}, among the first {top}", column, *five, gone=gone, judge=judge.source)
        sure: list[list[float]] = [p[:, k].to(torch.float64).tolist() for p in (base, now)]
        yield average(NAME, f"{name}, probability", column, "probability", *sure, gone=gone, judge=judge.source)


SUITE = Suite(
    NAME, "Whether something of the erased thing is left: the classifier's further guesses count too.", ask, score
)
