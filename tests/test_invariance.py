"""What must not matter does not: an edit is the same function in whatever basis, scale, layout and batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

import unsee
from unsee import Concept, Edit, methods
from unsee.denoising.activations import second_moments
from unsee.denoising.calls import latent_and_time
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import replay
from unsee.edits.edit import LowRank
from unsee.models.denoisers import denoiser
from unsee.models.model import Model, remembered
from unsee.models.weights import text_input_weights

FIT = {"record_steps": 2, "updates": 2, "batch": 2, "runs": 2, "keep_runs": 2, "held_out": 0}
PROMPTS = {"preserve_words": 48, "context_words": 4, "neutral": ("cat", "house"), "templates": ("{}", "a {}")}
QUICK: dict[str, dict[str, Any]] = {
    "uce": PROMPTS,
    "oce": PROMPTS,
    "speed": PROMPTS,
    "hybrid": {**PROMPTS, **FIT},
    "lora": {**PROMPTS, **FIT, "rank": 2},
}
CHURCH = Concept("church")


def copied(pipe: Any) -> Any:
    """A copy of a pipeline, with all that is known of it."""
    return remembered(replace(Model.of(pipe), pipe=deepcopy(pipe))).pipe


def erase(pipe: Any, method: str, **settings: Any) -> Edit:
    return methods.find(method)(**{**QUICK[method], **settings})(pipe, CHURCH)


@torch.no_grad()
def moved(pipe: Any, edit: Edit) -> Tensor:
    """How the edit changes the model's predictions for some prompts."""
    trajectory = record(pipe, ["a church", "a dog in a forest"], seeds=[1, 2], runs=Runs(2))
    net = denoiser(pipe)[1]
    before = torch.cat([step.concept.output for step in trajectory])
    with edit.applied(pipe):
        return torch.cat([replay(net, step.concept) for step in trajectory]) - before


@pytest.fixture(scope="session")
def expected(tiny: Any) -> Callable[[str], Tensor]:
    """How a method's edit changes the predictions of `tiny` as it is, of which others may differ."""
    return cache(lambda method: moved(tiny, erase(tiny, method)))


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / first.norm())


def in_basis(pipe: Any, A: Tensor) -> Any:
    """The same model, whose text encoder writes A x for x; what reads it is turned back."""
    other = copied(pipe)
    A = A.double()
    back = torch.linalg.inv(A)
    norm = other.text_encoder.final_layer_norm
    turn = nn.Linear(len(A), len(A), bias=False)
    turn.weight.data.copy_(A)
    other.text_encoder.final_layer_norm = nn.Sequential(norm, turn.requires_grad_(False))
    for weight in text_input_weights(other.unet).values():
        weight.data.copy_(weight.double() @ back)
    return other


def in_channels(factors: Tensor) -> nn.Module:
    """A layer that multiplies each channel."""
    scale = nn.Linear(len(factors), len(factors), bias=False)
    scale.weight.data.copy_(factors.diag())
    return scale.requires_grad_(False)


