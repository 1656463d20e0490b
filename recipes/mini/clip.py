"""CLIP (Radford et al., 2021): a text encoder and a small ViT that learn to tell which caption is whose.

The text tower, frozen, is then the denoiser's text encoder, as in Stable Diffusion. Without this step the denoiser
has to find out what words mean from its own blurred guesses: joint training had not learned the objects after
twenty minutes, on the frozen tower it knew them after ten.

    x       picture in [-1, 1], (B, 3, 64, 64); a scene, which is twice as wide, is squeezed
    ids     tokens, (B, 24)
    label   equal for pictures that the same captions fit, (B,)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextModel, CLIPTokenizer

from .words import LENGTH

WIDTH = 128


def make(vocabulary: int) -> CLIPModel:
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    tokens = {
        "vocab_size": vocabulary,
        "max_position_embeddings": LENGTH,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return CLIPModel(
        CLIPConfig(
            text_config={**tower, **tokens},
            vision_config={**tower, "image_size": 64, "patch_size": 8},
            projection_dim=WIDTH,
        )
    )


def loss(model: CLIPModel, x: Tensor, ids: Tensor, label: Tensor) -> Tensor:
    """The symmetric cross-entropy over the batch's similarities, its targets shared among equal labels."""
    out = model(input_ids=ids, pixel_values=x)
    same = (label[:, None] == label[None]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(out.logits_per_text, target) + F.cross_entropy(out.logits_per_image, target)) / 2


def squeeze(x: Tensor) -> Tensor:
    """(B, 3, 64, 128) -> (B, 3, 64, 64)"""
    return F.interpolate(x, size=(64, 64), mode="bilinear", antialias=True)


def processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """Resize to 64x64, [0, 255] -> [-1, 1]; a scene is squeezed, never cropped."""
    images = CLIPImageProcessor(
        size={"height": 64, "width": 64}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return CLIPProcessor(images, tokenizer)


def text_encoder(model: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as StableDiffusionPipeline wants it: the same weights."""
    alone = CLIPTextModel(model.config.text_config)
    wanted = alone.state_dict()
    whole = model.state_dict()
    tower = {k: whole[k] if k in whole else whole[f"text_model.{k}"] for k in wanted}
    alone.load_state_dict(tower)
    return alone.eval().requires_grad_(False)  # type: ignore[no-any-return]


@torch.no_grad()
def zero_shot(model: CLIPModel, tokenizer: CLIPTokenizer, x: Tensor, prompts: list[str], size: int = 256) -> Tensor:
    """The index of the prompt that fits each picture best, (B,)."""
    ids = torch.tensor(tokenizer(prompts, padding="max_length").input_ids)
    text = F.normalize(model.get_text_features(ids).pooler_output, dim=1)
    images = [F.normalize(model.get_image_features(b).pooler_output, dim=1) for b in x.split(size)]
    return (torch.cat(images) @ text.T).argmax(1)
