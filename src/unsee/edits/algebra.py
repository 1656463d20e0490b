"""Edits are differences: they can be added, scaled and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from unsee.edits.card import Card
from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError
from unsee.models.model import Pipeline
from unsee.spelling import counted
from unsee.versions import versions


def merge(edits: Sequence[Edit], weights: Sequence[float] | None = None, pipe: Pipeline | None = None) -> Edit:
    """One edit, sum_i w_i delta_i, with a card that holds the cards of all. One edit with a weight is that edit scaled.

    edits    all of one base; or, with `pipe`, each made on the model with those before it applied
    pipe     their model; without it nothing is checked against one
    weights  finite, one for each edit; default 1. Negative ones strengthen what the edit erases
    Low-rank differences stay so, and exact: ranks add up. The card's concepts are those of positive weight.
    Raises InputError if bases or shapes differ.

        >>> half = unsee.merge([edit], [0.5])
        >>> both = unsee.merge([edit, unsee.UCE()(pipe, "dog")])
    """
    weights = [1.0] * len(edits) if weights is None else list(weights)
    if not edits or len(weights) != len(edits):
        both = f"{counted(len(edits), 'edit')} and {counted(len(weights), 'weight')}"
        raise InputError(f"{both}: give one weight for each edit, or none")
    if not all(map(math.isfinite, weights)):
        raise InputError(f"weights must be finite numbers, got {', '.join(map(str, weights))}")
    bases = [edit.card.base_hash for edit in edits]
    if len(set(bases)) > 1:
        if pipe is None:
            raise InputError(
                f"these edits were made for different weights ({', '.join(base[:12] for base in bases)}); to merge "
                "edits that were made one on top of the other, give them in that order with their `pipe`"
            )
        if any(weight != 1 for weight in weights):
            raise InputError("edits made one on top of the other are merged with weight 1 only: each needs the others")
        with ExitStack() as stack:
            for edit in edits:
                stack.enter_context(edit.applied(pipe))  # refuses one that was made upon anything else
    elif pipe is not None:
        for edit in edits:
            edit.check(pipe)
    deltas: dict[str, Delta] = {}
    for edit, weight in zip(edits, weights, strict=True):
        for name, delta in edit.deltas.items():
            part = scaled(delta, weight)
            deltas[name] = _sum(name, deltas[name], part) if name in deltas else part
    cards = [edit.card for edit in edits]
    settings = {
        "edits": [
            {"weight": weight, **TypeAdapter(Card).dump_python(replace(card, claims=None), mode="json")}
            for weight, card in zip(weights, cards, strict=True)
        ]
    }
    card = Card(
        "merge",
        settings,
        # What is subtracted is not erased: it is made stronger.
        tuple(
            dict.fromkeys(c for weight, card in zip(weights, cards, strict=True) if weight > 0 for c in card.concepts)
        ),
        cards[0].base,
        cards[0].base_hash,
        cards[0].seed,
        versions(),
        tuple(dict.fromkeys(word for card in cards for word in card.kept)),
        forced_from=next((card.forced_from for card in cards if card.forced_from), None),
        variant=cards[0].variant,
    )
    return Edit(deltas, card)


@contextmanager
def applied(pipe: Pipeline, edits: Sequence[Edit], weights: Sequence[float] | None = None) -> Iterator[None]:
    """Within the context several edits of one base are applied at once; where they change one weight, they add up.

    weights  weight of each edit, in order; default 1
    Raises InputError if an edit was made for another base than the others, or than the model of `pipe`.

        >>> dog = unsee.UCE()(pipe, "dog")
        >>> with unsee.applied(pipe, [edit, dog]): picture = pipe("a church and a dog").images[0]
    """
    with merge(edits, weights).applied(pipe):
        yield


def undo(edit: Edit, pipe: Pipeline) -> Edit:
    """The edit that leads back: it is for the model with `edit` in its weights, such as an exported pipeline.

    pipe  the model that `edit` was made for
    Rounding brings the base's weights back to about one unit in the last place, not to the bit.
    """
    back = merge([edit], [-1.0])
    with edit.applied(pipe):
        return Edit(back.deltas, replace(back.card, base_hash=back.base_in(pipe)))


@dataclass(frozen=True)
class Difference:
    """How two edits differ.

    fields    of their cards that are not the same, with both values
    only      how many weights just the first changes, and just the second
    sizes     root of the sum of squares of each edit, and of their difference
    cosine    of the angle between them; 1 is the same direction; nan if one of them is nothing
    """

    fields: dict[str, tuple[Any, Any]]
    only: tuple[int, int]
    sizes: tuple[float, float, float]
    cosine: float


def difference(a: Edit, b: Edit) -> Difference:
    """Compare two edits, weight by weight. Raises InputError if a weight has other shapes in them."""
    said = [TypeAdapter(Card).dump_python(edit.card, mode="json") for edit in (a, b)]
    fields = {key: (said[0][key], said[1][key]) for key in said[0] if said[0][key] != said[1][key]}
    aa = sum(_inner(name, delta, delta) for name, delta in a.deltas.items())
    bb = sum(_inner(name, delta, delta) for name, delta in b.deltas.items())
    ab = sum(_inner(name, delta, b.deltas[name]) for name, delta in a.deltas.items() if name in b.deltas)
    return Difference(
        fields,
        (len(a.deltas.keys() - b.deltas.keys()), len(b.deltas.keys() - a.deltas.keys())),
        (math.sqrt(max(aa, 0)), math.sqrt(max(bb, 0)), math.sqrt(max(aa + bb - 2 * ab, 0))),
        ab / math.sqrt(aa * bb) if aa > 0 and bb > 0 else math.nan,
    )


def scaled(delta: Delta, weight: float) -> Delta:
    """weight times a difference; of low rank it stays so."""
    return LowRank(delta.up * weight, delta.down) if isinstance(delta, LowRank) else delta * weight


def _sum(name: str, a: Delta, b: Delta) -> Delta:
    _alike(name, a, b)
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        dtype = torch.promote_types(a.up.dtype, b.up.dtype)
        return LowRank(torch.cat([a.up.to(dtype), b.up.to(dtype)], 1), torch.cat([a.down.to(dtype), b.down.to(dtype)]))
    shape = a.shape if isinstance(a, Tensor) else b.shape if isinstance(b, Tensor) else None
    assert shape is not None
    return sum((delta if isinstance(delta, Tensor) else delta.dense(shape) for delta in (a, b)), torch.zeros(()))


def _inner(name: str, a: Delta, b: Delta) -> float:
    """<a, b>, the sum of products. Of thin matrices by their small Gram matrices: a product may not fit in memory."""
    _alike(name, a, b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return float(a.double().flatten() @ b.double().flatten())
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return float(((a.up.double().T @ b.up.double()) * (a.down.double() @ b.down.double().T)).sum())
    thin, dense = (a, b) if isinstance(a, LowRank) else (b, a)
    assert isinstance(thin, LowRank)
    assert isinstance(dense, Tensor)
    return float(((thin.up.double().T @ dense.double().flatten(1)) * thin.down.double()).sum())


def _alike(name: str, a: Delta, b: Delta) -> None:
    """Raise InputError unless two differences are of one shape; that of a product is known as a matrix only."""
    dense = isinstance(a, Tensor) and isinstance(b, Tensor)
    if _flat(a) != _flat(b) or (dense and a.shape != b.shape):  # type: ignore[union-attr]
        raise InputError(f"{name!r} has shape {_flat(a)} in one edit and {_flat(b)} in the other")


def _flat(delta: Delta) -> tuple[int, int]:
    if isinstance(delta, LowRank):
        return delta.up.shape[0], delta.down.shape[1]
    return (delta.shape[0], math.prod(delta.shape[1:])) if delta.ndim else (1, 1)
