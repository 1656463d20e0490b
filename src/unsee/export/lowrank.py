"""A difference of a matrix as the product of two thin ones, and what is lost by it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError


@dataclass(frozen=True)
class Loss:
    """What an edit lost on its way into a format.

    kept   share of the sum of all squared differences that is left, 0 to 1
    ranks  of the matrices, by name
    out    names of weights that the format cannot hold at all
    """

    kept: float
    ranks: dict[str, int]
    out: tuple[str, ...]


def low_rank(
    edit: Edit, matrices: Collection[str], *, rank: int | None = None, energy: float | None = None
) -> tuple[Edit, Loss]:
    """The edit with each of `matrices` cut to low rank and everything else left out, and what that costs.

    rank    at most so many singular values of each matrix, or
    energy  as many as hold this share of its sum of squares, 0 to 1; default 0.99
    A difference that is low rank already, and not above `rank`, is kept as it is. Of all matrices of a rank the cut
    singular value decomposition is the nearest (Eckart and Young, 1936).
    Raises InputError when nothing would be left.
    """
    if rank is not None and energy is not None:
        raise InputError("give `rank` or `energy`, not both")
    if rank is not None and rank < 1:
        raise InputError(f"`rank` is {rank}; it must be 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise InputError(f"`energy` is {energy}; it must be above 0 and at most 1")
    deltas: dict[str, Delta] = {}
    total = kept = 0.0
    for name, delta in edit.deltas.items():
        u, s, v = _svd(delta)
        squares = s.double().square()
        total += float(squares.sum())
        if name not in matrices:
            continue
        if isinstance(delta, LowRank) and (rank is None or delta.up.shape[1] <= rank) and energy is None:
            deltas[name] = delta
            kept += float(squares.sum())
            continue
        share = squares.cumsum(0) / squares.sum().clamp(min=torch.finfo(torch.float64).tiny)
        k = rank or int((share < (energy or 0.99)).sum()) + 1
        k = min(k, len(s))
        root = s[:k].sqrt()
        deltas[name] = LowRank((u[:, :k] * root).contiguous(), (root[:, None] * v[:k]).contiguous())
        kept += float(squares[:k].sum())
    if not deltas:
        raise InputError("the edit changes no matrix, so nothing of it can be low rank")
    out = tuple(name for name in edit.deltas if name not in deltas)
    ranks = {name: delta.up.shape[1] for name, delta in deltas.items() if isinstance(delta, LowRank)}
    return Edit(deltas, edit.card), Loss(kept / total if total else 1.0, ranks, out)


def squares(edit: Edit) -> float:
    """The sum of all squared differences."""
    total = 0.0
    for delta in edit.deltas.values():
        if isinstance(delta, Tensor):
            total += float(delta.double().square().sum())
        else:
            up, down = delta.up.double(), delta.down.double()
            total += float(((up.T @ up) * (down @ down.T)).sum())
    return total


def _svd(delta: Delta) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition of a difference, whatever its shape, as (out, rest); a vector is one row."""
    if isinstance(delta, Tensor):
        flat = delta.float().flatten(1) if delta.ndim > 1 else delta.float().reshape(1, -1)
        return tuple(torch.linalg.svd(flat, full_matrices=False))
    return delta.svd()
