"""Figs. 8 and 9 of Gandikota et al. (2023): pictures that the model knows by heart, of which one or more were erased.

What is known by heart is taken from the base model itself: the median of its pictures of a title on other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsee.evaluate.questions import Question
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import BASE, Asked, Column, Look, Measured, NotMeasured, Suite, World, average, share

NAME = "memorised"
OTHER_SEEDS = 500_000
KNOWN = 16
Grey = NDArray[np.float32]


def ask(world: World) -> list[Question]:
    titles = world.words.get("memorised")
    if not titles:
        raise NotMeasured("the model's card names no pictures that it knows by heart")
    asked = []
    for title in titles:
        here = Question(title, False, tuple(Shot(title, world.seed + k) for k in range(world.n)))
        there = tuple(replace(shot, seed=shot.seed + OTHER_SEEDS) for shot in here.shots[:KNOWN])
        asked += [here, replace(here, shots=there, reference=True)]
    return asked


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured]:
    """For each title the distance to its picture, and how many pictures are nearer to it than to any other one."""
    known = np.stack([np.median(_pixels(look, BASE, q.shots), axis=0) for q in asked if q.reference])
    for k, question in enumerate(q for q in asked if not q.reference):
        names = {question.name, *world.words["memorised"][question.name]}
        gone = any(concept.erase in names for concept in column.concepts)
        far = [_distances(_pixels(look, c, question.shots), known) for c in (BASE, column.name)]
        own: list[list[float]] = [d[:, k].tolist() for d in far]
        row = f"{question.name}: distance to it"
        yield average(NAME, row, column, "grey levels", *own, note="should grow" if gone else "")
        base, now = ((d.argmin(1) == k).tolist() for d in far)
        yield share(NAME, f"{question.name}: nearest to it", column, base, now, gone=gone)


def _pixels(look: Look, column: str, shots: Sequence[Shot]) -> Grey:
    """(N, height, width, 3)"""
    return np.stack([np.asarray(picture, np.float32) for picture in look.pictures(column, shots)])


def _distances(pictures: Grey, known: Grey) -> NDArray[Any]:
    """Root mean square differences in grey levels, (N, titles)."""
    return np.stack([np.sqrt(((pictures - one) ** 2).mean((1, 2, 3))) for one in known], axis=1)


SUITE = Suite(
    NAME, "Pictures known by heart: distance of what is drawn to what the base model draws for that title.", ask, score
)
