"""The denoiser: Stable Diffusion's U-Net at six million parameters, trained to name the noise (Ho et al., 2020).

    z_t = a z + s e,   a = sqrt(abar_t),  s = sqrt(1 - abar_t),  e ~ N(0, 1),  t in [0, 1000)
    eps-prediction   || u(z_t, t, c) - e ||^2               weight  min(SNR, 5) / SNR
    v-prediction     || u(z_t, t, c) - (a e - s z) ||^2     weight  min(SNR, 5) / (SNR + 1)

with SNR = a^2 / s^2; the weights are Min-SNR-5 (Hang et al., 2023), v is Salimans and Ho's (2022), as in SD 2.x.

    z    latent, (B, 16, 8, 8); of a scene (B, 16, 8, 16)
    c    the text encoder's last hidden states, (B, 24, 128); those of "" in a tenth of the cases
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from .autoencoder import LATENT
from .clip import WIDTH

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction"}


def make(widths: tuple[int, int] = (64, 128)) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT,
        out_channels=LATENT,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=widths,
        layers_per_block=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # the number of heads: diffusers' name is a known misnomer
        norm_num_groups=16,
    )


def scheduler(prediction: str = "eps") -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=PREDICTIONS[prediction],
    )


def loss(
    unet: UNet2DConditionModel, abar: Tensor, z: Tensor, c: Tensor, prediction: str, rng: torch.Generator
) -> Tensor:
    """abar: the scheduler's alphas_cumprod, (1000,)"""
    t = torch.randint(len(abar), (len(z),), generator=rng)
    e = torch.randn(z.shape, generator=rng).to(z.device)
    ab = abar[t][:, None, None, None].to(z.device)
    snr = ab / (1 - ab)
    z_t = (ab.sqrt() * z + (1 - ab).sqrt() * e).contiguous(memory_format=torch.channels_last)
    if prediction == "v":
        target, weight = ab.sqrt() * e - (1 - ab).sqrt() * z, snr.clamp(max=5) / (snr + 1)
    else:
        target, weight = e, snr.clamp(max=5) / snr
    u = unet(z_t, t.to(z.device), c).sample
    return (weight * (u - target).pow(2)).mean()
