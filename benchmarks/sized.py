"""Pipelines of the true sizes of SD 1.4, SDXL and FLUX.1-dev with random weights, or toys of their layout.

Nothing is loaded but the miniature's tokenizer, whose words stand for all. Weights are made where they are used.
"""

import copy
from typing import Any

import diffusers as d
import torch
import transformers as t

from unsee.models.load import load
from unsee.models.model import Model

SD14: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
"""The denoiser of CompVis/stable-diffusion-v1-4."""

SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""The denoiser of stabilityai/stable-diffusion-xl-base-1.0."""

FLUX: dict[str, Any] = {"guidance_embeds": True}
"""The denoiser of black-forest-labs/FLUX.1-dev: the class's own configuration but for the guidance."""

_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _tokenizer(length: int) -> Any:
    found = copy.deepcopy(load("mini").tokenizer)
    found.model_max_length = length
    return found


def _clip(kind: Any, width: int, layers: int, heads: int, toy: bool, **options: Any) -> Any:
    width, layers, heads = (32, 1, 2) if toy else (width, layers, heads)
    marks = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    size = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    if "projection_dim" in options:
        options["projection_dim"] = width
    return kind(t.CLIPTextConfig(vocab_size=49408, num_attention_heads=heads, **size, **marks, **options))


def _vae(toy: bool, **options: Any) -> Any:
    blocks = (16, 16, 16, 16) if toy else (128, 256, 512, 512)
    return d.AutoencoderKL(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if toy else 2,
        norm_num_groups=4 if toy else 32,
        **options,
    )


def _unet(config: dict[str, Any], width: int, toy: bool) -> Any:
    if toy:
        blocks = (16,) * len(config["block_out_channels"])
        small = {"sample_size": 8, "block_out_channels": blocks, "norm_num_groups": 4, "attention_head_dim": 2}
        config = {**config, **small, "layers_per_block": 1, "cross_attention_dim": width}
        if "transformer_layers_per_block" in config:
            config |= {"transformer_layers_per_block": 1, "projection_class_embeddings_input_dim": 6 * 256 + 32}
    return d.UNet2DConditionModel(**config)


def sd14(toy: bool) -> Any:
    return d.StableDiffusionPipeline(
        unet=_unet(SD14, 32, toy),
        scheduler=d.DDIMScheduler(**_NOISE, clip_sample=False),
        vae=_vae(toy, latent_channels=4),
        text_encoder=_clip(t.CLIPTextModel, 768, 12, 12, toy),
        tokenizer=_tokenizer(77),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(toy: bool) -> Any:
    return d.StableDiffusionXLPipeline(
        unet=_unet(SDXL, 64, toy),
        scheduler=d.EulerDiscreteScheduler(**_NOISE),
        vae=_vae(toy, latent_channels=4),
        text_encoder=_clip(t.CLIPTextModel, 768, 12, 12, toy),
        text_encoder_2=_clip(t.CLIPTextModelWithProjection, 1280, 32, 20, toy, projection_dim=1280),
        tokenizer=_tokenizer(77),
        tokenizer_2=_tokenizer(77),
    )


def flux(toy: bool) -> Any:
    small = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    small |= {"joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8)}
    text = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    true = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    return d.FluxPipeline(
        transformer=d.FluxTransformer2DModel(**FLUX, **(small if toy else {})),
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(toy, latent_channels=16, shift_factor=0.1159, scaling_factor=0.3611),
        text_encoder=_clip(t.CLIPTextModel, 768, 12, 12, toy),
        text_encoder_2=t.T5EncoderModel(
            t.T5Config(vocab_size=32128, feed_forward_proj="gated-gelu", **(text if toy else true))
        ),
        tokenizer=_tokenizer(77),
        tokenizer_2=_tokenizer(512),
    )


BUILD = {"SD 1.4": sd14, "SDXL": sdxl, "FLUX.1-dev": flux}


def build(name: str, device: torch.device, toy: bool) -> Model:
    """A model of random weights in bfloat16 (float32 on a CPU), frozen, with its picture's size kept."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        with device:
            torch.manual_seed(0)
            pipe = BUILD[name](toy)
    finally:
        torch.set_default_dtype(before)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if name == "FLUX.1-dev":  # whose own guidance is distilled: recorded runs guide with true_cfg_scale
        side = 32 if toy else 1024
        return Model(pipe, call={"height": side, "width": side})
    return Model(pipe)


def four_bits(net: torch.nn.Module) -> torch.nn.Module:
    """A network whose linear layers have four bits a weight (NF4), by bitsandbytes; layer by layer, where they lie."""
    import bitsandbytes as bnb

    for name, layer in list(net.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            device, dtype = layer.weight.device, layer.weight.dtype
            new = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype,
                quant_type="nf4", compress_statistics=True, device="meta",
            )  # fmt: skip
            new.weight = bnb.nn.Params4bit(
                layer.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True, module=new
            )
            new.bias = layer.bias
            new.support_avx512bf16_for_cpu = False  # its way through bfloat16 takes no layer as narrow as a miniature's
            net.set_submodule(name, new.to(device))
    return net
