"""Another text encoder: the pipeline's own with rounded or noisy weights, like one that was trained a little further.

Users swap text encoders for smaller files or fine-tuned ones. An edit that was fitted to one reading of the name may
miss another. An edit of the text encoder itself falls to the stock one; edits here change denoisers alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.rounding import rounded
from unsee.errors import InputError
from unsee.models.encoding import text_encoders
from unsee.models.weights import is_full_precision, temporary_values

NOISE = (0.05, 0.2)
"""Standard deviation of the noise, as a share of the matrix's own."""


def search(context: AttackContext) -> Iterator[Found]:
    encoders = text_encoders(context.pipe)
    weights = {f"{k}.{name}": one for k, part in enumerate(encoders) for name, one in part.named_parameters()}
    matrices = {name: one for name, one in weights.items() if one.ndim > 1 and is_full_precision(one)}
    if not matrices:
        raise InputError("this pipeline has no text encoder with weights that can be changed")
    for bits in (8, 4):
        values = {name: rounded(one.data, bits) for name, one in matrices.items()}
        yield Found(
            f"text encoder in {bits} bits", (context.prompt,), applied=partial(temporary_values, matrices, values)
        )
    for share in NOISE:
        rng = torch.Generator().manual_seed(context.seed)
        values = {
            name: one.data + share * one.data.std() * torch.randn(one.shape, generator=rng).to(one.data)
            for name, one in matrices.items()
        }
        row = f"text encoder with noise of {share:g} of its weights"
        yield Found(row, (context.prompt,), applied=partial(temporary_values, matrices, values))


ATTACK = Attack(
    "encoder",
    "weights",
    frozenset({"text encoder"}),
    "The text encoder with rounded or noisy weights.",
    search,
    rows=(4, 4),
)
