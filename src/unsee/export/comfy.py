"""The keys under which ComfyUI, A1111 and Forge look for differences of weights: .diff and .diff_b.

transformers  diffusion_model.LAYER.diff of the weight and .diff_b of the bias, under ComfyUI's own name of the layer,
              which every version of it knows. Where one of its layers is several of diffusers' (queries, keys and
              values), the difference is written whole, with zeros for what is not changed.
UNets         lora_unet_LAYER, dots as underscores, as kohya's scripts name it: diffusers' layer in Stable Diffusion 1
              and 2, the first authors' in XL. A1111 refuses a file in which a layer has .diff_b and no .diff, and hides
              one that is not marked as made for the version of Stable Diffusion in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import InputError
from unsee.io.comfy_names import TRANSFORMERS
from unsee.io.original_names import Place, places, turn


def reads(net: nn.Module) -> bool:
    """Whether ComfyUI has this class of denoisers, and its names are known here."""
    return type(net).__name__ in TRANSFORMERS


def layer_key(net: Any, layer: str, tensor: str) -> str:
    """What kohya's scripts call a layer of a UNet, whose tensor ComfyUI calls `tensor`."""
    own = tensor.rpartition(".")[0]
    first = net.config.get("addition_embed_type") == "text_time" or layer == "conv_norm_out"  # which A1111 knows as out
    return f"lora_unet_{(own if first else layer).replace('.', '_')}"


def _spellings(key: str, net: nn.Module, name: str, place: Place) -> list[str]:
    """The keys of a parameter's difference; the first is what is written here, the others are read too."""
    layer, _, end = name.rpartition(".")
    own, _, last = place.tensor.rpartition(".")
    mark = "diff_b" if end == "bias" else "diff"
    generic = f"diffusion_model.{own}.{mark}" if last == end else f"diffusion_model.{place.tensor}.diff"
    also = [f"diffusion_model.{place.tensor}.diff", f"lora_unet_{own.replace('.', '_')}.{mark}"]
    if key == "unet":
        also = [generic, *also, f"lora_unet_{layer.replace('.', '_')}.{mark}"]
        return [f"{layer_key(net, layer, place.tensor)}.{mark}", *also]
    return [generic, *also]


def pack(key: str, net: nn.Module, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file that holds `deltas`, differences by parameter. Raises InputError if one has no place."""
    tensors: dict[str, Tensor] = {}
    known = places(key, net)
    for name, delta in deltas.items():
        if name not in known:
            raise InputError(f"ComfyUI has no key for {name!r} of {type(net).__name__}: export to pipeline or delta")
        place = known[name]
        written = _spellings(key, net, name, place)[0]
        value = turn(delta) if place.turned else delta
        if place.rows is None:
            tensors[written] = value
        else:
            whole = tensors.setdefault(written, value.new_zeros(place.rows, *value.shape[1:]))
            whole[place.start : place.start + len(value)] = value
        weight = name.removesuffix("bias") + "weight"
        if key == "unet" and name.endswith(".bias") and weight not in deltas:
            beside = torch.zeros_like(net.get_parameter(weight), dtype=delta.dtype)
            tensors[_spellings(key, net, weight, known[weight])[0]] = beside
    return tensors


def unpack(key: str, net: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The differences by parameter that a file holds, and its keys that belong to one.

    Raises InputError if one that stands for several layers has not their size; other shapes are as they come.
    """
    deltas: dict[str, Tensor] = {}
    used: set[str] = set()
    parameters = dict(net.named_parameters())
    for name, place in places(key, net).items():
        given = next((one for one in _spellings(key, net, name, place) if one in tensors), None)
        if given is None:
            continue
        used.add(given)
        delta = tensors[given]
        shape = parameters[name].shape
        want = (place.rows or shape[0], *shape[1:])
        if delta.shape != want:
            raise InputError(f"{given!r} has shape {tuple(delta.shape)}; here it would be {want}")
        delta = delta[place.start : place.start + shape[0]]
        if delta.any():
            deltas[name] = turn(delta) if place.turned else delta
    return deltas, used


def version(net: Any) -> dict[str, str]:
    """kohya's metadata by which A1111 distinguishes LoRAs of Stable Diffusion 1, 2 and XL (network.py)."""
    if net.config.get("addition_embed_type") == "text_time":
        return {"ss_base_model_version": "sdxl_base_v1-0"}
    if net.config.get("cross_attention_dim") == 1024:
        return {"ss_base_model_version": "sd_v2", "ss_v2": "True"}
    return {"ss_base_model_version": "sd_v1"} if net.config.get("cross_attention_dim") == 768 else {}
