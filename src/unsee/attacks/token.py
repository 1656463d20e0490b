"""Textual inversion: learn vectors of new tokens from pictures of the concept, with the attacked model itself.

    min_v E |e_theta(x_t, "a v") - answer|^2          CCE (Pham et al., ICLR 2024, arXiv:2308.01508), after Gal et al.

Departures: the pictures are the base's own drawings. Adam at a constant rate, half of the table's standard deviation;
CCE takes 5,000 updates of 16 rows on 25 pictures. A falling rate halves the success on the miniature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import from_base, from_pictures, learned
from unsee.denoising.conditioned import door
from unsee.fit import search
from unsee.fit.search import ROWS, Rows

COUNTS = (1, 2, 4)


def tokens(context: AttackContext, counts: Sequence[int], rows: Rows, row: str) -> Iterator[Found]:
    """The attack's findings with this many new tokens."""
    for k in counts:
        text = search.tokens(context.pipe, context.template, k, torch.Generator().manual_seed(context.seed))
        way = door(context.pipe, text.prompt, context.guidance_scale > 1)
        for update in learned(context, text, rows):
            name = f"{k} token{'s' if k > 1 else ''}, {row}, {update * ROWS} passes"
            yield Found(name, (text.prompt,), applied=partial(way.given, text.fixed()))


def searched(match: bool) -> Callable[[AttackContext], Iterator[Found]]:
    """The attack from pictures, or from what the base answers."""

    def attack(context: AttackContext) -> Iterator[Found]:
        if match:
            yield from tokens(context, (1, 4) if context.thorough else (1,), from_base(context), "the base's answers")
            return
        yield from tokens(context, COUNTS, from_pictures(context, 8), "8 pictures")
        if context.thorough:
            yield from tokens(context, (1,), from_pictures(context, 1), "1 picture")

    return attack


ATTACK = Attack(
    "token",
    "continuous text",
    frozenset({"text encoder", "weights", "pictures"}),
    "Vectors of 1, 2 and 4 new tokens, learned from pictures (CCE).",
    searched(match=False),
    taught=True,
    rows=(6, 8),
    searches=(3, 4),
)
MATCH = Attack(
    "token-match",
    "continuous text",
    frozenset({"name", "text encoder", "weights", "base"}),
    "The vector of a new token for which the model predicts what the base predicts for the concept's name.",
    searched(match=True),
    rows=(2, 4),
    searches=(1, 2),
)
