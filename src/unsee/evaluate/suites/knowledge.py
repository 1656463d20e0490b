"""What a model still knows of a concept: its denoising loss with the empty prompt, without a detector.

    gap  =  E |e(x_t, "") - answer|^2 on the base's pictures upside down, minus the same on them as they are

A model that has learned how a concept looks denoises its pictures better than the same pictures upside down, which
nobody drew. The noise and the times are equal for both and for all variants. Ours; no attack, no prompt, no detector.
What is left is the variant's gap as a share of the base's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL.Image import Image, Transpose
from torch import Tensor

from unsee.denoising.calls import Call
from unsee.denoising.conditioned import condition
from unsee.denoising.noised import Clock, clock, encoded, noised, times
from unsee.denoising.replay import replay
from unsee.errors import InputError
from unsee.evaluate.context import BASE, EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, nearest, spread
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score, resampled
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article
from unsee.models.borrow import borrowed
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline

NAME = "knowledge"
TIMES = 10
MOST = 24
"""The most pictures of each thing: each picture takes 2 x TIMES denoiser passes."""
OTHERS = 2
KEPT = "kept/"


def ask(context: EvalContext) -> list[Question]:
    """The base's pictures of each concept, of its nearest neighbour, and of two other things."""
    if not context.concepts:
        raise NotMeasured("no concept is named: name one with `concepts`")
    gone = [concept.from_ or concept.erase for concept in context.concepts]
    objects = [
        one for one in context.words.get("objects", {}) if one not in {*gone, *map(context.target, context.concepts)}
    ]
    near = nearest(context.pipe, gone[:1], objects)[:1] if objects else []
    seeds = range(context.seed, context.seed + min(context.n, MOST))

    def row(key: str, word: str, role: str) -> Question:
        shots = tuple(Shot(article(word), seed) for seed in seeds)
        erases = context.concepts if role == "removed" else ()
        return Question(key, word, shots, None, (), role, erases, reference=True)  # type: ignore[arg-type]

    rest = [word for word in spread(objects, OTHERS + 1) if word not in near][:OTHERS]
    asked = [row(f"gap/{word}", word, "removed") for word in gone]
    asked += [row(f"{KEPT}{word}", word, "neighbour") for word in near]
    return asked + [row(f"{KEPT}{word}", word, "kept") for word in rest]


@torch.no_grad()
def losses(pipe: Pipeline, text: Call, time: Clock, z: Tensor, seed: int) -> Tensor:
    """E |e(x_t, text) - answer|^2 of latents (B, C, H, W), over TIMES times with noise of a seed: (B,).

    text  what the empty prompt conditions, one row
    """
    _, net = denoiser(pipe)
    total = torch.zeros(len(z), dtype=torch.double)
    for k, t in enumerate(times(pipe, TIMES).tolist()):
        e = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed + k)).to(z)
        t_ = torch.full((len(z),), t, device=z.device)
        x, answer = noised(pipe, z, t_, e)
        call = time.at(text, x, t_.floor(), answer)
        total += (replay(net, call) - call.output).double().square().flatten(1).mean(1).cpu()
    return total / TIMES


def gaps(pipe: Pipeline, pictures: Sequence[Image], seed: int) -> list[float]:
    """Loss upside down minus loss as they are, of each picture."""
    text, time = condition(pipe, ""), clock(pipe)
    both = [encoded(pipe, some) for some in (pictures, [one.transpose(Transpose.ROTATE_180) for one in pictures])]
    with borrowed(pipe):
        upright, turned = (losses(pipe, text, time, z, seed) for z in both)
    found: list[float] = (turned - upright).tolist()
    return found


def score(asked: Asked, c: Comparison) -> Iterator[Measured]:
    """For a guard there is no row: it changes what a guided run follows, not what the denoiser knows."""
    if c.variant.kind == "guard":
        return
    pipe = c.context.pipe
    for question in asked:
        pictures = c.seen.pictures(BASE, question.shots)
        try:
            before = gaps(pipe, pictures, c.context.seed)
            with c.variant.applied(pipe):
                now = before if c.variant.kind == BASE else gaps(pipe, pictures, c.context.seed)
        except InputError as error:
            raise NotMeasured(str(error)) from error
        role = c.role(question)
        yield c.average(question.key, f"{question.name}: gap", "squared error", (before, now), role)
        if c.variant.kind != BASE:
            yield _left(question, c, before, now)


def _left(question: Question, c: Comparison, before: Sequence[float], now: Sequence[float]) -> Measured:
    """The mean gap as a share of the base's, bootstrapped over pictures."""
    a, b = np.asarray(before), np.asarray(now)
    low, high = resampled(len(a), lambda rows: b[rows].mean(1) / a[rows].mean(1))
    left = Score(float(b.mean() / a.mean()), low, high, len(a))
    note = "" if a.mean() > 2 * a.std() / len(a) ** 0.5 else "the base's own gap cannot be distinguished from zero"
    row = f"{question.name}: gap left, as a share of the base's"
    return Measured(NAME, f"{question.key}/left", "other", row, c.variant.name, "ratio", left, None, None, "", note)


SUITE = Suite(
    NAME,
    "What a model knows of a concept's pictures without a prompt: the denoising loss of the pictures upside down minus "
    "that of the pictures as they are, and how much of the base's gap is left.",
    ask,
    score,
)
