"""Soft prompt: learn the whole of what the denoiser reads of a prompt, at all of its tokens.

    min_v E |e_theta(x_t, v) - answer|^2,     v being all arguments of the denoiser that hold the text

Nobody can type it; it is what a server that takes embeddings lets in. It needs no text encoder, and works on every
pipeline that can be recorded. Adam at a constant rate of RATE times the text's root mean square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import ROWS, Rows, from_base, from_pictures, learn
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import door, text_of
from unsee.errors import InputError

RATE = 0.03
START = "a picture"


def soft(context: AttackContext, rows: Rows, row: str) -> Iterator[Found]:
    """What one gets by learning the text from START on."""
    text = text_of(context.pipe, START)
    numbers = [name for name, x in text.arguments.items() if isinstance(x, Tensor) and x.is_floating_point()]
    if not numbers:
        raise InputError("this pipeline's denoiser reads its text as no tensor: nothing can be learned in its place")
    values = {name: text.arguments[name].detach().clone().float() for name in numbers}
    size = float(max(values.values(), key=Tensor.numel).square().mean().sqrt())

    def made() -> Call:
        new = {name: value.to(text.arguments[name]) for name, value in values.items()}
        return replace(text, arguments=text.arguments | new)

    way = door(context.pipe, START, context.guidance_scale > 1)
    for update in learn(context, list(values.values()), made, rows, RATE * size):
        now = made()
        fixed = replace(now, arguments={k: x.detach().clone() if k in values else x for k, x in now.arguments.items()})
        yield Found(f"{row}, {update * ROWS} passes", (START,), applied=partial(way.given, fixed))


def searched(match: bool) -> Callable[[AttackContext], Iterator[Found]]:
    def search(context: AttackContext) -> Iterator[Found]:
        rows = from_base(context) if match else from_pictures(context, 8)
        yield from soft(context, rows, "the base's answers" if match else "8 pictures")

    return search


ATTACK = Attack(
    "soft",
    "continuous text",
    frozenset({"weights", "pictures"}),
    "All that the denoiser reads of a prompt, learned from pictures.",
    searched(match=False),
    taught=True,
    rows=(2, 2),
    searches=(1, 1),
)
MATCH = Attack(
    "soft-match",
    "continuous text",
    frozenset({"name", "weights", "base"}),
    "The same, learned from what the base predicts for the concept's name.",
    searched(match=True),
    rows=(2, 2),
    searches=(1, 1),
)
