"""What must not matter does not: an edit is the same function in whatever basis, scale, layout and batch."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsee import Concept, Edit, methods
from unsee.calls import replay
from unsee.layers import entrance
from unsee.pipelines import denoiser
from unsee.recorder import record

QUICK: dict[str, dict[str, Any]] = {
    "uce": {"spared": 96, "company": 8},
    "esd": {"spared": 96, "company": 8, "steps": 3, "updates": 4, "batch": 4, "runs": 2, "keep_runs": 2},
    "lora": {"spared": 96, "company": 8, "steps": 3, "updates": 4, "batch": 4, "runs": 2, "keep_runs": 2, "rank": 2},
}
CHURCH = Concept("church")


def erase(pipe: Any, method: str, **settings: Any) -> Edit:
    return methods.find(method)(**{**QUICK[method], **settings})(pipe, CHURCH)


@torch.no_grad()
def moved(pipe: Any, edit: Edit) -> Tensor:
    """How the edit changes the model's predictions for some prompts."""
    trajectory = record(pipe, ["a church", "a castle", "a dog in a forest"], seeds=[1, 2, 3], steps=3)
    net = denoiser(pipe)[1]
    before = torch.cat([step.concept.output for step in trajectory])
    with edit.applied(pipe):
        return torch.cat([replay(net, step.concept) for step in trajectory]) - before


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / first.norm())


def in_basis(pipe: Any, A: Tensor) -> Any:
    """The same model, whose text encoder writes A x for x; what reads it is turned back."""
    other = deepcopy(pipe)
    A = A.double()
    back = torch.linalg.inv(A)
    norm = other.text_encoder.final_layer_norm
    turn = nn.Linear(len(A), len(A), bias=False)
    turn.weight.data.copy_(A)
    other.text_encoder.final_layer_norm = nn.Sequential(norm, turn.requires_grad_(False))
    for weight in entrance(other.unet).values():
        weight.data.copy_(weight.double() @ back)
    return other


def bases(features: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(features, features, generator=rng, dtype=torch.double))[0]
    spread = torch.randn(features, generator=rng, dtype=torch.double).exp()
    loud = torch.ones(features, dtype=torch.double)
    loud[3], loud[40] = 30.0, 25.0
    return {
        "ten times": 10 * torch.eye(features, dtype=torch.double),
        "a tenth": 0.1 * torch.eye(features, dtype=torch.double),
        "each channel another": spread.diag(),
        "two loud channels": loud.diag(),
        "rotated": rotation,
        "all of it": rotation @ (3 * spread).diag(),
    }


@pytest.mark.parametrize("method", QUICK)
def test_the_basis_of_text_features_does_not_matter(shipped: Any, method: str) -> None:
    here = erase(shipped, method)
    expected = moved(shipped, here)
    assert expected.norm() > 1
    for name, A in bases(128).items():
        there = in_basis(shipped, A)
        edit = erase(there, method)
        assert apart(expected, moved(there, edit)) < 0.01, name
