"""Rounding: the attacked model's weights in 8 and in 4 bits, as a smaller file would hold them.

q = round(w / s) s,    s = max |w| / (2^(bits - 1) - 1) for each row of a matrix, or for each 64 numbers of it
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.models.denoisers import denoiser
from unsee.models.weights import is_full_precision, own_parameters, temporary_values

BLOCK = 64


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A weight (out, ...) as it is after rounding: one scale a row in 8 bits, one for each BLOCK numbers in fewer."""
    rows = weight.float().flatten(1)
    if bits < 8 and rows.shape[1] % BLOCK == 0:
        rows = rows.view(-1, BLOCK)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    found: Tensor = ((rows / scale).round() * scale).view(weight.shape).to(weight)
    return found


def search(context: AttackContext) -> Iterator[Found]:
    _, net = denoiser(context.pipe)
    matrices = {name: one for name, one in own_parameters(net).items() if one.ndim > 1 and is_full_precision(one)}
    for bits in (8, 4):
        values = {name: rounded(one.data, bits) for name, one in matrices.items()}
        yield Found(f"{bits} bits", (context.prompt,), applied=partial(temporary_values, matrices, values))


ATTACK = Attack(
    "rounding",
    "weights",
    frozenset({"weights"}),
    "The weights rounded to 8 and to 4 bits.",
    search,
    rows=(2, 2),
)
