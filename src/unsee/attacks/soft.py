"""Soft prompt: learn all text features that the denoiser reads, at every token of the prompt.

    min_v E |e_theta(x_t, v) - answer|^2,     v being all arguments of the denoiser that hold the text

Nobody can type it; it is what a server that takes embeddings lets in. It needs no text encoder, and works on every
pipeline that can be recorded. Adam at a constant rate of
SOFT_RATE times the text's root mean square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import from_base, from_pictures, learned
from unsee.denoising.conditioned import door
from unsee.fit import search
from unsee.fit.search import ROWS, Rows

START = "a picture"


def soft(context: AttackContext, rows: Rows, row: str) -> Iterator[Found]:
    """The attack's findings with a text learned from START on."""
    text = search.soft(context.pipe, START)
    way = door(context.pipe, START, context.guidance_scale > 1)
    for update in learned(context, text, rows):
        yield Found(f"{row}, {update * ROWS} passes", (START,), applied=partial(way.given, text.fixed()))


def searched(match: bool) -> Callable[[AttackContext], Iterator[Found]]:
    def attack(context: AttackContext) -> Iterator[Found]:
        rows = from_base(context) if match else from_pictures(context, 8)
        yield from soft(context, rows, "the base's answers" if match else "8 pictures")

    return attack


ATTACK = Attack(
    "soft",
    "continuous text",
    frozenset({"weights", "pictures"}),
    "The text features of a whole prompt, learned from pictures (a soft prompt).",
    searched(match=False),
    taught=True,
    rows=(2, 2),
    searches=(1, 1),
)
MATCH = Attack(
    "soft-match",
    "continuous text",
    frozenset({"name", "weights", "base"}),
    "The text features of a whole prompt, learned from what the base predicts for the name.",
    searched(match=True),
    rows=(2, 2),
    searches=(1, 1),
)
