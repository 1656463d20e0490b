"""Where the first authors' code, and so ComfyUI and most trainers, have a parameter that diffusers has elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import Tensor, nn

from unsee.io.comfy_names import SHIFT_FIRST, TRANSFORMERS, Names, unet


@dataclass(frozen=True)
class Place:
    """A parameter of diffusers as some rows of a tensor of ComfyUI.

    tensor  ComfyUI's name of the tensor
    start   the first of its rows that are the parameter's
    rows    how many it has in all; None if the parameter is the whole tensor
    turned  whether its first half is the parameter's second
    """

    tensor: str
    start: int = 0
    rows: int | None = None
    turned: bool = False


def places(key: str, net: nn.Module) -> dict[str, Place]:
    """By parameter of a denoiser called `key`: where ComfyUI has it. Those that it has no place for are left out."""
    kind = type(net).__name__
    names: Names = unet(net) if key == "unet" else TRANSFORMERS.get(kind, {})
    turned = {
        f"{name}.linear"
        for name, part in net.named_modules()
        if isinstance(part, AdaLayerNormContinuous) and kind in SHIFT_FIRST
    }
    patterns = [
        (own, parts, re.compile(re.escape(part).replace(r"\{\}", "(.+)")))
        for own, layers in names.items()
        for parts in ((layers,) if isinstance(layers, str) else layers,)
        for part in parts
    ]
    found: dict[str, Place] = {}
    for name, parameter in net.named_parameters():
        layer, _, end = name.rpartition(".")
        if end not in ("weight", "bias"):
            continue
        for own, parts, pattern in patterns:
            if match := pattern.fullmatch(name):
                found[name] = Place(own.format(*match.groups()))
                break
            if match := pattern.fullmatch(layer):
                tensor = f"{own.format(*match.groups())}.{end}"
                layers = [part.format(*match.groups()) for part in parts]
                sizes = [net.get_parameter(f"{part}.{end}").shape[0] for part in layers]
                start = sum(sizes[: layers.index(layer)])
                rows = None if sizes == [parameter.shape[0]] else sum(sizes)
                found[name] = Place(tensor, start, rows, layer in turned)
                break
    return found


def turn(delta: Tensor) -> Tensor:
    """Rows with the second half first. It undoes itself."""
    return torch.cat(delta.chunk(2)[::-1])
