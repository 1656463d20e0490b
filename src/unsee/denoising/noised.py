"""Pictures as latents, with noise: what a denoiser reads while it is trained, and what it should answer.

    z      clean latents of pictures (B, C, H, W)
    e      noise (B, C, H, W)
    t      the time of the sampler, in its steps of training (B,)
    x_t    sqrt(a_t) z + sqrt(1 - a_t) e            answer e, sqrt(a_t) e - sqrt(1 - a_t) z (v), or z
           (1 - s) z + s e    with t = 1000 s       answer e - z, of flow models (Liu et al., arXiv:2209.03003)

Samplers that write x_t in another scale hand it to the denoiser in this one. Some denoisers count time in their own
way, AuraFlow from 0 to 1, Lumina 2 backwards: a run tells which (`Clock`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn

from unsee.denoising.calls import Call, latent_and_time
from unsee.denoising.guidance import Enough, at_small_size, run, unguided
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


def levels(pipe: Pipeline, t: Tensor) -> tuple[Tensor, Tensor]:
    """How much of a picture and of noise x_t has: x_t = signal z + noise e; both (B,).

    t  (B,), in the sampler's training steps; whole numbers are taken of diffusion models
    Raises Unsupported for a sampler that is neither of the two kinds at the top of this file.
    """
    scheduler = pipe.scheduler
    if (a := getattr(scheduler, "alphas_cumprod", None)) is not None:
        a = a.to(t.device)[t.long()]
        return a.sqrt(), (1 - a).sqrt()
    if flows(pipe):
        s = t / scheduler.config.num_train_timesteps
        return 1 - s, s
    raise Unsupported(f"{type(scheduler).__name__} is not supported: how it adds noise to a picture is not known")


def _levels(pipe: Pipeline, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The same in the form (B, 1, 1, 1), kind and place of latents."""
    signal, noise = (x.view(-1, *[1] * (like.ndim - 1)).to(like) for x in levels(pipe, t.to(like.device)))
    return signal, noise


def flows(pipe: Pipeline) -> bool:
    """Whether a pipeline's sampler is of a flow, and not of a diffusion."""
    return "FlowMatch" in type(pipe.scheduler).__name__


def predicts(pipe: Pipeline) -> str:
    """What a denoiser answers: "epsilon", "v_prediction", "sample" or "flow". Raises Unsupported for anything else."""
    if flows(pipe):
        return "flow"
    if (said := pipe.scheduler.config.get("prediction_type", "epsilon")) in ("epsilon", "v_prediction", "sample"):
        return str(said)
    raise Unsupported(f"{kind(pipe).__name__} is not supported: what its denoiser predicts, {said!r}, is not known")


def times(pipe: Pipeline, count: int) -> Tensor:
    """Times of training as the sampler counts them: `count` ones, evenly spread, the first the least noisy (count,)."""
    total = int(pipe.scheduler.config.num_train_timesteps)
    return (torch.arange(count).double() + 0.5) * total / count


def noised(pipe: Pipeline, z: Tensor, t: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """x_t, and what the sampler should be told of it, both (B, C, H, W); t as for `levels`."""
    signal, noise = _levels(pipe, t, z)
    answers = {"epsilon": e, "v_prediction": signal * e - noise * z, "sample": z, "flow": e - z}
    return signal * z + noise * e, answers[predicts(pipe)]


def noise_of(pipe: Pipeline, x: Tensor, t: Tensor, answer: Tensor) -> Tensor:
    """The noise e that a diffusion model's answer to x_t tells, all (B, C, H, W): `noised` turned round."""
    signal, noise = _levels(pipe, t, x)
    if predicts(pipe) == "sample":
        return (x - signal * answer) / noise
    return signal * answer + noise * x if predicts(pipe) == "v_prediction" else answer


@dataclass(frozen=True)
class Clock:
    """How a denoiser counts the time of its pipeline's sampler: as scale * t + shift.

    A flow's answer is the velocity along its own time: where that runs backwards (scale < 0), it is z - e.
    """

    net: type[nn.Module]
    scale: float = 1.0
    shift: float = 0.0

    def at(self, text: Call, x: Tensor, t: Tensor, answer: Tensor) -> Call:
        """A call of one row as a call of B rows at latents x and times t, with what the denoiser should answer.

        t, answer  (B,), (B, C, H, W): as the sampler has them, see `noised`
        """
        latent, time = latent_and_time(self.net)
        many = stack([text] * len(x))
        own = (t if self.scale == 1 else self.scale * t.double() + self.shift).to(many.arguments[time])
        return replace(many, arguments=many.arguments | {latent: x, time: own}, output=self.answer(answer))

    def answer(self, said: Tensor) -> Tensor:
        """What the denoiser answers as the sampler has it, or the other way round."""
        return said if self.scale > 0 else -said


def clock(pipe: Pipeline) -> Clock:
    """How a pipeline's denoiser counts time, found out by three steps of a run.

    Raises Unsupported unless it reads plain latents (B, C, H, W), and time in one of the four known ways.
    """
    net, heard = type(denoiser(pipe)[1]), at_small_size(pipe, lambda size: _told(pipe, size))
    total = int(pipe.scheduler.config.num_train_timesteps)
    for scale, shift in ((1.0, 0.0), (1 / total, 0.0), (-1.0, total), (-1 / total, 1.0)):
        near = 0.01 * abs(scale) * total  # a time of 16 bits has two or three digits
        if heard and all(abs(scale * t + shift - own) < near for t, own in heard):
            return Clock(net, scale, shift)
    raise Unsupported(f"{kind(pipe).__name__} has other timesteps: adding noise to pictures is not supported for it")


def _told(pipe: Pipeline, size: dict[str, Any]) -> list[tuple[float, float]]:
    """The sampler's time and the denoiser's, of three steps."""
    latent, time = latent_and_time(type(denoiser(pipe)[1]))
    heard: list[tuple[float, float]] = []

    def listen(arguments: dict[str, Any], _: Tensor) -> None:
        if not isinstance(arguments[latent], Tensor) or arguments[latent].ndim != 4:
            raise Unsupported(
                f"{kind(pipe).__name__} packs its latents: adding noise to pictures is not supported for it"
            )
        now = pipe.scheduler.timesteps[len(heard)]  # of this run: its sampler is as before when it has ended
        heard.append((float(now), float(arguments[time].flatten()[0])))
        if len(heard) == 3:
            raise Enough

    run(pipe, listen, [""], [0], 4, unguided(pipe) | size)
    return heard
