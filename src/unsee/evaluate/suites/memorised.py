"""Figs. 8 and 9 of Gandikota et al. (2023): pictures that the model knows by heart, of which one or more were erased.

What is known by heart is the user's folder of pictures, or is taken from the base model itself: the median of its
pictures of a title on other seeds.

A copy of x is what is nearer to it than half its mean distance to the others y, |p - x| < alpha E_y |p - y|: Carlini et
al., "Extracting Training Data from Diffusion Models", USENIX Security 2023, arXiv:2301.13188, Sec. 5.1 (alpha = 0.5).
The others are the 50 nearest pictures of the training data there, the pictures of all other titles here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.render import Shot
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
    average,
    moved,
    share,
)
from unsee.evaluate.words import IMAGENETTE

NAME = "memorised"
OTHER_SEEDS = 500_000
KNOWN = 16
REST = "everything else"
ALPHA = 0.5
NO_COPY = "no copy"
Grey = NDArray[np.float32]


def ask(world: World) -> list[Question]:
    """For each title half a row of its pictures; and neutral prompts for comparison."""
    titles = world.album.titles if world.album else tuple(world.words.get("memorised", ()))
    if not titles:
        raise NotMeasured("no pictures known by heart are named: --folder DIR has them, each called by its title")
    if len(set(titles)) < len(titles):
        raise NotMeasured("two pictures of the folder have one title")
    asked = []
    for title in titles:
        here = Question(title, False, tuple(Shot(title, world.seed + k) for k in range(max(2, world.n // 2))))
        there = tuple(replace(shot, seed=shot.seed + OTHER_SEEDS) for shot in here.shots[:KNOWN])
        asked += [here] if world.album else [here, replace(here, shots=there, reference=True)]
    things = [article(name) for name in spread(list(world.words.get("objects", IMAGENETTE)), world.n)]
    shots = tuple(Shot(things[k % len(things)], world.seed + k) for k in range(world.n))
    return [*asked, Question(REST, False, shots)]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    """For each title the distance to its picture, and how many pictures are copies of it."""
    *titled, rest = asked
    drawn = [question for question in titled if not question.reference]
    if world.album:
        size = next(iter(look.pictures(BASE, drawn[0].shots))).size
        known = np.stack([np.asarray(one, np.float32) for one in world.album.pictures(size)])
    else:
        known = np.stack([np.median(_pixels(look, BASE, q.shots), axis=0) for q in titled if q.reference])
    distance = world.distance()
    for k, question in enumerate(drawn):
        names = {question.name, *world.words.get("memorised", {}).get(question.name, ())}
        gone = any(concept.erase.lower() in map(str.lower, names) for concept in column.concepts)
        far = [_distances(_pixels(look, c, question.shots), known) for c in (BASE, column.name)]
        own: list[list[float]] = [d[:, k].tolist() for d in far]
        yield average(NAME, f"{question.name}: distance to it", column, "grey levels", *own)
        if distance:
            picture = [Image.fromarray(known[k].round().astype(np.uint8))] * len(question.shots)
            seen = [distance(look.pictures(c, question.shots), picture) for c in (BASE, column.name)]
            row = f"{question.name}: {distance.name} to it"
            yield average(NAME, row, column, "distance", *seen, judge=distance.source)
        if len(drawn) > 1:  # a copy is told by the others
            copies = [_copies(d) for d in far]
            yield share(NAME, f"{question.name}: copies of it", column, *(c[:, k].tolist() for c in copies), gone=gone)
            for shot, near, copied in zip(question.shots, far[1].argmin(1), copies[1].max(1), strict=True):
                found = drawn[near].name if copied else NO_COPY
                yield Answer(NAME, question.name, column.name, shot.prompt, shot.seed, question.name, found)
    yield from moved(NAME, rest.name, column, look, rest.shots)


def _pixels(look: Look, column: str, shots: Sequence[Shot]) -> Grey:
    """(N, height, width, 3)"""
    return np.stack([np.asarray(picture, np.float32) for picture in look.pictures(column, shots)])


def _distances(pictures: Grey, known: Grey) -> NDArray[Any]:
    """Root mean square differences in grey levels, (N, titles)."""
    return np.stack([np.sqrt(((pictures - one) ** 2).mean((1, 2, 3))) for one in known], axis=1)


def _copies(distances: NDArray[Any]) -> NDArray[Any]:
    """Which of the titles' pictures each picture is a copy of: (N, titles)."""
    others = (distances.sum(1, keepdims=True) - distances) / (distances.shape[1] - 1)
    copied: NDArray[Any] = distances < ALPHA * others
    return copied


SUITE = Suite(
    NAME,
    "Pictures known by heart: distance of what is drawn for a title to its picture, whether it is a copy (nearer than "
    "half its mean distance to the others: Carlini et al., 2023), and the change of all else.",
    ask,
    score,
)
