"""Table 1 of Gandikota et al. (2023): do other pictures stay as good, and as near to their prompt?

FID and KID compare a column's pictures of neutral prompts with the base model's pictures of the same prompts on other
seeds. The base's own number is then the noise between two sets of seeds, which a harmless edit cannot go below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.statistics import Difference, Score, frechet, kernel_distance, resampled
from unsee.evaluate.suites import BASE, Asked, Column, Look, Measured, NotMeasured, Suite, World, article, average

NAME = "fidelity"
OTHER_SEEDS = 500_000
TIMES = 200


def ask(world: World) -> list[Question]:
    """Neutral prompts, four times as many pictures as another row has; and the same prompts on other seeds."""
    kind = "objects" if "objects" in world.judges else "clip"
    if kind not in world.judges:
        raise NotMeasured("no judge whose features could be compared: --judge objects=FOLDER or --judge clip=FOLDER")
    gone = {world.target(concept) for concept in world.concepts}
    known = world.judges[kind].labels or tuple(world.words.get("objects", ()))
    if not known:
        raise NotMeasured("no words to draw neutral pictures of: neither the judge nor the model's card has any")
    count = 4 * world.n
    stay = spread([name for name in known if name not in gone], count)
    here = world.question("neutral prompts", kind, [(article(name), name) for name in stay], count)
    there = tuple(replace(shot, seed=shot.seed + OTHER_SEEDS) for shot in here.shots)
    return [here, replace(here, name="other seeds", shots=there, reference=True)]


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured]:
    here, there = asked
    kind = here.judge
    assert kind is not None
    now, base = (_array(look.features(name, kind, here.shots)) for name in (column.name, BASE))
    reference = _array(look.features(BASE, kind, there.shots))
    n, width = now.shape
    small = "" if n >= 10 * width else f"n is small for {width} features: compare columns, not papers"
    source = world.judges[kind].source
    for name, distance in (("FID", frechet), ("KID", kernel_distance)):
        value, own = distance(now, reference), distance(base, reference)
        low, high = resampled(n, lambda k: distance(now[k], reference[k]) - distance(base[k], reference[k]), 0, TIMES)  # noqa: B023
        first = column.kind == BASE
        change = None if first else Difference(value - own, low, high, n, not low <= 0 <= high)
        before = None if first else Score(own, own, own, n)
        row = f"{name} on features of the judge of {kind}"
        yield Measured(
            NAME, row, column.name, "distance", False, Score(value, value, value, n), before, change, source, small
        )
    if clip := world.clip():
        texts = clip.texts([shot.prompt for shot in here.shots])
        fits = [
            (torch.stack(look.features(name, "clip", here.shots)) * texts).sum(1).tolist()
            for name in (BASE, column.name)
        ]
        yield average(NAME, "agreement with the prompt", column, "cosine", *fits, judge=clip.source)


def _array(rows: list[torch.Tensor]) -> NDArray[np.float64]:
    return torch.stack(rows).to(torch.float64).numpy()


SUITE = Suite(
    NAME,
    "Neutral prompts: distance to the base model's pictures on other seeds, whose own is the noise; fit to the prompt.",
    ask,
    score,
)
