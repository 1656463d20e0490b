"""Adapters from anywhere, made safe to hand to diffusers: every scale in the factors, nothing else left to obey.

diffusers passes a LoRA file's metadata to peft, which takes parts of it as regular expressions; and it misreads (0.42)
kohya files in which alpha differs from layer to layer. So alpha / rank is multiplied into the factors here, and neither
metadata nor alphas are passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unsee.card import FLOATS, read_header
from unsee.errors import InputError

UP = re.compile(r"(?P<layer>.+?)(\.lora_up\.weight|\.lora_B\.weight|_lora\.up\.weight|\.lora\.up\.weight)")
DOWN = {".lora_up.": ".lora_down.", ".lora_B.": ".lora_A.", "lora.up.": "lora.down."}
OTHER = ("hada_", "lokr_", "dora_scale", "lora_magnitude_vector", "lora_mid", ".glora", "lora_B.bias")
"""Marks of adapters that are no product of two factors."""

NAME = re.compile(r"[A-Za-z0-9_.\-]+")


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
        layer = found["layer"]
        other = name
        for mark, counterpart in DOWN.items():
            other = other.replace(mark, counterpart)
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
    """What diffusers' metadata says, by "component.setting"."""
    try:
        said = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is broken: its adapter metadata is no JSON") from error
    return said if isinstance(said, dict) else {}


def _alpha(said: dict[str, Any], layer: str, rank: int) -> float:
    """A layer's alpha as peft's settings give it; the rank if they do not."""
    component, _, module = layer.partition(".")
    pattern = said.get(f"{component}.alpha_pattern")
    alpha: Any = said.get(f"{component}.lora_alpha", rank)
    for place, value in (pattern if isinstance(pattern, dict) else {}).items():
        if module == place.strip("^$") or module.endswith("." + place.strip("^$")):
            alpha = value
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"the adapter's metadata gives {layer[:200]!r} no usable alpha")
    return alpha * math.sqrt(rank) if said.get(f"{component}.use_rslora") else float(alpha)
