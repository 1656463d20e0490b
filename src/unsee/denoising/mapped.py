r"""A linear map of text, solved in closed form: some matrices give for the mapped text what others give for the text.

    min_e' sum |W e' - W0 e|^2 + l |e' - e|^2        e' = e + (A + l I)^-1 (M - A) e
    A = sum W^T W      M = sum W^T W0

over all matrices W through which the prompt enters, W0 being the other ones. It undoes an edit of them, of any concept
and without knowing which, with no denoiser pass. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unsee.denoising.activations import inputs
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import text_of
from unsee.denoising.text_layers import find_text
from unsee.errors import Unsupported
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.model import Pipeline, kind
from unsee.models.weights import text_input_weights


def undone(W: Sequence[Tensor], W0: Sequence[Tensor], damping: float) -> Tensor:
    """The map (features, features) that takes e to e', float64. damping: l, as a share of A's mean diagonal."""
    A = sum((w.T @ w for w in W), torch.zeros(()))
    M = sum((w.T @ w0 for w, w0 in zip(W, W0, strict=True)), torch.zeros(()))
    eye = torch.eye(len(A), dtype=A.dtype)
    found: Tensor = eye + torch.linalg.solve(A + damping * A.trace() / len(A) * eye, M - A)
    return found


def matrices(pipe: Pipeline) -> dict[str, Tensor]:
    """The matrices (out, features) through which the prompt enters now, float64, by name."""
    find_text(pipe)
    _, net = denoiser(pipe)
    return {
        name: whole_tensor(weight.data).detach().double().cpu().clone()
        for name, weight in text_input_weights(net).items()
    }


def mapped(pipe: Pipeline, prompt: str, W: Mapping[str, Tensor], W0: Mapping[str, Tensor], damping: float) -> Call:
    """The mapped text of a prompt, one row. Raises Unsupported where the matrices read no argument of a call."""
    text = text_of(pipe, prompt)
    read_there = inputs(pipe, [prompt], [name.removesuffix(".weight") for name in W]).values()
    name = next((name for name, value in text.arguments.items() if all(_same(x, value) for x in read_there)), None)
    if name is None:
        raise Unsupported(
            f"{kind(pipe).__name__}: the first matrices that read the prompt read no argument of a call as it is"
        )
    value = text.arguments[name]
    said = (value.double().cpu() @ undone(list(W.values()), list(W0.values()), damping).T).to(value)
    return replace(text, arguments=text.arguments | {name: said})


def _same(one: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
