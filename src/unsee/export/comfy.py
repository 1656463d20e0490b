"""The names under which ComfyUI, A1111 and Forge look for differences of weights: .diff and .diff_b.

Read from comfy/lora.py (`load_lora`, `model_lora_keys_unet`) and comfy/utils.py (`..._to_diffusers`) of ComfyUI, and
from networks.py, network_full.py and network.py in extensions-builtin/Lora of A1111, as of November 2026.

UNets         lora_unet_LAYER, dots as underscores. A1111 refuses a file in which a layer has .diff_b and no .diff, and
              hides one that is not marked as made for the version of Stable Diffusion in use.
transformers  transformer.LAYER of diffusers, where ComfyUI knows the layer. In its own models queries, keys and values
              are often one layer. There .diff finds its rows, but .diff_b is dropped without a word. Such a bias is
              written whole, under ComfyUI's own name of it, where it takes .diff.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unsee.errors import InputError

UNET = {"conv_norm_out": "out_0", "add_embedding.linear_1": "label_emb_0_0", "add_embedding.linear_2": "label_emb_0_2"}
"""Layers that A1111 finds only under their first names. ComfyUI knows both."""

_JOINT = r"attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out|norm_(added_)?[qk])|norm1\.linear"
_FLUX = (
    rf"transformer_blocks\.\d+\.({_JOINT}|norm1_context\.linear|ff(_context)?\.(net\.(0\.proj|2)|linear_(in|out)))"
    r"|single_transformer_blocks\.\d+\.(attn\.(to_[qkv]|norm_[qk]|to_qkv_mlp_proj|to_out)|proj_mlp|proj_out|norm\.linear)"
    r"|time_text_embed\.(timestep|text|guidance)_embedder\.linear_[12]|(x|context)_embedder|proj_out"
)
LAYERS = {
    "SD3Transformer2DModel": (
        rf"transformer_blocks\.\d+\.({_JOINT}|attn2\.(to_[qkv]|to_out\.0|norm_[qk])|ff(_context)?\.net\.(0\.proj|2))"
        r"|time_text_embed\.(timestep|text)_embedder\.linear_[12]|context_embedder|pos_embed\.proj|proj_out"
    ),
    "FluxTransformer2DModel": _FLUX,
    "Flux2Transformer2DModel": _FLUX,
    "ChromaTransformer2DModel": _FLUX,
    "QwenImageTransformer2DModel": r".+",
    "ZImageTransformer2DModel": (
        r"(layers|context_refiner|noise_refiner)\.\d+\.(attention\.(to_[qkv]|norm_[qk]|to_out\.0)|attention_norm[12]"
        r"|feed_forward\.w[123]|ffn_norm[12]|adaLN_modulation\.0)|cap_embedder\.[01]|t_embedder\.mlp\.[02]"
        r"|all_x_embedder\.2-1|all_final_layer\.2-1\.(linear|adaLN_modulation\.1)"
    ),
    "PixArtTransformer2DModel": (
        r"transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))|pos_embed\.proj|proj_out"
        r"|caption_projection\.linear_[12]|adaln_single\.(linear|emb\.\w+\.linear_[12])"
    ),
    "Krea2Transformer2DModel": (
        r"(transformer_blocks|text_fusion\.(layerwise|refiner)_blocks)\.\d+\.(attn\.(to_[qkv]|to_gate|to_out\.0)"
        r"|ff\.(gate|up|down))|img_in|time_embed\.linear_[12]|time_mod_proj|txt_in\.linear_[12]|text_fusion\.projector"
        r"|final_layer\.linear"
    ),
}
"""By diffusers' class, the layers that ComfyUI finds under diffusers' names."""

_IMAGE = tuple(f"transformer_blocks.{{}}.attn.to_{part}" for part in "qkv")
_TEXT = tuple(f"transformer_blocks.{{}}.attn.add_{part}_proj" for part in "qkv")
_SINGLE = (*(f"single_{name}" for name in _IMAGE), "single_transformer_blocks.{}.proj_mlp")
_DOUBLE = {
    "double_blocks.{}.img_attn.qkv": _IMAGE,
    "double_blocks.{}.txt_attn.qkv": _TEXT,
    "single_blocks.{}.linear1": _SINGLE,
}
FUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "SD3Transformer2DModel": {
        "joint_blocks.{}.x_block.attn.qkv": _IMAGE,
        "joint_blocks.{}.context_block.attn.qkv": _TEXT,
        "joint_blocks.{}.x_block.attn2.qkv": tuple(name.replace("attn", "attn2") for name in _IMAGE),
    },
    "FluxTransformer2DModel": _DOUBLE,
    "ChromaTransformer2DModel": _DOUBLE,
    "PixArtTransformer2DModel": {
        "blocks.{}.attn.qkv": tuple(name.replace("attn", "attn1") for name in _IMAGE),
        "blocks.{}.cross_attn.kv_linear": tuple(name.replace("attn", "attn2") for name in _IMAGE[1:]),
    },
}
"""By diffusers' class: ComfyUI's layers that are several of diffusers', in their order. Others have no biases there."""


