"""Bases of real quantisers, on a CPU: adapters learn beside them and edits stand beside them; other methods refuse."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import QUICK
from diffusers import QuantoConfig, TorchAoConfig, UNet2DConditionModel
from torch import Tensor, nn

import unsee
from benchmarks.sized import four_bits
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.methods.lora import LoRA
from unsee.methods.uce import UCE
from unsee.models.names import BUNDLED


def _load(config: Any) -> Any:
    return UNet2DConditionModel.from_pretrained(
        BUNDLED["tiny"] / "unet", quantization_config=config, dtype=torch.float32
    )


def torchao() -> tuple[Any, Callable[[Any], Tensor]]:
    from torchao.quantization import Int8WeightOnlyConfig

    return _load(TorchAoConfig(Int8WeightOnlyConfig())), lambda layer: layer.weight.dequantize()


def quanto() -> tuple[Any, Callable[[Any], Tensor]]:
    return _load(QuantoConfig(weights_dtype="int8")), lambda layer: layer.weight.dequantize()


def bitsandbytes() -> tuple[Any, Callable[[Any], Tensor]]:
    """Its own layers, put in by hand: diffusers 0.42 loads four bits on an accelerator only."""
    from bitsandbytes.functional import dequantize_4bit

    net = four_bits(unsee.load("tiny").unet)
    return net, lambda layer: dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def gguf() -> tuple[Any, Callable[[Any], Tensor]]:
    """Layers of diffusers' own, over what the package gguf packs: what a single .gguf file is read as."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor
    from gguf import GGMLQuantizationType, quants

    net: Any = unsee.load("tiny").unet
    kind = GGMLQuantizationType.Q8_0
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.Linear) and layer.in_features % 32 == 0:
            new = GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, torch.float32)
            packed = torch.from_numpy(quants.quantize(layer.weight.numpy(), kind))
            new.weight, new.bias = GGUFParameter(packed, quant_type=kind), layer.bias
            net.set_submodule(name, new)
    return net, lambda layer: dequantize_gguf_tensor(layer.weight)


KINDS = {"torchao": torchao, "optimum.quanto": quanto, "bitsandbytes": bitsandbytes, "gguf": gguf}


def present(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module", params=KINDS)
def base(request: Any) -> tuple[Any, Callable[[Any], Tensor]]:
    """The miniature over a quantised denoiser, and what turns a packed layer's weight into numbers."""
    if not present(request.param):
        pytest.skip(f"{request.param} is not installed")
    net, numbers = KINDS[request.param]()
    pipe = unsee.load("tiny")
    pipe.unet = net.eval().requires_grad_(False)
    return pipe, numbers


def test_what_would_change_the_weights_is_refused_in_one_line(base: Any) -> None:
    pipe, _ = base
    with pytest.raises(InputError, match=r"is quantised: nothing can be solved for it; use lora") as uce:
        UCE(preserve_words=8, context_words=4)(pipe, unsee.Concept("church"))
    with pytest.raises(InputError, match="or use lora") as esd:
        unsee.Hybrid(**QUICK)(pipe, unsee.Concept("church"))
    assert not any("\n" in str(error.value) for error in (uce, esd))


def test_adapters_learn_beside_it_and_their_edit_is_what_adding_to_the_weights_would_be(
    base: Any, tmp_path: Any
) -> None:
    pipe, numbers = base
    first = unsee.Hybrid(**QUICK).weights(pipe.unet)
    assert all(type(weight) is not nn.Parameter or weight.dtype == torch.uint8 for weight in first.values())
    edit = LoRA(**QUICK, rank=2)(pipe, unsee.Concept("church"))
    assert edit.card.curve[-1][1] < edit.card.curve[0][1]
    edit = unsee.Edit.load(edit.save(tmp_path / "edit.safetensors"))
    call, scale = conditions(pipe, ["church"]), 100.0
    with edit.applied(pipe, scale), torch.no_grad():
        beside = replay(pipe.unet, call)
    plain: Any = unsee.load("tiny").unet
    with torch.no_grad():
        assert torch.equal(replay(pipe.unet, call), call.output)
        with edit.applied(pipe, 0.0):
            assert torch.equal(replay(pipe.unet, call), call.output)
        for name, layer in pipe.unet.named_modules():
            if isinstance(layer, nn.Linear) and type(layer.weight) is not nn.Parameter:
                weight = plain.get_submodule(name).weight
                weight.copy_(numbers(layer).reshape(weight.shape))
                if delta := edit.deltas.get(f"unet.{name}.weight"):
                    assert isinstance(delta, LowRank)
                    weight.add_(delta.dense(weight.shape), alpha=scale)
        expected = replay(plain, call)
    assert (expected - call.output).abs().max() > 1e-3
    torch.testing.assert_close(beside, expected, atol=1e-4, rtol=1e-3)


def test_a_gguf_file_is_refused_in_one_line(tmp_path: Any) -> None:
    file = tmp_path / "flux.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"holds a denoiser alone.*GGUFQuantizationConfig") as error:
        unsee.load(str(file))
    assert "\n" not in str(error.value)
