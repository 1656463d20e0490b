r"""TINA: find the noise from which the model draws a given picture without any text, and draw from it.

    z_t = f(z_t),    f(z_t) = sqrt(a_t / a_s) z_s + [sqrt(1 - a_t) - sqrt(a_t (1 - a_s) / a_s)] e_theta(z_t, t, "")

step by step from a picture's latents z_0 up (s is the time before t), a fixed point for each t, then DDIM down from the
last one without a prompt (CVPR 2026). As in the authors' code, e_theta is computed without a gradient: the iteration is
z <- (z + f(z)) / 2, which needs forward passes only.

tina-plus starts at the time t_a = 0.1 T from a noised z_0, and keeps the length of z_t to what noise has there: the
authors add relu(|r_t| - tau)^2 to the loss, with

    r_t = (|z_t|^2 - m_t) / sqrt(v_t),    m_t = a_t |z_0|^2 + (1 - a_t) D,    tau = 10
    v_t = 4 a_t (1 - a_t) |z_0|^2 + 2 (1 - a_t)^2 D

m_t and v_t being mean and variance of |z_t|^2 for z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) e with D numbers. Here z_t is
put at the nearest length at which that term is zero. Inversion is an autoencoder: it finds noise for pictures of things
that no model knows, too. Read this row beside its controls only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unsee.attacks import Attack, Need
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.conditioned import condition
from unsee.denoising.noised import amounts, at, check_pictures, encoded
from unsee.denoising.replay import replay
from unsee.errors import Unsupported
from unsee.models.borrow import borrowed
from unsee.models.denoisers import denoiser

STEPS = 20
FEW = 12
"""The most pictures with a small budget: each needs a search of its own."""
TAU = 10.0


def tamed(z: Tensor, z0: Tensor, a: Tensor) -> Tensor:
    """z (B, ...) at the nearest length for which |r_t| <= TAU; a: a_t, one number."""
    D, power = z0[0].numel(), z0.flatten(1).square().sum(1)
    m, v = a * power + (1 - a) * D, 4 * a * (1 - a) * power + 2 * (1 - a) ** 2 * D
    now = z.flatten(1).square().sum(1)
    wanted = torch.minimum(torch.maximum(now, (m - TAU * v.sqrt()).clamp(min=0)), m + TAU * v.sqrt())
    return z * (wanted / now.clamp(min=1e-12)).sqrt().view(-1, *[1] * (z.ndim - 1))


@torch.no_grad()
def inverted(
    eps: Callable[[Tensor, int], Tensor],
    z: Tensor,
    path: Sequence[tuple[int, Tensor]],
    iterations: int,
    keep: Callable[[Tensor, Tensor], Tensor] = lambda z, a: z,
) -> Tensor:
    """Noise (B, ...) at the end of a path.

    eps   (z_t, t) -> e_theta without a prompt
    z     latents (B, ...) at the path's beginning
    path  times, from the cleanest, each with its a_t; the time of clean latents is any, with a_t = 1
    keep  (z_t, a_t) -> z_t, after each iteration
    """
    for (_, s), (t, a) in pairwise(path):
        start, one, two = z, (a / s).sqrt(), (1 - a).sqrt() - (a * (1 - s) / s).sqrt()
        z = one * start + two * eps(start, t)
        for _ in range(iterations - 1):
            z = keep((z + one * start + two * eps(z, t)) / 2, a)
    return z


def searched(plus: bool) -> Callable[[AttackContext], Iterator[Found]]:
    """TINA, or TINA+."""

    def search(context: AttackContext) -> Iterator[Found]:
        pipe, (_, net) = context.pipe, denoiser(context.pipe)
        if pipe.scheduler.config.get("prediction_type", "epsilon") != "epsilon":
            raise Unsupported("inversion works only on models that predict the noise (epsilon)")
        text = condition(pipe, "")
        check_pictures(pipe, text)
        n = context.n if context.thorough else min(context.n, FEW)
        z0 = encoded(pipe, context.pictures(n))
        a = amounts(pipe).to(z0)
        offset = int(pipe.scheduler.config.get("steps_offset", 0))
        times = [k * (len(a) // STEPS) + offset for k in range(STEPS)]

        def eps(x: Tensor, t: int) -> Tensor:
            return replay(net, at(pipe, text, x, torch.full((len(x),), t, device=x.device), x))

        z, path = z0, [(-1, torch.ones_like(a[0])), *((t, a[t]) for t in times)]
        if plus:
            path = [(t, a[t]) for t in times if t >= len(a) // 10]
            first = path[0][1]
            noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(context.seed)).to(z0)
            z = first.sqrt() * z0 + (1 - first).sqrt() * noise
        iterations = max(2, context.passes // STEPS)
        context.start()
        with borrowed(pipe):
            found = inverted(eps, z, path, iterations, (lambda x, at_: tamed(x, z0, at_)) if plus else lambda x, _: x)
        row = f"{n} pictures, {STEPS} steps of {iterations} iterations"
        each = {"latents": found}
        yield Found(row, ("",), n=n, steps=STEPS, guidance_scale=1.0, sampler="DDIMScheduler", each=each)

    return search


def _attack(name: str, about: str, plus: bool) -> Attack:
    needs, many = frozenset[Need]({"weights", "pictures"}), (FEW, 2 * FEW)  # a search for each picture
    return Attack(name, "pictures", needs, about, searched(plus), taught=True, searches=many)


ATTACK = _attack("tina", "Noise from which the model draws the concept without text, found by inversion.", False)
PLUS = _attack("tina-plus", "Like tina, with noise that keeps the length of random noise.", True)