@dataclass(frozen=True)
class Place:
    """Where a file holds a difference: in a tensor of `rows` rows from `start` on; `rows` None is the tensor itself."""

    key: str
    start: int = 0
    rows: int | None = None


def reads(net: nn.Module) -> bool:
    """Whether ComfyUI finds layers of this transformer under diffusers' names."""
    return type(net).__name__ in LAYERS


def place(key: str, net: nn.Module, name: str) -> Place | None:
    """Where the difference of parameter `name` of a denoiser called `key` goes; None if ComfyUI has no place for it."""
    layer, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    mark = "diff" if kind == "weight" else "diff_b"
    if key == "unet":
        return Place(f"lora_unet_{UNET.get(layer, layer).replace('.', '_')}.{mark}")
    if not re.fullmatch(LAYERS.get(type(net).__name__, ""), layer):
        return None
    if kind == "bias":
        number = "".join(re.findall(r"\.(\d+)\.", layer)[:1])
        for own, parts in FUSED.get(type(net).__name__, {}).items():
            layers = [part.format(number) for part in parts]
            if layer in layers:
                sizes = [net.get_parameter(f"{part}.bias").shape[0] for part in layers]
                before = sum(sizes[: layers.index(layer)])
                return Place(f"diffusion_model.{own.format(number)}.bias.diff", before, sum(sizes))
    return Place(f"{key}.{layer}.{mark}")


def pack(key: str, net: nn.Module, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file that holds `deltas`, differences by parameter. Raises InputError if one has no place."""
    tensors: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        spot = place(key, net, name)
        if spot is None:
            raise InputError(f"ComfyUI has no key for {name!r} of {type(net).__name__}: export to pipeline or delta")
        if spot.rows is None:
            tensors[spot.key] = delta
        else:
            whole = tensors.setdefault(spot.key, delta.new_zeros(spot.rows))
            whole[spot.start : spot.start + len(delta)] = delta
    if key == "unet":
        for name, delta in deltas.items():
            weight = name.removesuffix("bias") + "weight"
            if name.endswith(".bias") and weight not in deltas:
                spot = place(key, net, weight)
                assert spot
                tensors[spot.key] = torch.zeros_like(net.get_parameter(weight), dtype=delta.dtype)
    return tensors


def unpack(key: str, net: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The differences by parameter that a file holds, and its keys that belong to one.

    Raises InputError if one that stands for several layers has not their size; other shapes are as they come.
    """
    deltas: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, parameter in net.named_parameters():
        spot = place(key, net, name)
        if spot is None or spot.key not in tensors:
            continue
        used.add(spot.key)
        delta = tensors[spot.key]
        if spot.rows is not None:
            if delta.shape != (spot.rows,):
                raise InputError(f"{spot.key!r} has shape {tuple(delta.shape)}; here it would be ({spot.rows},)")
            delta = delta[spot.start : spot.start + len(parameter)]
        if delta.any():
            deltas[name] = delta
    return deltas, used


def version(net: Any) -> dict[str, str]:
    """kohya's metadata by which A1111 tells LoRAs of Stable Diffusion 1, 2 and XL apart (network.py)."""
    if net.config.get("addition_embed_type") == "text_time":
        return {"ss_base_model_version": "sdxl_base_v1-0"}
    if net.config.get("cross_attention_dim") == 1024:
        return {"ss_base_model_version": "sd_v2", "ss_v2": "True"}
    return {"ss_base_model_version": "sd_v1"} if net.config.get("cross_attention_dim") == 768 else {}
