"""Which layers of a file other tools ignore, by format and class of denoiser. Each line was found with their code.

docs/files.md says how. A client that is not here takes the whole file, has no such model, or was not run.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

COMFYUI = "ComfyUI 0.8.0"
FORGE = "Forge (June 2025)"
A1111 = "A1111's Lora (November 2025)"
SD_SCRIPTS = "sd-scripts (February 2026)"


class Loses(NamedTuple):
    """In a file of this format, for this class of denoisers, the client ignores the layers that match the pattern."""

    client: str
    to: str
    kind: str
    layers: str


_UNET, _ALL = "UNet2DConditionModel", ".*"
LOSSES = (
    Loses(COMFYUI, "diffusers-lora", _UNET, r".*\.to_([qkv]|out\.0)"),  # which it looks for as .processor.to_
    Loses(FORGE, "diffusers-lora", _UNET, _ALL),  # it drops a file of which it does not know more than 12 keys
    Loses(A1111, "diffusers-lora", _UNET, _ALL),
    Loses(
        COMFYUI,
        "diffusers-lora",
        "Flux2Transformer2DModel",
        r"(double|single)_stream_modulation.*|time_guidance_embed\..*|.*\.ff(_context)?\.linear_(in|out)"
        r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
    ),
    Loses(COMFYUI, "diffusers-lora", "ChromaTransformer2DModel", r"distilled_guidance_layer\..*"),
    Loses(FORGE, "diffusers-lora", "ChromaTransformer2DModel", _ALL),
    Loses(COMFYUI, "diffusers-lora", "Lumina2Transformer2DModel", _ALL),
    Loses(COMFYUI, "diffusers-lora", "WanTransformer3DModel", _ALL),
    Loses(SD_SCRIPTS, "kohya-lora", _UNET, r"conv_(in|out)|(time|add)_embedding\..*"),
)


def partly(to: str, kind: str, layers: Collection[str]) -> list[str]:
    """A line for each client that takes only a part of a file with these layers of a denoiser of class `kind`."""
    lines = []
    for loses in LOSSES:
        if (loses.to, loses.kind) == (to, kind):
            lost = [layer for layer in layers if re.fullmatch(loses.layers, layer)]
            if lost:
                lines.append(share(loses.client, layers, lost))
    return lines


def share(client: str, layers: Collection[str], lost: Collection[str]) -> str:
    """How many layers a client reads, and which it does not."""
    if len(lost) == len(layers):
        return f"{client} reads none of these {len(layers)} layers"
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return f"{client} reads {len(layers) - len(lost)} of {len(layers)} of these layers, not {min(lost)}{more}"
