"""More families in small: each goes once through all of a pipeline's checks (tests/test_families.py).

    pipe = zoo_more.build("auraflow")

Where a part comes from the hub only (a tokenizer of its own, a guardrail), another one stands in its place.
"""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace
from typing import Any

import diffusers as d
import torch
import transformers as t
from diffusers.pipelines.helios import pipeline_helios
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from zoo import (
    _GROUPED,
    _NOISE,
    _SHAPE,
    _TEXT,
    VOCABULARY,
    WIDTH,
    ZOO,
    Family,
    _clip,
    _flow,
    _gemma,
    _t5,
    _tokenizer,
    _unet,
    _vae,
    made,
)
from zoo_chains import SMALL, kandinsky21
from zoo_newer import NEWER
from zoo_parts import Processor, qwen_vl


def _wan_vae() -> Any:
    return d.AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip


def helios(kind: str = "HeliosPipeline", **stages: Any) -> Any:
    if not hasattr(pipeline_helios, "ftfy"):
        pipeline_helios.ftfy = SimpleNamespace(fix_text=str)
    return getattr(d, kind)(
        transformer=d.HeliosTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=WIDTH,
            freq_dim=WIDTH, ffn_dim=WIDTH, num_layers=2, rope_dim=(4, 6, 6),
        ),
        tokenizer=_tokenizer(16), vae=_wan_vae(), scheduler=d.HeliosScheduler(**stages),
        text_encoder=t.UMT5EncoderModel(
            t.UMT5Config(vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=1, num_heads=2)
        ),
    )  # fmt: skip


def _auraflow() -> Any:
    return d.AuraFlowPipeline(
        transformer=d.AuraFlowTransformer2DModel(
            sample_size=8, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=WIDTH, pos_embed_max_size=1024,
        ),
        scheduler=_flow(), vae=_vae(shift_factor=None), text_encoder=_t5(), tokenizer=_tokenizer(),
    )  # fmt: skip


def _cogview4() -> Any:
    return d.CogView4Pipeline(
        transformer=d.CogView4Transformer2DModel(
            **_SHAPE, in_channels=4, out_channels=4, text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4,
            sample_size=8, pos_embed_max_size=16, rope_axes_dim=(8, 8),
        ),
        scheduler=_flow(use_dynamic_shifting=True), vae=_vae(shift_factor=None),
        text_encoder=t.GlmModel(t.GlmConfig(**_GROUPED, pad_token_id=0)), tokenizer=_tokenizer(),
    )  # fmt: skip


def _ltx() -> Any:
    return d.LTXPipeline(
        transformer=d.LTXVideoTransformer3DModel(
            **_SHAPE, in_channels=4, out_channels=4, cross_attention_dim=WIDTH, caption_channels=WIDTH
        ),
        scheduler=_flow(),
        vae=d.AutoencoderKLLTXVideo(
            latent_channels=4, block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, False), patch_size=1,
            decoder_spatio_temporal_scaling=(True, False), decoder_inject_noise=(False, False, False),
            down_block_types=("LTXVideoDownBlock3D",) * 2, downsample_type=("conv", "conv"),
            upsample_residual=(False, False), upsample_factor=(1, 1),
        ),
        text_encoder=_t5(), tokenizer=_tokenizer(),
    )  # fmt: skip


def _ovis() -> Any:
    return d.OvisImagePipeline(
        transformer=d.OvisImageTransformer2DModel(
            in_channels=16, out_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
        ),
        scheduler=_flow(), vae=_vae(), text_encoder=t.Qwen3Model(t.Qwen3Config(**_GROUPED)), tokenizer=_tokenizer(),
    )  # fmt: skip


class _GlmTokenizer:
    """The marks that Kolors reads off its own tokenizer: positions, and padding on the left."""

    def __init__(self) -> None:
        self.tokenizer = _tokenizer()

    def __call__(self, text: Any, **options: Any) -> Any:
        found = self.tokenizer(text, **options)
        if isinstance(found.input_ids, torch.Tensor):
            found["position_ids"] = torch.arange(found.input_ids.shape[1]).expand(found.input_ids.shape)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["tokenizer"], name)


