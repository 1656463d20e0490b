"""The selections of the paper, by count on Stable Diffusion 1.4's own network; values swapped in and out."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from unsee.errors import InputError
from unsee.models.weights import SELECTIONS, reads_text, select, temporary_values

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

NET = nn.Identity()
"""A network of which nothing was found out by listening."""


@pytest.fixture(scope="module")
def sd14() -> nn.Module:
    with torch.device("meta"):  # shapes without memory
        return UNet2DConditionModel(**SD14)


@pytest.mark.parametrize(
    ("selection", "millions"),
    [("cross", 43.96), ("cross-kv", 19.17), ("self", 49.57), ("noncross", 815.56), ("all", 859.52)],
)
def test_selections_have_the_counts_of_stable_diffusion_1_4(sd14: nn.Module, selection: str, millions: float) -> None:
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
    with pytest.raises(InputError, match="'cross' matches nothing in Linear; these match: noncross, all"):
        select(nn.Linear(2, 2), "cross")
    with pytest.raises(InputError, match="did you mean 'noncross'"):
        select(nn.Linear(2, 2), "noncros")


def test_a_regular_expression_selects_weights(sd14: nn.Module) -> None:
    assert set(select(sd14, r"mid_block.*attn2\.to_k")) == {
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    }
    assert len(select(sd14, "conv_in")) == 2  # no special character, but it occurs in names
    with pytest.raises(InputError, match="'mid_blocks.' matches nothing in UNet2DConditionModel; these match: cross, "):
        select(sd14, "mid_blocks.")
    with pytest.raises(InputError, match=r"or a regular expression of parameter names"):
        select(sd14, "attn9")
    with pytest.raises(InputError, match=r"'\(' is no name and no regular expression: missing \), unterminated"):
        select(sd14, "(")


def test_text_inputs_are_distinguished_from_similar_ones() -> None:
    assert reads_text("blocks.0.attn2.to_k.weight", NET)
    assert reads_text("transformer_blocks.0.attn.add_q_proj.weight", NET)
    assert not reads_text("blocks.0.attn2.add_k_proj.weight", NET)  # of Wan: pictures, not text
    assert not reads_text("time_text_embed.text_embedder.linear_1.weight", NET)  # of SD 3 and FLUX: one summary
    assert not reads_text("single_transformer_blocks.0.attn.to_k.weight", NET)  # text and picture
    assert not reads_text("cap_embedder.0.weight", NET)  # a norm
    assert not reads_text("blocks.0.attn2.to_k.bias", NET)


class Packed(nn.Parameter):
    """As quantisers make them: a parameter of a class of their own, that reports the dtype it stands for."""


Packed.__module__ = "torchao.dtypes"


@pytest.mark.parametrize(
    "weight",
    [
        nn.Parameter(torch.zeros(2, 1, dtype=torch.uint8), requires_grad=False),  # as bitsandbytes packs four bits
        nn.Parameter(torch.zeros(2, 2, dtype=torch.float8_e4m3fn), requires_grad=False),
        Packed(torch.zeros(2, 2, dtype=torch.bfloat16)),
    ],
)
def test_weights_that_lose_small_changes_are_refused(weight: nn.Parameter) -> None:
    refused = pytest.raises(InputError, match="layer.weight is quantised or stored in less than 16 bits")
    with refused, temporary_values({"layer.weight": weight}, {"layer.weight": torch.zeros(2, 2)}):
        pass


def test_swapped_puts_the_very_tensors_back() -> None:
    layer = nn.Linear(2, 2)
    parameters, before = dict(layer.named_parameters()), layer.weight.data_ptr()
    with pytest.raises(RuntimeError), temporary_values(parameters, {"weight": torch.zeros(2, 2)}):
        assert not layer.weight.any()
        raise RuntimeError
    assert layer.weight.data_ptr() == before
