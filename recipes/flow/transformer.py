"""The denoiser: AuraFlow's transformer at seven million parameters, trained by flow matching (Lipman et al., 2023).

    x_t = (1 - t) x + t e,   e ~ N(0, 1),   t = sigmoid(n), n ~ N(0, 1)  (Esser et al., 2024)
    loss  || v(x_t, t, c) - (e - x) ||^2

    x    latent over its deviation, (B, 16, 8, 8); of a scene (B, 16, 8, 16)
    c    MiniLM's last hidden states, (B, 24, 384); those of "" in a tenth of the cases

The n of a batch are one from each of B equal parts of the normal distribution, which makes the loss less noisy.
"""

from __future__ import annotations

import torch
from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from recipes.mini.autoencoder import LATENT

SCALE = 1.0322265625
"""1 / the deviation of the training latents: the autoencoder's scaling_factor here."""


def make(
    joint: int = 3, single: int = 4, heads: int = 4, head: int = 48, text: int = 384
) -> AuraFlowTransformer2DModel:
    return AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=LATENT,
        out_channels=LATENT,
        num_mmdit_layers=joint,
        num_single_dit_layers=single,
        num_attention_heads=heads,
        attention_head_dim=head,
        joint_attention_dim=text,
        caption_projection_dim=heads * head,
        pos_embed_max_size=256,  # 16 x 16, of which a picture takes the middle: a scene is twice as wide
    )


def scheduler(parts: int | None = None) -> FlowMatchEulerDiscreteScheduler:
    """The sampler. Its times fall in equal steps from 1 to 0.001, from where the last step moves next to nothing; with
    `parts`, from 1 to 1 / parts: then so many steps are all of the same length."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0, shift_terminal=1 / parts if parts else None)


def loss(net: AuraFlowTransformer2DModel, x: Tensor, c: Tensor, rng: torch.Generator) -> Tensor:
    e = torch.randn(x.shape, generator=rng).to(x.device)
    part = (torch.arange(len(x)) + torch.rand(len(x), generator=rng)) / len(x)
    t = torch.special.ndtri(part.clamp(1e-5, 1 - 1e-5)).sigmoid().to(x.device)
    at = t[:, None, None, None]
    return (net((1 - at) * x + at * e, c, t).sample - (e - x)).square().mean()
