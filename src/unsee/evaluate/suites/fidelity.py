"""Table 1 of Gandikota et al. (2023): do other pictures stay as good, and still fit their prompts?

FID and KID compare a column's pictures of neutral prompts with the base model's pictures of the same prompts on other
seeds. The base's own number is then the noise between two sets of seeds, which a harmless edit cannot go below, and its
interval how much that number itself changes with the seeds. With
a folder of the user's own, such as COCO's pictures and captions, they compare with that, as the paper does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unsee.evaluate.context import BASE, EvalContext, NotMeasured
from unsee.evaluate.distance import Distance
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Difference, Score, frechet, jackknifed, kernel_distance, resampled
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

Features = NDArray[np.float64]
Pairs = NDArray[np.int64] | None
Apart = Callable[[Features, Features, Pairs], float]
OTHER_SEEDS = 500_000
TIMES, FEW_TIMES, MANY = 200, 40, 5000
"""How often pictures are drawn again for an interval; less often of many, where each time takes seconds."""


def ask(context: EvalContext) -> list[Question]:
    """Neutral prompts, four times as many pictures as another row has; and the same prompts on other seeds.

    With a folder of the user's own nothing else is drawn, and prompts are the captions of its pictures if it has any.
    """
    kind = "objects" if "objects" in context.detectors else "clip"
    if isinstance(context.detectors.get(kind), Distance):
        raise NotMeasured(f"the detector of {kind} compares two pictures, and has no features of a single one")
    if kind not in context.detectors:
        raise NotMeasured("no detector has features to compare: give one as `detectors` objects=FOLDER or clip=FOLDER")
    gone = {context.target(concept) for concept in context.concepts}
    count = 4 * context.n
    if context.album and context.album.captions:
        pairs = [(title, title) for title in spread(context.album.titles, count)]
    else:
        known = context.detectors[kind].labels or tuple(context.words.get("objects", ()))
        pairs = [(article(name), name) for name in spread([name for name in known if name not in gone], count)]
    if not pairs:
        raise NotMeasured("no objects are known for neutral prompts: list them in `words`")
    # Name by name on the same seeds, as the suite "neighbours" asks: most of these pictures are drawn for both.
    shots = tuple(Shot(pairs[k % len(pairs)][0], context.seed + k // len(pairs)) for k in range(count))
    labels = tuple(pairs[k % len(pairs)][1] for k in range(count))
    here = Question("neutral", "neutral prompts", shots, kind, labels)
    there = tuple(replace(shot, seed=shot.seed + OTHER_SEEDS) for shot in here.shots)
    return (
        [here] if context.album else [here, replace(here, key="seeds", name="other seeds", shots=there, reference=True)]
    )


def score(asked: Asked, c: Comparison) -> Iterator[Measured]:
    here, *there = asked
    kind = here.detector
    assert kind is not None
    base, now = c.both(lambda name: _array(c.seen.features(name, kind, here.shots)))
    reference = _array(c.seen.features(BASE, kind, there[0].shots) if there else c.seen.album(kind))
    n, width = now.shape
    fewest = min(n, len(reference))
    small = (
        f"n is small for {width} features: compare columns of this table, not figures of papers"
        if fewest < 10 * width
        else ""
    )
    source, album = c.context.detectors[kind].source, c.context.album
    to = f" to {len(reference)} pictures of {Path(album.folder).name}" if album else ""
    pairs = np.arange(n) if there else None  # pictures of the same prompts
    for name, distance in (("FID", _frechet), ("KID", kernel_distance)):
        value, own = distance(now, reference, pairs), distance(base, reference, pairs)
        own_spread = partial(_spread, distance, now, reference, pairs)
        before = change = None
        if c.variant.kind != BASE:
            times = TIMES if n < MANY else FEW_TIMES
            low, high = resampled(n, partial(_changes, distance, now, base, reference, pairs), 0, times)
            before = _score(own, partial(_spread, distance, base, reference, pairs), n)
            change = Difference(value - own, low, high, n, not low <= 0 <= high)
        row, key = f"{name} on features of the detector of {kind}{to}", name.lower()
        score = _score(value, own_spread, n)
        yield Measured(c.suite, key, "kept", row, c.variant.name, "distance", score, before, change, source, small)
    texts = [shot.prompt for shot in here.shots]
    yield from c.fits("fit", "agreement with the prompt", here.shots, texts, "kept")


def _score(value: float, spread: Callable[[NDArray[np.int64]], float], n: int) -> Score:
    half = jackknifed(n, spread)
    return Score(value, value - half, value + half, n)


def _frechet(x: Features, y: Features, pairs: Pairs) -> float:
    return frechet(x, y)


def _spread(distance: Apart, now: Features, reference: Features, pairs: Pairs, rows: NDArray[np.int64]) -> float:
    """The distance by some rows alone, of both sets where they are pictures of the same prompts."""
    if pairs is None:
        return distance(now[rows], reference, None)
    return distance(now[rows], reference[rows], np.arange(len(rows)))


def _changes(
    distance: Apart, now: Features, base: Features, reference: Features, pairs: Pairs, draws: NDArray[np.int64]
) -> list[float]:
    own = [None if pairs is None else pairs[rows] for rows in draws]
    return [
        distance(now[rows], reference, some) - distance(base[rows], reference, some)
        for rows, some in zip(draws, own, strict=True)
    ]


def _array(rows: Sequence[torch.Tensor]) -> Features:
    return torch.stack(list(rows)).to(torch.float64).numpy()


SUITE = Suite(
    "fidelity",
    "Neutral prompts: distance (FID, KID) to pictures of the base model with other seeds, or to a folder of pictures; "
    "agreement with the prompt. The base model's own distance is the noise level.",
    ask,
    score,
)
