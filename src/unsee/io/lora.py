"""Adapters from anywhere: their factors, with alpha / rank in them, by the denoiser's own parameters.

Most trainers' files are read here, by the names that layers have (`layers`). Others (xlabs, say), and what is for text
encoders, are handed to diffusers, made safe: it passes a file's metadata to peft, which takes parts of it as regular
expressions, and it misreads (0.42) kohya files in which alpha differs from layer to layer. So neither metadata nor
alphas are passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unsee.errors import InputError
from unsee.io.original_names import Place, places, turn
from unsee.io.safetensors import FLOATS, read_header

UP = re.compile(r"(?P<layer>.+?)(\.lora_up|\.lora_B(\.\w+)?|_lora[12]?\.up|\.lora\.up|\.lora_linear_layer\.up)\.weight")
DOWN = ((".lora_up.", ".lora_down."), (".lora_B.", ".lora_A."), (".up.weight", ".down.weight"))
OTHER = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "lora_mid", ".glora", "lora_B.bias")
"""Marks of adapters that are no product of two factors."""

MOST_SETTINGS = 2**20

NAME = re.compile(r"[A-Za-z0-9_.\-]+")

PREFIX = re.compile(
    r"lora_(unet|transformer)_|lycoris_|(base_model\.model\.|model\.)?(diffusion_model\.|transformer\.|unet\.)?"
)
"""What stands before a denoiser's layer: kohya, musubi, OneTrainer, SimpleTuner; peft, ai-toolkit, diffusers."""

TEXT = re.compile(r"(base_model\.model\.)?(lora_te|text_encoder|text_model|clip_|t5xxl)")
"""What they write before a text encoder's."""


@dataclass(frozen=True)
class Layers:
    """A LoRA as it lies on a denoiser.

    factors  by parameter: up (out, rank) and down (rank, in), with alpha / rank in up
    text     its layers of text encoders
    unknown  its layers that this denoiser has not
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    text: list[str]
    unknown: list[str]


def layers(path: Path, folded: dict[str, Tensor], key: str, net: nn.Module) -> Layers:
    """Find the layers of a LoRA, whose factors `factors` has read, in a denoiser called `key`.

    A layer may be called as in diffusers or as in the first authors' code (`names`), behind any PREFIX, with dots or
    underscores. One that is several of diffusers' (queries, keys and values) is taken apart by rows, which is exact.
    Raises InputError if a layer has another shape here.
    """
    known = _spelled(key, net)
    found = Layers({}, [], [])
    for name, up in folded.items():
        match = UP.fullmatch(name)
        if match is None:
            continue
        layer = match["layer"]
        if TEXT.match(layer):
            found.text.append(layer)
            continue
        down = folded[_counterpart(name)].flatten(1)
        short = PREFIX.sub("", layer, count=1).replace(".processor.", ".").replace(".", "_")
        parts = known.get(short, [])
        if not parts:
            found.unknown.append(layer)
        for parameter, place in parts:
            weight = net.get_parameter(parameter)
            rows = place.rows or len(weight)
            if (len(up), down.shape[1]) != (rows, weight[0].numel()):
                raise InputError(
                    f"{path} does not fit {type(net).__name__}: {layer!r} is ({len(up)}, {down.shape[1]}), here it"
                    f" would be ({rows}, {weight[0].numel()})"
                )
            own = up.flatten(1)[place.start : place.start + len(weight)]
            if own.any():
                found.factors[parameter] = (turn(own) if place.turned else own, down)
    return found


def _spelled(key: str, net: nn.Module) -> dict[str, list[tuple[str, Place]]]:
    """The weights of matrices by all names of their layers, with underscores; of one name, those that lie in it."""
    known: dict[str, list[tuple[str, Place]]] = {}
    owned = places(key, net)
    for layer, part in net.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            continue
        known[layer.replace(".", "_")] = [(f"{layer}.weight", Place(f"{layer}.weight"))]
        if layer.endswith(".to_out.0"):  # which old files of diffusers call to_out
            known[layer.removesuffix(".0").replace(".", "_")] = known[layer.replace(".", "_")]
    for parameter, place in owned.items():
        own = place.tensor.removesuffix(".weight").replace(".", "_")
        layer = parameter.removesuffix(".weight").replace(".", "_")
        if layer in known and own != layer:
            known.setdefault(own, []).append((parameter, place))
    return known


def _counterpart(name: str) -> str:
    for mark, counterpart in DOWN:
        name = name.replace(mark, counterpart)
    return name


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file from anywhere.

    Raises InputError for names that are no names, types that are no numbers, and numbers that are not finite.
    """
    header = read_header(path)
    for name, (dtype, shape) in header.tensors.items():
        if not NAME.fullmatch(name):
            raise InputError(f"{path}: {name[:200]!r} is no name of a weight")
        alpha = name.endswith(".alpha")
        if alpha and math.prod(shape) != 1:
            raise InputError(f"{path} is broken: {name!r} should be one number and has shape {shape}")
        if dtype not in FLOATS and not alpha:
            raise InputError(f"{path}: {name!r} has type {dtype}; weights are {', '.join(FLOATS)}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is broken: {error}") from error
    check_finite(path, tensors)
    return tensors, header.metadata


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    if not tensors or not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise InputError(f"{path} holds nothing usable: its numbers are missing or not finite")