def chatglm() -> Any:
    """The text encoder of Kolors, which answers (tokens, B, features)."""
    size = {"num_layers": 2, "hidden_size": WIDTH, "ffn_hidden_size": WIDTH, "num_attention_heads": 2}
    encoder = ChatGLMModel(
        ChatGLMConfig(
            **size, kv_channels=16, multi_query_attention=True, multi_query_group_num=1, padded_vocab_size=VOCABULARY,
            seq_length=256, add_bias_linear=False, add_qkv_bias=True, rmsnorm=True, original_rope=True,
        )
    ).eval()  # fmt: skip
    for weight in encoder.parameters():  # left as the memory was
        torch.nn.init.normal_(weight, std=0.1)
    return encoder


def _kolors() -> Any:
    return d.KolorsPipeline(
        unet=_unet(
            WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8, encoder_hid_dim=WIDTH,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH, encoder_hid_dim_type="text_proj",
        ),
        scheduler=d.EulerDiscreteScheduler(**_NOISE), vae=_vae(blocks=2, shift_factor=None),
        text_encoder=chatglm(),
        tokenizer=_GlmTokenizer(),
    )  # fmt: skip


def _hunyuandit() -> Any:
    return d.HunyuanDiTPipeline(
        transformer=d.HunyuanDiT2DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, patch_size=2, sample_size=8, hidden_size=WIDTH,
            num_layers=2, cross_attention_dim=WIDTH, cross_attention_dim_t5=WIDTH, pooled_projection_dim=WIDTH,
            text_len=77, text_len_t5=256,
        ),
        scheduler=d.DDPMScheduler(), vae=_vae(shift_factor=None),
        text_encoder=t.BertModel(t.BertConfig(**_TEXT)), tokenizer=_tokenizer(77),
        text_encoder_2=_t5(), tokenizer_2=_tokenizer(256),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _bria() -> Any:
    return d.BriaPipeline(
        transformer=d.BriaTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=[4, 4, 8],
        ),
        scheduler=_flow(), vae=_vae(shift_factor=None), text_encoder=_t5(), tokenizer=_tokenizer(16),
    )  # fmt: skip


class _Guardrail:
    """In the place of Cosmos' own, which comes from the hub: all is well."""

    def to(self, *_: Any) -> _Guardrail:
        return self

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def _cosmos2() -> Any:
    return d.Cosmos2TextToImagePipeline(
        transformer=d.CosmosTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, mlp_ratio=1,
            text_embed_dim=WIDTH, adaln_lora_dim=4, max_size=(4, 32, 32), concat_padding_mask=False,
        ),
        scheduler=_flow(use_karras_sigmas=True), vae=_wan_vae(), text_encoder=_t5(), tokenizer=_tokenizer(),
        safety_checker=_Guardrail(),
    )  # fmt: skip


def _longcat() -> Any:
    pipe = d.LongCatImagePipeline(
        transformer=d.LongCatImageTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=[4, 4, 8],
        ),
        scheduler=_flow(), vae=_vae(16), text_encoder=qwen_vl(), tokenizer=_tokenizer(), text_processor=Processor(),
    )  # fmt: skip
    pipe.tokenizer_max_length = 16
    return pipe


def _fibo() -> Any:
    return d.BriaFiboPipeline(
        transformer=d.BriaFiboTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=2 * WIDTH, text_encoder_dim=WIDTH, axes_dims_rope=[4, 4, 8],
        ),
        scheduler=_flow(), vae=_wan_vae(),
        text_encoder=t.SmolLM3ForCausalLM(t.SmolLM3Config(**{**_GROUPED, "vocab_size": 128_001}, pad_token_id=0)),
        tokenizer=_tokenizer(),
    )  # fmt: skip


def _hidream() -> Any:
    pipe = d.HiDreamImagePipeline(
        transformer=d.HiDreamImageTransformer2DModel(
            patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, caption_channels=[WIDTH, WIDTH], text_emb_dim=2 * WIDTH, num_routed_experts=2,
            num_activated_experts=1, axes_dims_rope=(4, 4, 8), max_resolution=(8, 8), llama_layers=[0, 1],
            force_inference_output=True,
        ),
        scheduler=_flow(), vae=_vae(),
        text_encoder=_clip(t.CLIPTextModelWithProjection), tokenizer=_tokenizer(16),
        text_encoder_2=_clip(t.CLIPTextModelWithProjection), tokenizer_2=_tokenizer(16),
        text_encoder_3=_t5(), tokenizer_3=_tokenizer(),
        text_encoder_4=t.LlamaForCausalLM(t.LlamaConfig(**_GROUPED, pad_token_id=0)), tokenizer_4=_tokenizer(),
    )  # fmt: skip
    pipe.default_sample_size = 4  # every size is scaled to as many places
    return pipe


