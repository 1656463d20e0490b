"""The selections of the paper, by count on Stable Diffusion 1.4's own network; values swapped in and out."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from unsee.errors import InputError
from unsee.layers import SELECTIONS, select, swapped

SD14 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


@pytest.fixture(scope="module")
def sd14() -> nn.Module:
    with torch.device("meta"):  # shapes without memory
        return UNet2DConditionModel(**SD14)


@pytest.mark.parametrize(
    ("selection", "millions"),
    [("cross", 43.96), ("cross-kv", 19.17), ("self", 49.57), ("noncross", 815.56), ("all", 859.52)],
)
def test_counts_on_stable_diffusion_1_4(sd14: nn.Module, selection: str, millions: float) -> None:
    count = sum(weight.numel() for weight in select(sd14, selection).values())
    assert round(count / 1e6, 2) == millions


def test_selections_fit_together(sd14: nn.Module) -> None:
    chosen = {name: set(select(sd14, name)) for name in SELECTIONS}
    assert chosen["cross"] | chosen["noncross"] == chosen["all"]
    assert not chosen["cross"] & chosen["noncross"]
    assert chosen["cross-kv"] < chosen["cross"]
    assert chosen["self"] < chosen["noncross"]
    assert all(".to_k." in name or ".to_v." in name for name in chosen["cross-kv"])


def test_a_selection_that_matches_nothing_says_what_would() -> None:
    with pytest.raises(InputError, match="'cross' matches nothing in Linear: noncross, all would"):
        select(nn.Linear(2, 2), "cross")
    with pytest.raises(InputError, match="did you mean 'noncross'"):
        select(nn.Linear(2, 2), "noncros")


def test_swapped_puts_the_very_tensors_back() -> None:
    layer = nn.Linear(2, 2)
    parameters, before = dict(layer.named_parameters()), layer.weight.data_ptr()
    with pytest.raises(RuntimeError), swapped(parameters, {"weight": torch.zeros(2, 2)}):
        assert not layer.weight.any()
        raise RuntimeError
    assert layer.weight.data_ptr() == before
