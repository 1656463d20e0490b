"""Averaging with the base: (1 - share) W + share W0. For an edit this is the edit at the scale 1 - share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.models.denoisers import denoiser
from unsee.models.weights import is_full_precision, own_parameters, temporary_values

SHARES = (0.1, 0.2, 0.5)


def search(context: AttackContext) -> Iterator[Found]:
    _, net = denoiser(context.pipe)
    weights = {name: one for name, one in own_parameters(net).items() if is_full_precision(one)}
    now = {name: one.data for name, one in weights.items()}
    with context.base():
        base = {name: one.data for name, one in weights.items() if one.data_ptr() != now[name].data_ptr()}
    mixed = {name: weights[name] for name in base}
    for share in SHARES:
        values = {name: now[name] + share * (base[name] - now[name]) for name in base}
        yield Found(f"{share:g} of the base", (context.prompt,), applied=partial(temporary_values, mixed, values))


ATTACK = Attack(
    "average",
    "weights",
    frozenset({"weights", "base"}),
    "The attacked weights averaged with the base's.",
    search,
    rows=(3, 3),
)
