"""Fig. 3 of Gandikota et al. (2023): what attention adds to a picture, with the concept's word and without it.

There, cross-attention acts where the word is named and self-attention always: why a named thing is erased in the one
and what appears unnamed in the other. Measured on the first attention modules of the last block that reads the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from PIL import Image, ImageOps
from torch import Tensor

from unsee.denoising.contributions import contributions
from unsee.evaluate.context import BASE, EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.observations import Figure
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article
from unsee.models.denoisers import denoiser

NAME = "attention"
SEEDS = 8
STEPS = 20


def ask(context: EvalContext) -> list[Question]:
    """Up to eight pictures with each concept's word, and as many without."""
    _modules(context)
    if not context.concepts:
        raise NotMeasured("no concept is named: name one with `concepts`")
    seeds = range(context.seed, context.seed + min(context.n, SEEDS))
    prompts = {f"{c.erase} named": f"an image of {article(c.erase)}" for c in context.concepts}
    return [
        Question(row, row, tuple(Shot(prompt, seed) for seed in seeds), role="other")
        for row, prompt in {**prompts, "nothing named": "an image"}.items()
    ]


def _modules(context: EvalContext) -> dict[str, str]:
    """The names of the two modules by kind of attention."""
    _, net = denoiser(context.pipe)
    cross = [name for name, _ in net.named_modules() if name.endswith(".attn2")]
    if not cross:
        raise NotMeasured(f"{type(net).__name__} has no cross-attention")
    up = [name for name in cross if name.startswith("up_blocks.")] or cross  # a U-Net lists its middle last
    first = next(name for name in up if name.startswith(up[-1].split("attentions")[0]))
    return {"cross-attention": first, "self-attention": first.removesuffix("2") + "1"}


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Figure]:
    """A guard changes predictions, not attention: it has no row here."""
    if c.variant.kind == "guard":
        return
    modules, pipe = _modules(c.context), c.context.pipe
    for question in asked:
        prompts, seeds = zip(*((shot.prompt, shot.seed) for shot in question.shots), strict=True)

        look_at = partial(contributions, pipe, prompts, tuple(modules.values()), seeds=seeds, steps=STEPS)
        base = look_at()
        with c.variant.applied(pipe):
            now = base if c.variant.kind == BASE else look_at()
        for kind, module in modules.items():
            row = f"{kind}, {question.name}"
            means: list[list[float]] = [found[module].mean(1).tolist() for found in (base, now)]
            yield c.average(f"{kind}/{question.key}", row, "contribution", means)
            ends = float(base[module].min()), float(base[module].max())
            for shot, places in zip(question.shots, now[module], strict=True):
                yield Figure(NAME, row, c.variant.name, shot, _heat(places, *ends))


def _heat(places: Tensor, low: float, high: float) -> Image.Image:
    """Places (N,) of a square as a picture, from black to white: the least and the most that the base adds anywhere.

    Not from zero: an attention module adds much the same everywhere, of which the eye learns nothing.
    """
    side = math.isqrt(places.numel())
    shares = (places[: side * side].view(side, side) - low) / max(high - low, 1e-9)
    grey = (255 * shares).clamp(0, 255).byte().cpu().numpy()
    return ImageOps.colorize(Image.fromarray(grey), "black", "white", "orangered")


SUITE = Suite(
    NAME,
    "How much cross-attention adds to a picture (root mean square), and where. All maps of a row share one scale: "
    "dark is the base model's minimum, bright its maximum.",
    ask,
    score,
)
