"""Every family in small: pipelines of diffusers with random weights, built offline in about a second each.

    pipe = zoo.build("flux-dev")

A build is the same bits every time. Layers that start at zero get random weights too: with them at zero a prompt says
nothing, and every target would be met before the first update. `ZOO` is the table of all families.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import diffusers as d
import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from unsee.methods.prompts import NEUTRAL, TEMPLATES
from unsee.models.model import Model, remembered

FULL = os.environ.get("UNSEE_FULL") == "1"
"""Whether every method is tried on every family, and not each on some (minutes more)."""
WIDTH = 32
"""Channels of every text encoder and denoiser."""
VOCABULARY = 1000


@cache
def _bpe() -> str:
    """One byte-level tokenizer for all text encoders, as JSON. It has a token of its own for each everyday word."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    # Pipelines wrap prompts in instructions; known words keep these short, so that the prompt is not cut off.
    chat = "You are an assistant designed to generate superior images with the superior degree of image-text alignment "
    chat += "based on textual prompts or user prompts. system Describe the image by detailing the color, shape, size, "
    chat += "texture, quantity, text, spatial relationships of the objects and background:"
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<bos>", "<unk>", "<eos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([way.format(word) for way in TEMPLATES for word in NEUTRAL] + [chat] * 9, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 3)]
    )
    return str(bpe.to_str())


def _tokenizer(length: int = 512) -> Any:
    marks = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "unk", "eos")}
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_bpe()), model_max_length=length, **marks)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


_HEADS = {"num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT = {**_HEADS, "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": WIDTH}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "head_dim": 16}
_SIGHT = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _clip(kind: Any = t.CLIPTextModel, length: int = 16) -> Any:
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    return kind(t.CLIPTextConfig(**_TEXT, **marks, projection_dim=WIDTH, max_position_embeddings=length))


def _t5(width: int = WIDTH) -> Any:
    size = {"d_model": width, "d_kv": 16, "d_ff": width, "num_layers": 2, "num_heads": 2}
    return t.T5EncoderModel(t.T5Config(vocab_size=VOCABULARY, **size))


def _vae(channels: int = 4, blocks: int = 1, **options: Any) -> Any:
    """An autoencoder that makes pictures smaller by 2 for each block after the first."""
    return d.AutoencoderKL(
        latent_channels=channels,
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        norm_num_groups=1,
        **{"shift_factor": 0.0, **options},
    )


def _qwen_vae() -> Any:
    latents = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    return d.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False], **latents
    )


def _unet(width: int = WIDTH, **options: Any) -> Any:
    return d.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, WIDTH),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        norm_num_groups=4,
        attention_head_dim=4,
        **options,
    )