def bases(features: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(features, features, generator=rng, dtype=torch.double))[0]
    spread = torch.randn(features, generator=rng, dtype=torch.double).exp()
    loud = torch.ones(features, dtype=torch.double)
    loud[3], loud[features // 3] = 30.0, 25.0
    return {
        "ten times": 10 * torch.eye(features, dtype=torch.double),
        "a tenth": 0.1 * torch.eye(features, dtype=torch.double),
        "each channel another": spread.diag(),
        "two loud channels": loud.diag(),
        "rotated": rotation,
        "all of it": rotation @ (3 * spread).diag(),
    }


@pytest.mark.parametrize("method", QUICK)
def test_the_basis_of_text_features_does_not_matter(tiny: Any, expected: Callable[[str], Tensor], method: str) -> None:
    assert expected(method).norm() > 1
    for name, A in bases(128).items():
        if method == "uce" or name == "all of it":  # which turns, scales all and scales each
            there = in_basis(tiny, A)
            assert apart(expected(method), moved(there, erase(there, method))) < 0.01, name


@pytest.mark.parametrize("method", [*QUICK, "balance"])
def test_a_channel_that_no_layer_hears_is_not_read(tiny: Any, method: str) -> None:
    """Text encoders have dead channels. A billion times their number tells names apart, and fits no float16."""
    there, dead = copied(tiny), 3
    norm, quiet = there.text_encoder.final_layer_norm, torch.ones(128)
    quiet[dead] = 1e-9
    there.text_encoder.final_layer_norm = nn.Sequential(norm, in_channels(quiet))
    edit = methods.find(method)(**QUICK.get(method, PROMPTS))(there, CHURCH)
    for name, weight in text_input_weights(there.unet).items():
        if f"unet.{name}" in edit.deltas:
            delta = edit.deltas[f"unet.{name}"]
            dense = delta.dense(weight.shape) if isinstance(delta, LowRank) else delta
            assert dense[:, dead].abs().max() < 10 * weight.abs().max(), name


@pytest.mark.parametrize("method", QUICK)
def test_how_a_user_holds_the_model_does_not_matter(tiny: Any, expected: Callable[[str], Tensor], method: str) -> None:
    """Not frozen, and its tensors in another memory format."""
    there = copied(tiny)
    there.unet.requires_grad_(True)
    there.text_encoder.requires_grad_(True)
    there.unet.to(memory_format=torch.contiguous_format)
    assert apart(expected(method), moved(there, erase(there, method))) < 0.01


def test_the_number_of_threads_does_not_matter(tiny: Any, expected: Callable[[str], Tensor]) -> None:
    here, before = expected("uce"), torch.get_num_threads()
    torch.set_num_threads(3 - min(before, 2))
    try:
        assert apart(here, moved(tiny, erase(tiny, "uce"))) < 0.01
    finally:
        torch.set_num_threads(before)


def test_the_order_and_the_batch_of_prompts_do_not_matter(tiny: Any) -> None:
    prompts, layers = (
        [f"a {word}" for word in ("church", "dog", "blue castle", "key")],
        list(text_input_weights(tiny.unet)),
    )
    layer = layers[0].removesuffix(".weight")
    first = second_moments(tiny, prompts, [layer])[layer]
    torch.testing.assert_close(
        first, second_moments(tiny, prompts[::-1], [layer], batch=3)[layer], rtol=1e-5, atol=1e-6
    )


def test_the_scale_of_image_features_does_not_matter(tiny: Any) -> None:
    """What a norm puts out is ten times as large, and the layers that read it have a tenth of their weights."""
    there = copied(tiny)
    turned = 0
    for block in there.unet.modules():
        if hasattr(block, "norm1") and hasattr(block, "attn1"):
            for value in (block.norm1.weight, block.norm1.bias):
                value.data *= 10
            for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v):
                layer.weight.data /= 10
            turned += 1
    assert turned
    select = r"transformer_blocks\.\d+\.(norm1|attn1)\."
    one, other = (erase(pipe, "hybrid", select=select, preserve_words=0, context_words=0) for pipe in (tiny, there))
    assert apart(moved(tiny, one), moved(there, other)) < 0.01


# Every family of the zoo ---------------------------------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    method: {**settings, "preserve_words": 16, "context_words": 2, **({"updates": 1} if "updates" in settings else {})}
    for method, settings in QUICK.items()
}


def tried(family: str, among: Sequence[str]) -> list[str]:
    """uce and hybrid on every family; the others, which share their text's reading, one on each of some families."""
    _, _, *others = SMALL
    if family not in among:
        return ["uce", "hybrid"]
    return list(SMALL) if zoo.FULL else ["uce", "hybrid", others[among.index(family) % len(others)]]


FAMILIES = [family for family in zoo.ZOO if family != "wan-2.2"]  # wan-2.2 is two of wan


FUSED = {"krea2"}
"""Its denoiser adds the text as it is to what it makes of the normalised text: no change of a layer undoes a scale."""


NORMED = {"lumina2", "qwen-image", "z-image", "sana", "wan"}
"""Families that normalise the text before a layer reads it: the scale may be another, the basis may not."""


