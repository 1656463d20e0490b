"""Kandinsky 2 in small: two pipelines in a chain, of which the first makes a picture's embedding of the prompt."""

from __future__ import annotations

from typing import Any

import diffusers as d
import transformers as t
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from zoo import VOCABULARY, WIDTH, _clip, _tokenizer

SMALL = {"height": 16, "width": 16, "prior_num_inference_steps": 2}
_LAYERS = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}


def _parts(reads: str) -> dict[str, Any]:
    """Both pipelines' parts but the second one's text encoder, for a U-Net that reads a picture or text and picture."""
    return {
        "unet": d.UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=8, block_out_channels=(8, 8), layers_per_block=1,
            norm_num_groups=1, down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type=reads,
            encoder_hid_dim_type=f"{reads}_proj", encoder_hid_dim=WIDTH, cross_attention_dim=WIDTH,
            attention_head_dim=4, resnet_time_scale_shift="scale_shift",
        ),
        "movq": d.VQModel(
            block_out_channels=(8, 8), latent_channels=4, norm_num_groups=1, num_vq_embeddings=8,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        "prior_prior": d.PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, num_layers=1, embedding_dim=WIDTH, num_embeddings=16
        ),
        "prior_image_encoder": t.CLIPVisionModelWithProjection(
            t.CLIPVisionConfig(**_LAYERS, projection_dim=WIDTH, image_size=8, patch_size=4)
        ),
        "prior_text_encoder": _clip(t.CLIPTextModelWithProjection),
        "prior_tokenizer": _tokenizer(16),
        "prior_scheduler": d.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "prior_image_processor": t.CLIPImageProcessorPil(),
    }  # fmt: skip


def kandinsky21() -> Any:
    sizes = {"transformerDimSize": WIDTH, "imageDimSize": WIDTH, "vocab_size": VOCABULARY}
    return d.KandinskyCombinedPipeline(
        text_encoder=MultilingualCLIP(MCLIPConfig(**_LAYERS, **sizes, max_position_embeddings=130)),
        tokenizer=_tokenizer(77), scheduler=d.DDIMScheduler(clip_sample=False), **_parts("text_image"),
    )  # fmt: skip


def kandinsky22() -> Any:
    return d.KandinskyV22CombinedPipeline(scheduler=d.DDPMScheduler(clip_sample=False), **_parts("image"))