def _kandinsky5() -> Any:
    return d.Kandinsky5T2IPipeline(
        transformer=d.Kandinsky5Transformer3DModel(
            in_visual_dim=4, out_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=8, patch_size=(1, 2, 2),
            model_dim=WIDTH, ff_dim=WIDTH, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 4, 8),
        ),
        scheduler=_flow(), vae=_vae(), text_encoder=qwen_vl(), tokenizer=Processor(),
        text_encoder_2=_clip(length=77), tokenizer_2=_tokenizer(77),
    )  # fmt: skip


def _lumina() -> Any:
    return d.LuminaPipeline(
        transformer=d.LuminaNextDiT2DModel(
            sample_size=8, patch_size=2, in_channels=4, hidden_size=WIDTH, num_layers=2, num_attention_heads=1,
            num_kv_heads=1, multiple_of=16, cross_attention_dim=WIDTH,
        ),
        scheduler=_flow(), vae=_vae(shift_factor=None), text_encoder=_gemma(), tokenizer=_tokenizer(),
    )  # fmt: skip


def _if() -> Any:
    return d.IFPipeline(
        unet=d.UNet2DConditionModel(
            sample_size=8, in_channels=3, out_channels=6, block_out_channels=(16, WIDTH), layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            addition_embed_type="text", addition_embed_type_num_heads=2, cross_attention_dim=WIDTH,
            encoder_hid_dim=WIDTH, encoder_hid_dim_type="text_proj", attention_head_dim=4, norm_num_groups=4,
            time_embedding_act_fn="gelu", resnet_time_scale_shift="scale_shift", act_fn="gelu",
            class_embed_type=None, cross_attention_norm="group_norm", only_cross_attention=False,
        ),
        scheduler=d.DDPMScheduler(variance_type="learned_range", beta_schedule="squaredcos_cap_v2"),
        text_encoder=_t5(), tokenizer=_tokenizer(), safety_checker=None, feature_extractor=None, watermarker=None,
        requires_safety_checker=False,
    )  # fmt: skip


def of(kind: str, family: str, **others: Any) -> Any:
    """A pipeline of another class, of the parts of a family and others that it takes."""
    parts = {**(ZOO[family][0] if family in ZOO else MORE[family][0])().components, **others}
    taken = inspect.signature(getattr(d, kind).__init__).parameters
    kept = {name: part for name, part in parts.items() if name in taken}
    checks = {"requires_safety_checker": False} if "requires_safety_checker" in taken else {}
    return getattr(d, kind)(**kept, **checks)


def options_of(family: str) -> dict[str, Any]:
    return (ZOO if family in ZOO else MORE)[family][1]


VIDEO = {"height": 32, "width": 32, "num_frames": 1, "max_sequence_length": 16}

MORE: dict[str, Family] = {
    "auraflow": (_auraflow, {"height": 8, "width": 8, "max_sequence_length": 16}),
    "cogview4": (_cogview4, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "ltx": (_ltx, {"height": 32, "width": 32, "num_frames": 1, "max_sequence_length": 16}),
    "ovis": (_ovis, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "kolors": (_kolors, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "hunyuandit": (_hunyuandit, {"height": 16, "width": 16, "use_resolution_binning": False}),
    "bria": (_bria, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "cosmos2": (_cosmos2, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "longcat": (_longcat, {"height": 16, "width": 16, "enable_prompt_rewrite": False}),
    "fibo": (_fibo, {"height": 16, "width": 16, "max_sequence_length": 64}),
    "hidream": (_hidream, {"height": 8, "width": 8, "max_sequence_length": 16}),
    "kandinsky5": (_kandinsky5, {"height": 16, "width": 16, "max_sequence_length": 64}),
    "lumina": (_lumina, {"height": 16, "width": 16, "max_sequence_length": 16}),
    "if": (_if, {"clean_caption": False}),
    "pixart-alpha": (partial(of, "PixArtAlphaPipeline", "pixart-sigma"), options_of("pixart-sigma")),
    "flux-kontext": (partial(of, "FluxKontextPipeline", "flux-dev"), {**options_of("flux-dev"), "max_area": 64}),
    **NEWER,
    "helios": (partial(helios, stages=1, stage_range=[0, 1]), VIDEO),
    "kandinsky2": (kandinsky21, SMALL),
}


def build(name: str) -> Any:
    """A pipeline of MORE, frozen and in eval mode."""
    return made(*MORE[name])