def readers(pipe: Any) -> list[nn.Linear]:
    """The linear layers of a denoiser that read what text encoders wrote, as it is."""
    net = denoiser(pipe)[1]
    call = conditions(pipe, ["a church"])
    latent, _ = latent_and_time(type(net))
    text = {name: value for name, value in call.arguments.items() if name != latent}
    places = {x.data_ptr() for x in tensors(text) if x.is_floating_point()}
    found: dict[nn.Linear, None] = {}

    def listen(layer: nn.Linear, args: Any) -> None:
        if args[0].data_ptr() in places and args[0].ndim > 2:
            found[layer] = None

    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_pre_hook(listen) for layer in layers]
    with torch.no_grad():
        replay(net, call)
    for handle in handles:
        handle.remove()
    return list(found)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in inner for tensor in tensors(one)]


def in_other_words(pipe: Any, A: Tensor) -> Any:
    """The same model, whose text encoders write A x for x; the layers that read it are turned back.

    A  (features, features) of the narrowest encoder. What is wider, or several side by side, is turned piece by piece.
    """
    other, back = copied(pipe), torch.linalg.inv(A)
    for layer in readers(other):
        blocks = layer.weight.data.double().unflatten(-1, (-1, len(A)))
        layer.weight.data.copy_((blocks @ back).flatten(-2))

    def turned(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(turned, value))
        return (
            (value.double().unflatten(-1, (-1, len(A))) @ A.T).flatten(-2).to(value.dtype) if value.ndim > 2 else value
        )

    def write(_: Any, __: Any, output: Any) -> Any:
        for key, value in output.items():
            if key in ("last_hidden_state", "hidden_states"):
                output[key] = turned(value)
        return output

    for name, part in other.components.items():
        if name.startswith("text_encoder") and isinstance(part, nn.Module):
            part.register_forward_hook(write)
    return other


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in FUSED])
def test_how_text_encoders_write_does_not_matter(family: str) -> None:
    """In ten times the size; and in any basis, where nothing normalises the text channel by channel first."""
    here = zoo.build(family)
    basis = 10 * torch.eye(32, dtype=torch.double) if family in NORMED else bases(32)["all of it"]
    there = in_other_words(here, basis)
    first, second = (conditions(pipe, ["a church"]).output for pipe in (here, there))
    assert apart(first, second) < 1e-3
    for method in tried(family, ["sd", "sdxl", "flux-dev"]):
        one, other = (methods.find(method)(**SMALL[method])(pipe, CHURCH) for pipe in (here, there))
        assert apart(moved(here, one), moved(there, other)) < 0.02, method


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_in_16_bits_gives_nearly_the_same_edit(
    tiny: Any, expected: Callable[[str], Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    deepcopy(tiny).to(dtype).save_pretrained(tmp_path)
    there = unsee.load(str(tmp_path), dtype=torch.float32)
    near = 0.01 if dtype == torch.float16 else 0.1  # bfloat16 rounds each weight by up to 0.4 %
    assert apart(expected("uce"), moved(there, erase(there, "uce"))) < near


def padded(family: str, length: int) -> Any:
    return Model.of(zoo.build(family), call={"max_sequence_length": length})


LONGER = {"pixart-sigma": (16, 24), "sana": (16, 24), "lumina2": (64, 80)}
"""Families that pad texts to a length and hide the padding behind a mask: two lengths of one text."""


@pytest.mark.parametrize("family", LONGER)
def test_longer_padding_does_not_matter(family: str) -> None:
    here, there = (padded(family, length) for length in LONGER[family])
    first, second = (conditions(pipe, ["a church"]) for pipe in (here, there))
    assert len({x.shape for x in tensors(first.arguments)} ^ {x.shape for x in tensors(second.arguments)})
    assert apart(first.output, second.output) < 1e-3
    for method in tried(family, list(LONGER)):
        one, other = (methods.find(method)(**SMALL[method])(pipe, CHURCH) for pipe in (here, there))
        assert apart(moved(here, one), moved(there, other)) < 0.02, method