def _sd(prediction: str = "epsilon") -> Any:
    return d.StableDiffusionPipeline(
        unet=_unet(),
        scheduler=d.DDIMScheduler(**_NOISE, prediction_type=prediction),
        vae=_vae(blocks=2, shift_factor=None),
        text_encoder=_clip(),
        tokenizer=_tokenizer(16),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    return d.StableDiffusionXLPipeline(
        unet=_unet(
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            transformer_layers_per_block=(1, 2),
        ),
        scheduler=d.EulerDiscreteScheduler(**_NOISE),
        vae=_vae(blocks=2, shift_factor=None),
        text_encoder=_clip(),
        text_encoder_2=_clip(t.CLIPTextModelWithProjection),
        tokenizer=_tokenizer(16),
        tokenizer_2=_tokenizer(16),
    )


_SHAPE = {"attention_head_dim": 16, "num_attention_heads": 2, "num_layers": 2}
_ROPE = {"axes_dims_rope": (4, 4, 8)}


def _flow(**options: Any) -> Any:
    return d.FlowMatchEulerDiscreteScheduler(**options)


def _sd3() -> Any:
    return d.StableDiffusion3Pipeline(
        transformer=d.SD3Transformer2DModel(
            **_SHAPE,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            caption_projection_dim=WIDTH,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=8,
        ),
        scheduler=_flow(shift=3.0),
        vae=_vae(),
        text_encoder=_clip(t.CLIPTextModelWithProjection),
        text_encoder_2=_clip(t.CLIPTextModelWithProjection),
        text_encoder_3=_t5(2 * WIDTH),
        tokenizer=_tokenizer(16),
        tokenizer_2=_tokenizer(16),
        tokenizer_3=_tokenizer(),
    )


def _flux(guidance_embeds: bool) -> Any:
    return d.FluxPipeline(
        transformer=d.FluxTransformer2DModel(
            **{**_SHAPE, "num_layers": 1},
            **_ROPE,
            num_single_layers=1,
            in_channels=16,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guidance_embeds,
        ),
        scheduler=_flow(),
        vae=_vae(),
        text_encoder=_clip(),
        text_encoder_2=_t5(),
        tokenizer=_tokenizer(16),
        tokenizer_2=_tokenizer(),
    )


def _chroma() -> Any:
    return d.ChromaPipeline(
        transformer=d.ChromaTransformer2DModel(
            **{**_SHAPE, "num_layers": 1},
            **_ROPE,
            num_single_layers=1,
            in_channels=16,
            joint_attention_dim=WIDTH,
            approximator_hidden_dim=WIDTH,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
        scheduler=_flow(),
        vae=_vae(),
        text_encoder=_t5(),
        tokenizer=_tokenizer(),
    )


def _flux2_klein(is_distilled: bool = False) -> Any:
    return d.Flux2KleinPipeline(
        transformer=d.Flux2Transformer2DModel(
            **{**_SHAPE, "num_layers": 1},
            num_single_layers=1,
            in_channels=16,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=_flow(),
        vae=d.AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(8,),
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            norm_num_groups=1,
        ),
        text_encoder=t.Qwen3ForCausalLM(t.Qwen3Config(**_GROUPED)),
        tokenizer=_tokenizer(),
        is_distilled=is_distilled,
    )


def _qwen_image() -> Any:
    rope = {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"}
    language = {**_TEXT, "num_key_value_heads": 2, "rope_scaling": rope}
    return d.QwenImagePipeline(
        transformer=d.QwenImageTransformer2DModel(
            **_SHAPE, in_channels=16, out_channels=4, joint_attention_dim=WIDTH, axes_dims_rope=(8, 4, 4)
        ),
        scheduler=_flow(),
        vae=_qwen_vae(),
        text_encoder=t.Qwen2_5_VLForConditionalGeneration(
            t.Qwen2_5_VLConfig(text_config=language, vision_config=_SIGHT)
        ),
        tokenizer=_tokenizer(),
    )


def _z_image() -> Any:
    return d.ZImagePipeline(
        transformer=d.ZImageTransformer2DModel(
            in_channels=4,
            dim=WIDTH,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=WIDTH,
            axes_dims=[4, 4, 8],
            axes_lens=[256, 32, 32],
        ),
        scheduler=_flow(),
        vae=_vae(),
        text_encoder=t.Qwen3Model(t.Qwen3Config(**_GROUPED)),
        tokenizer=_tokenizer(),
    )


def _gemma() -> Any:
    return t.Gemma2Model(t.Gemma2Config(**_GROUPED))


def _sana() -> Any:
    return d.SanaPipeline(
        transformer=d.SanaTransformer2DModel(
            **_SHAPE,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=16,
            cross_attention_dim=WIDTH,
            caption_channels=WIDTH,
        ),
        scheduler=_flow(shift=3.0),
        vae=d.AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
        ),
        text_encoder=_gemma(),
        tokenizer=_tokenizer(),
    )


def _pixart() -> Any:
    return d.PixArtSigmaPipeline(
        transformer=d.PixArtTransformer2DModel(
            **_SHAPE,
            sample_size=8,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=WIDTH,
            caption_channels=WIDTH,
            use_additional_conditions=False,
        ),
        scheduler=d.DDIMScheduler(),
        vae=_vae(shift_factor=None),
        text_encoder=_t5(),
        tokenizer=_tokenizer(),
    )


def _lumina2() -> Any:
    return d.Lumina2Pipeline(
        transformer=d.Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=WIDTH,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=2,
            multiple_of=WIDTH,
            axes_dim_rope=(4, 4, 8),
            cap_feat_dim=WIDTH,
        ),
        scheduler=_flow(),
        vae=_vae(),
        text_encoder=_gemma(),
        tokenizer=_tokenizer(),
    )


def _wan(denoisers: int = 1) -> Any:
    def transformer() -> Any:
        return d.WanTransformer3DModel(
            **_SHAPE, in_channels=4, out_channels=4, text_dim=WIDTH, ffn_dim=WIDTH, rope_max_seq_len=32
        )

    return d.WanPipeline(
        transformer=transformer(),
        transformer_2=transformer() if denoisers == 2 else None,
        boundary_ratio=0.5 if denoisers == 2 else None,
        scheduler=_flow(shift=3.0),
        vae=d.AutoencoderKLWan(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=_t5(),
        tokenizer=_tokenizer(),
    )


def _krea2() -> Any:
    return d.Krea2Pipeline(
        transformer=d.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=WIDTH,
            timestep_embed_dim=8,
            text_hidden_dim=WIDTH,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=WIDTH,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(8, 4, 4),
        ),
        scheduler=_flow(use_dynamic_shifting=True),
        vae=_qwen_vae(),
        text_encoder=t.Qwen3VLModel(t.Qwen3VLConfig(text_config=_GROUPED, vision_config=_SIGHT)),
        tokenizer=_tokenizer(),
        text_encoder_select_layers=(1, 2),
    )


def _cogview3() -> Any:
    return d.CogView3PlusPipeline(
        transformer=d.CogView3PlusTransformer2DModel(
            **_SHAPE,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            text_embed_dim=WIDTH,
            time_embed_dim=WIDTH,
            condition_dim=8,
            pos_embed_max_size=16,
        ),
        scheduler=d.CogVideoXDDIMScheduler(prediction_type="v_prediction"),
        vae=_vae(shift_factor=None),
        text_encoder=_t5(),
        tokenizer=_tokenizer(),
    )


Family = tuple[Callable[[], Any], dict[str, Any]]
"""How to build a pipeline, and the options of its call that keep it small."""

ZOO: dict[str, Family] = {
    "sd": (_sd, {}),
    "sd-v": (partial(_sd, "v_prediction"), {}),
    "sdxl": (_sdxl, {}),
    "sd3": (_sd3, {"max_sequence_length": 16}),
    "flux-dev": (partial(_flux, True), {"height": 8, "width": 8, "max_sequence_length": 16}),
    "flux-schnell": (partial(_flux, False), {"height": 8, "width": 8, "max_sequence_length": 16}),
    "chroma": (_chroma, {"height": 8, "width": 8, "max_sequence_length": 16}),
    "flux2-klein": (
        _flux2_klein,
        {"height": 8, "width": 8, "max_sequence_length": 24, "text_encoder_out_layers": (1,)},
    ),
    "qwen-image": (_qwen_image, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "z-image": (_z_image, {"height": 16, "width": 16, "max_sequence_length": 24}),
    "sana": (
        _sana,
        {
            "height": 32,
            "width": 32,
            "max_sequence_length": 16,
            "use_resolution_binning": False,
            "complex_human_instruction": ["Describe the image:"],
        },
    ),
    "pixart-sigma": (
        _pixart,
        {"max_sequence_length": 16, "use_resolution_binning": False, "clean_caption": False},
    ),
    "lumina2": (_lumina2, {"height": 64, "width": 64, "max_sequence_length": 64}),
    "wan": (_wan, {"height": 64, "width": 64, "num_frames": 1, "max_sequence_length": 16}),
    "wan-2.2": (partial(_wan, 2), {"height": 64, "width": 64, "num_frames": 1, "max_sequence_length": 16}),
    "cogview3": (_cogview3, {"height": 8, "width": 8, "max_sequence_length": 16}),
    "krea2": (_krea2, {"height": 16, "width": 16, "max_sequence_length": 32}),
}
"""Families of which everything is tested."""


def build(family: str) -> Any:
    """A pipeline of a family of ZOO, frozen and in eval mode."""
    return made(*ZOO[family])


def made(make: Callable[[], Any], options: dict[str, Any]) -> Any:
    """A pipeline as `make` builds it, the same every time, frozen and in eval mode; its Model has the call options."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = make()
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
                for weight in part.parameters():
                    weight += 0.1 * torch.randn_like(weight)
    pipe.set_progress_bar_config(disable=True)
    return remembered(Model(pipe, call=options)).pipe