def is_lora(tensors: dict[str, Tensor]) -> bool:
    return any(UP.fullmatch(name) or any(mark in name for mark in OTHER) for name in tensors)


def factors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Tensor]:
    """The factors of a LoRA under their own names, with alpha / rank in the upper ones and no alpha beside them."""
    if foreign := next((name for name in tensors if any(mark in name for mark in OTHER)), None):
        raise InputError(f"{path} is no plain LoRA: it holds {foreign!r}; only products of two factors are read")
    said = _said(path, metadata)
    folded: dict[str, Tensor] = {}
    for name, up in tensors.items():
        found = UP.fullmatch(name)
        if found is None:
            if not name.endswith(".alpha"):
                folded[name] = tensors[name]
            continue
        layer, other = found["layer"], _counterpart(name)
        if other not in tensors or up.ndim < 2 or not 0 < up.shape[1] == tensors[other].shape[0]:
            raise InputError(f"{path} is broken: {name!r} has no counterpart that fits it")
        rank = up.shape[1]
        alpha = float(tensors[f"{layer}.alpha"]) if f"{layer}.alpha" in tensors else _alpha(said, layer, rank)
        folded[name] = up if alpha == rank else (up.float() * (alpha / rank)).to(up.dtype)
    check_finite(path, folded)
    return folded


@contextmanager
def loaded(pipe: Any, path: Path, folded: dict[str, Tensor]) -> Iterator[None]:
    """Within the context a pipeline has an adapter. Raises InputError if it does not fit."""
    if not hasattr(pipe, "load_lora_weights"):
        raise InputError(f"diffusers has no LoRA loader for {type(pipe).__name__}")
    try:
        try:
            pipe.load_lora_weights(folded, use_safetensors=True)
        except (ValueError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
            raise InputError(
                f"{path} does not fit {type(pipe).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
        yield
    finally:
        pipe.unload_lora_weights()


def _said(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What a file's adapter settings say: diffusers' in its metadata, by "component.setting"; peft's in a file beside.

    Names of layers among them are compared as texts, and never obeyed as the patterns that peft takes them for.
    """
    beside = path.with_name("adapter_config.json")
    text = metadata.get("lora_adapter_metadata", "{}")
    if path.stem == "adapter_model" and beside.is_file():
        if beside.stat().st_size > MOST_SETTINGS:
            raise InputError(f"{beside} is larger than {MOST_SETTINGS:,} bytes, which is the most that is read")
        text = beside.read_text(encoding="utf-8", errors="replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is broken: its adapter settings are no JSON") from error
    return said if isinstance(said, dict) else {}


def _alpha(said: dict[str, Any], layer: str, rank: int) -> float:
    """A layer's alpha as an adapter's settings give it; the rank if they do not."""
    component, _, module = layer.partition(".")
    own = f"{component}." if any(key.startswith(f"{component}.") for key in said) else ""
    pattern = said.get(f"{own}alpha_pattern")
    alpha: Any = said.get(f"{own}lora_alpha", rank)
    for place, value in (pattern if isinstance(pattern, dict) else {}).items():
        plain = place.strip("^$").replace("\\.", ".")
        if module == plain or layer.endswith("." + plain):
            alpha = value
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"the adapter's settings give {layer[:200]!r} no usable alpha")
    return alpha * math.sqrt(rank) if said.get(f"{own}use_rslora") else float(alpha)
