r"""Closed-form undo: a linear map of any text to what the edited matrices read as the base's read the text itself.

    min_e' sum |W e' - W0 e|^2 + l |e' - e|^2        e' = e + (A + l I)^-1 (M - A) e
    A = sum W^T W      M = sum W^T W0

over all matrices W through which the prompt enters, W0 being the base's. It undoes the edit of any concept without
knowing which, with no denoiser pass. Ours; on the miniature it undoes every edit of keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.activations import inputs
from unsee.denoising.conditioned import door, text_of
from unsee.denoising.text_layers import find_text
from unsee.errors import Unsupported
from unsee.models.denoisers import denoiser
from unsee.models.distributed import full
from unsee.models.model import kind
from unsee.models.weights import entrance


def undone(W: list[Tensor], W0: list[Tensor], damping: float) -> Tensor:
    """The map (features, features) that takes e to e', float64. damping: l, as a share of A's mean diagonal."""
    A = sum((w.T @ w for w in W), torch.zeros(()))
    M = sum((w.T @ w0 for w, w0 in zip(W, W0, strict=True)), torch.zeros(()))
    eye = torch.eye(len(A), dtype=A.dtype)
    found: Tensor = eye + torch.linalg.solve(A + damping * A.trace() / len(A) * eye, M - A)
    return found


def _same(one: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)


def search(context: AttackContext) -> Iterator[Found]:
    pipe, (_, net) = context.pipe, denoiser(context.pipe)
    find_text(pipe)

    def read() -> dict[str, Tensor]:
        return {name: full(weight.data).detach().double().cpu() for name, weight in entrance(net).items()}

    now = read()
    with context.base():
        before = read()
    text = text_of(pipe, context.prompt)
    layers = [name.removesuffix(".weight") for name in now]
    read_there = inputs(pipe, [context.prompt], layers).values()
    name = next((name for name, value in text.arguments.items() if all(_same(x, value) for x in read_there)), None)
    if name is None:
        raise Unsupported(f"{kind(pipe).__name__}: the first matrices that read the prompt read no argument of a call")
    value, way = text.arguments[name], door(pipe, context.prompt, context.guidance_scale > 1)
    for damping in (1e-1, 1e-2, 1e-4) if context.thorough else (1e-2,):
        context.start()
        map_ = undone(list(now.values()), list(before.values()), damping)
        said = (value.double().cpu() @ map_.T).to(value)
        changed = replace(text, arguments=text.arguments | {name: said})
        yield Found(f"damping {damping:g}", (context.prompt,), applied=partial(way.given, changed))


ATTACK = Attack(
    "undo",
    "continuous text",
    frozenset({"name", "weights", "base"}),
    "A linear map of any text to what the attacked matrices read as the base's do; solved, without a denoiser pass.",
    search,
    rows=(1, 3),
)
