"""Closed-form undo: a linear map of the text after which the attacked matrices give the base's outputs (mapped.py).

On the miniature it undoes every edit of keys and values alone, with no denoiser pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.conditioned import door
from unsee.denoising.mapped import mapped, matrices


def search(context: AttackContext) -> Iterator[Found]:
    pipe, now = context.pipe, matrices(context.pipe)
    with context.base():
        before = matrices(pipe)
    way = door(pipe, context.prompt, context.guidance_scale > 1)
    for damping in (1e-1, 1e-2, 1e-4) if context.thorough else (1e-2,):
        context.start()
        changed = mapped(pipe, context.prompt, now, before, damping)
        yield Found(f"damping {damping:g}", (context.prompt,), applied=partial(way.given, changed))


ATTACK = Attack(
    "undo",
    "continuous text",
    frozenset({"name", "weights", "base"}),
    "A linear map of text features that makes the attacked matrices give the base's outputs; solved, not searched.",
    search,
    rows=(1, 3),
)
