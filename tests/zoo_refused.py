"""Classes that unsee refuses, of the parts of families: each ends in one line (tests/test_families.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers as d
from zoo import WIDTH, ZOO, Family, _unet, made
from zoo_chains import SMALL, kandinsky22
from zoo_more import MORE, VIDEO, helios, of, options_of
from zoo_newer import OTHERS


def _controlled(kind: str, family: str, controlnet: str, **small: Any) -> Any:
    """The same with a ControlNet made of the family's denoiser."""
    parts = ZOO[family][0]().components
    net = getattr(d, controlnet)
    make = net.from_unet if "unet" in parts else net.from_transformer
    return of(kind, family, controlnet=make(parts.get("unet", parts.get("transformer")), **small))


def _z_control(kind: str, channels: int) -> Any:
    size = {"control_in_dim": channels, "dim": WIDTH, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    net = d.ZImageControlNetModel(control_layers_places=[0], **size)
    return of(kind, "z-image", controlnet=net)


def _lcm() -> Any:
    return of("LatentConsistencyModelPipeline", "sd", unet=_unet(time_cond_proj_dim=8), scheduler=d.LCMScheduler())


_QWEN = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}

REFUSED: dict[str, Family] = {
    "LatentConsistencyModelPipeline": (_lcm, {}),
    "StableDiffusionPAGPipeline": (partial(of, "StableDiffusionPAGPipeline", "sd"), {}),
    "StableDiffusionXLPAGPipeline": (partial(of, "StableDiffusionXLPAGPipeline", "sdxl"), {}),
    "StableDiffusion3PAGPipeline": (partial(of, "StableDiffusion3PAGPipeline", "sd3"), options_of("sd3")),
    "SanaPAGPipeline": (
        partial(of, "SanaPAGPipeline", "sana", pag_applied_layers="transformer_blocks.0"),
        options_of("sana"),
    ),
    "PixArtSigmaPAGPipeline": (
        partial(of, "PixArtSigmaPAGPipeline", "pixart-sigma", pag_applied_layers="blocks.0"),
        options_of("pixart-sigma"),
    ),
    "HunyuanDiTPAGPipeline": (
        partial(of, "HunyuanDiTPAGPipeline", "hunyuandit", pag_applied_layers="1"),
        MORE["hunyuandit"][1],
    ),
    **{
        kind: (partial(_controlled, kind, family, net, **small), options_of(family))
        for kind, family, net, small in (
            ("StableDiffusionControlNetPipeline", "sd", "ControlNetModel", {}),
            ("StableDiffusionControlNetPAGPipeline", "sd", "ControlNetModel", {}),
            ("StableDiffusionXLControlNetPipeline", "sdxl", "ControlNetModel", {}),
            ("StableDiffusionXLControlNetPAGPipeline", "sdxl", "ControlNetModel", {}),
            ("StableDiffusionXLControlNetUnionPipeline", "sdxl", "ControlNetUnionModel", {}),
            ("StableDiffusion3ControlNetPipeline", "sd3", "SD3ControlNetModel", {"num_layers": 1}),
            ("QwenImageControlNetPipeline", "qwen-image", "QwenImageControlNetModel", _QWEN),
            (
                "FluxControlNetPipeline",
                "flux-dev",
                "FluxControlNetModel",
                {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2},
            ),
        )
    },
    "FluxControlPipeline": (partial(of, "FluxControlPipeline", "flux-dev"), options_of("flux-dev")),
    "CogView4ControlPipeline": (partial(of, "CogView4ControlPipeline", "cogview4"), MORE["cogview4"][1]),
    **{
        kind: (partial(_z_control, kind, channels), options_of("z-image"))
        for kind, channels in (("ZImageControlNetPipeline", 4), ("ZImageControlNetInpaintPipeline", 9))
    },
    **OTHERS,
    "HeliosPyramidPipeline": (partial(helios, "HeliosPyramidPipeline"), VIDEO),
    "KandinskyV22CombinedPipeline": (kandinsky22, SMALL),
    "ZImageOmniPipeline": (
        partial(of, "ZImageOmniPipeline", "z-image", siglip=None, siglip_processor=None),
        options_of("z-image"),
    ),
}
"""Classes that are refused, of the parts of families."""


def build(name: str) -> Any:
    """A pipeline of REFUSED, frozen and in eval mode."""
    return made(*REFUSED[name])
