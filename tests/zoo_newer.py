"""Families in small whose processors come from the hub: another one stands in the place of each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers as d
import torch
import transformers as t
from zoo import _GROUPED, _SHAPE, _SIGHT, WIDTH, Family, _flow, _qwen_vae, _t5, _tokenizer
from zoo_parts import Processor, qwen_vl


def _flux2_vae() -> Any:
    return d.AutoencoderKLFlux2(
        latent_channels=4, block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",), norm_num_groups=1,
    )  # fmt: skip


def _flux2() -> Any:
    pipe = d.Flux2Pipeline(
        transformer=d.Flux2Transformer2DModel(
            **{**_SHAPE, "num_layers": 1}, num_single_layers=1, in_channels=16, joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 4, 4), guidance_embeds=True,
        ),
        scheduler=_flow(), vae=_flux2_vae(), text_encoder=t.MistralForCausalLM(t.MistralConfig(**_GROUPED)),
        tokenizer=_tokenizer(),
    )  # fmt: skip
    pipe.system_message = ""
    return pipe


def _ernie() -> Any:
    return d.ErnieImagePipeline(
        transformer=d.ErnieImageTransformer2DModel(
            hidden_size=WIDTH, num_attention_heads=2, num_layers=2, ffn_hidden_size=WIDTH, in_channels=16,
            out_channels=16, text_in_dim=2 * WIDTH, rope_axes_dim=(4, 4, 8),
        ),
        scheduler=_flow(), vae=_flux2_vae(), tokenizer=_tokenizer(),
        text_encoder=t.MistralModel(t.MistralConfig(**{**_GROUPED, "hidden_size": 2 * WIDTH})),
    )  # fmt: skip


def _kandinsky3() -> Any:
    return d.Kandinsky3Pipeline(
        unet=d.Kandinsky3UNet(
            time_embedding_dim=WIDTH, groups=1, attention_head_dim=4, layers_per_block=2, block_out_channels=(8,) * 4,
            cross_attention_dim=WIDTH, encoder_hid_dim=WIDTH,
        ),
        scheduler=d.DDPMScheduler(clip_sample=False), text_encoder=_t5(), tokenizer=_tokenizer(),
        movq=d.VQModel(block_out_channels=(8,), latent_channels=4, norm_num_groups=1, num_vq_embeddings=8),
    )  # fmt: skip


def _qwen3_vl() -> Any:
    return t.Qwen3VLForConditionalGeneration(t.Qwen3VLConfig(text_config=_GROUPED, vision_config=_SIGHT))


def _ideogram4() -> Any:
    def transformer() -> Any:
        return d.Ideogram4Transformer2DModel(
            in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2, intermediate_size=WIDTH,
            adaln_dim=8, llm_features_dim=13 * WIDTH, mrope_section=(4, 2, 2),
        )  # fmt: skip

    return d.Ideogram4Pipeline(
        scheduler=_flow(), vae=_flux2_vae(), tokenizer=_tokenizer(), transformer=transformer(),
        unconditional_transformer=transformer(),
        text_encoder=t.Qwen3VLModel(
            t.Qwen3VLConfig(text_config={**_GROUPED, "num_hidden_layers": 36}, vision_config=_SIGHT)
        ),
    )  # fmt: skip


def _prx() -> Any:
    pipe = d.PRXPipeline(
        transformer=d.PRXTransformer2DModel(
            in_channels=4, context_in_dim=WIDTH, hidden_size=WIDTH, mlp_ratio=1.0, num_heads=2, depth=2, axes_dim=[8, 8]
        ),
        scheduler=_flow(), text_encoder=_t5(), tokenizer=_tokenizer(16),
        vae=d.AutoencoderKL(
            latent_channels=4, block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",), norm_num_groups=1, shift_factor=0.0,
        ),
    )  # fmt: skip
    pipe.text_preprocessor = SimpleNamespace(clean_text=str, basic_clean=str)  # its own needs ftfy
    return pipe


def _nucleus() -> Any:
    pipe = d.NucleusMoEImagePipeline(
        transformer=d.NucleusMoEImageTransformer2DModel(
            **_SHAPE, in_channels=16, out_channels=4, joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
            mlp_ratio=1.0, num_experts=2, moe_intermediate_dim=WIDTH, capacity_factors=2.0,
            dense_moe_strategy="leave_first_block_dense",
        ),
        scheduler=_flow(), vae=_qwen_vae(), text_encoder=_qwen3_vl(), processor=Processor(),
    )  # fmt: skip
    for name, weight in pipe.transformer.named_parameters():
        if name.endswith(("gate_up_proj", "down_proj")):  # left as the memory was
            torch.nn.init.normal_(weight, std=0.1)
    return pipe


def _qwen_image21() -> Any:
    return d.QwenImage21Pipeline(
        transformer=d.QwenImage21Transformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            context_in_dim=WIDTH, mlp_ratio=1, axes_dims_rope=(4, 4, 8),
        ),
        scheduler=_flow(), vae=_qwen_vae(), text_encoder=_qwen3_vl(), processor=Processor(),
    )  # fmt: skip


def _hunyuan_image() -> Any:
    pipe = d.HunyuanImagePipeline(
        transformer=d.HunyuanImageTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
            num_single_layers=1, num_refiner_layers=1, mlp_ratio=1.0, text_embed_dim=WIDTH, text_embed_2_dim=WIDTH,
            rope_axes_dim=(8, 8),
        ),
        scheduler=_flow(), text_encoder=qwen_vl(), tokenizer=_tokenizer(), text_encoder_2=_t5(),
        tokenizer_2=_tokenizer(16),
        vae=d.AutoencoderKLHunyuanImage(
            in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 32), layers_per_block=1,
            spatial_compression_ratio=2, sample_size=8, scaling_factor=1.0,
        ),
    )  # fmt: skip
    pipe.tokenizer_max_length = 16
    return pipe


NEWER: dict[str, Family] = {
    "ernie": (_ernie, {"height": 8, "width": 8}),
    "kandinsky3": (_kandinsky3, {"height": 64, "width": 64}),
    "nucleus": (_nucleus, {"height": 16, "width": 16, "max_sequence_length": 256, "return_index": -1}),
}
"""Families that are erased from."""

OTHERS: dict[str, Family] = {
    "Flux2Pipeline": (_flux2, {"height": 8, "width": 8, "max_sequence_length": 64, "text_encoder_out_layers": (1,)}),
    "HunyuanImagePipeline": (_hunyuan_image, {"height": 16, "width": 16}),
    "Ideogram4Pipeline": (_ideogram4, {"height": 8, "width": 8, "max_sequence_length": 64, "guidance_schedule": None}),
    "PRXPipeline": (_prx, {"height": 8, "width": 8, "use_resolution_binning": False}),
    "QwenImage21Pipeline": (_qwen_image21, {"height": 64, "width": 64}),
}
"""Classes that are refused."""
