"""Pictures as latents, with noise: what a denoiser reads while it is trained, and what it should answer.

    z      clean latents of pictures (B, C, H, W)
    e      noise (B, C, H, W)
    t      the time as the denoiser gets it (B,)
    x_t    sqrt(a_t) z + sqrt(1 - a_t) e            answer e, sqrt(a_t) e - sqrt(1 - a_t) z (v), or z
           (1 - s) z + s e    with t = 1000 s       answer e - z, of flow models (Liu et al., arXiv:2209.03003)

Samplers that write x_t in another scale hand it to the denoiser in this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unsee.denoising.calls import Call, latent_and_time
from unsee.denoising.rows import stack
from unsee.errors import Unsupported
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline, kind, raw


def _autoencoder(pipe: Pipeline) -> Any:
    vae = getattr(raw(pipe), "vae", None)
    if vae is None or not hasattr(raw(pipe), "image_processor") or not hasattr(vae.config, "scaling_factor"):
        raise Unsupported(f"{kind(pipe).__name__} has no autoencoder with a scaling factor to encode pictures with")
    return vae


@torch.no_grad()
def encoded(pipe: Pipeline, pictures: Sequence[Image], batch: int = 8) -> Tensor:
    """Clean latents (B, C, H, W) of pictures: the mode of what the autoencoder says, in the denoiser's scale."""
    vae, parts = _autoencoder(pipe), []
    for start in range(0, len(pictures), batch):
        try:
            x = raw(pipe).image_processor.preprocess(list(pictures[start : start + batch]))
        except ValueError as error:
            raise Unsupported(f"{kind(pipe).__name__} cannot encode pictures of this size: {error}") from error
        said = vae.encode(x.to(vae.device, vae.dtype))
        z = said.latent_dist.mode() if hasattr(said, "latent_dist") else said.latent
        parts.append((z - (getattr(vae.config, "shift_factor", None) or 0.0)) * vae.config.scaling_factor)
    return torch.cat(parts)


def amounts(pipe: Pipeline) -> Tensor:
    """a_t of a diffusion model's sampler, for t = 0, 1, ... (T,). Raises Unsupported for a flow model."""
    found: Tensor | None = getattr(pipe.scheduler, "alphas_cumprod", None)
    if found is None:
        raise Unsupported(f"{type(pipe.scheduler).__name__} has no alphas: this needs a diffusion model, not a flow")
    return found


def times(pipe: Pipeline, count: int) -> Tensor:
    """Times of training as the denoiser gets them: `count` ones, evenly spread, the first the least noisy (count,)."""
    total = int(pipe.scheduler.config.num_train_timesteps)
    return (torch.arange(count).double() + 0.5) * total / count


def noised(pipe: Pipeline, z: Tensor, t: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """x_t, and what the denoiser should answer to it, both (B, C, H, W), in the network's own output.

    t  (B,), in the sampler's training steps; whole numbers are taken of diffusion models
    Raises Unsupported for a sampler that is neither of the two kinds at the top of this file.
    """
    config, shape = pipe.scheduler.config, (-1, *[1] * (z.ndim - 1))
    if getattr(pipe.scheduler, "alphas_cumprod", None) is not None:
        a = amounts(pipe).to(z.device)[t.long()].view(shape).to(z)
        x = a.sqrt() * z + (1 - a).sqrt() * e
        answers = {"epsilon": e, "v_prediction": a.sqrt() * e - (1 - a).sqrt() * z, "sample": z}
        if (said := config.get("prediction_type", "epsilon")) in answers:
            return x, answers[said]
    elif "FlowMatch" in type(pipe.scheduler).__name__:
        s = (t / config.num_train_timesteps).view(shape).to(z)
        return (1 - s) * z + s * e, e - z
    raise Unsupported(f"{type(pipe.scheduler).__name__} is not supported: how it adds noise to a picture is not known")


def at(pipe: Pipeline, text: Call, x: Tensor, t: Tensor, answer: Tensor) -> Call:
    """A call of one row as a call of B rows at latents x and times t, with what it should answer."""
    latent, time = latent_and_time(type(denoiser(pipe)[1]))
    many = stack([text] * len(x))
    given = many.arguments[time]
    return replace(many, arguments=many.arguments | {latent: x, time: t.to(given)}, output=answer)


def check_pictures(pipe: Pipeline, text: Call) -> None:
    """Raise Unsupported unless the denoiser reads plain latents (B, C, H, W) and the sampler's own times."""
    latent, time = latent_and_time(type(denoiser(pipe)[1]))
    x, t = text.arguments[latent], text.arguments[time]
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise Unsupported(f"{kind(pipe).__name__} packs its latents: adding noise to pictures is not supported for it")
    most = pipe.scheduler.config.num_train_timesteps
    if not 0.5 < float(t.flatten()[0]) / most <= 1:
        raise Unsupported(
            f"{kind(pipe).__name__} has other timesteps: adding noise to pictures is not supported for it"
        )
