r"""TINA: find the noise from which the model draws a given picture without any text, and draw from it.

    z_t = f(z_t),    f(z_t) = (A_t / A_s) z_s + [S_t - A_t S_s / A_s] e_theta(z_t, t, "")

step by step from a picture's latents z_0 up (s is the time before t), a fixed point for each t, then DDIM down from the
last one without a prompt (CVPR 2026). A and S say how much of a picture and of noise there is: sqrt(a) and sqrt(1 - a),
in the authors' letters. A flow has 1 - t and t there, for which this step is Euler's, z_s + (t - s) v_theta(z_t, t,
""), and goes down by its own sampler (ours: they have none). As in the authors' code, e_theta is computed without a
gradient: the iteration is z <- (z + f(z)) / 2, which needs forward passes only.

tina-plus starts at the time t_a = 0.1 T from a noised z_0, and keeps the length of z_t to what noise has there: the
authors add relu(|r_t| - tau)^2 to the loss, with

    r_t = (|z_t|^2 - m_t) / sqrt(v_t),    m_t = A_t^2 |z_0|^2 + S_t^2 D,    tau = 10
    v_t = 4 A_t^2 S_t^2 |z_0|^2 + 2 S_t^4 D

m_t and v_t being mean and variance of |z_t|^2 for z_t = A_t z_0 + S_t e with D numbers. Here z_t is put at the nearest
length at which that term is zero. Inversion is an autoencoder: it finds noise for pictures of things that no model
knows, too. Read this row beside its controls only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unsee.attacks import Attack, Need
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.conditioned import condition
from unsee.denoising.noised import clock, encoded, flows, levels, noise_of
from unsee.denoising.replay import replay
from unsee.models.borrow import borrowed
from unsee.models.denoisers import denoiser

STEPS = 20
FEW = 12
"""The most pictures with a small budget: each needs a search of its own."""
TAU = 10.0


Point = tuple[int, Tensor, Tensor]
"""A time, and the A and S of it, a number each."""
Step = Callable[[Tensor, Tensor, Point, Point], Tensor]
"""(z_s, z_t, point of s, point of t) -> f(z_t)."""


def ddim(eps: Callable[[Tensor, int], Tensor]) -> Step:
    """f of a diffusion model; eps: (z_t, t) -> e_theta without a prompt."""

    def step(start: Tensor, z: Tensor, before: Point, now: Point) -> Tensor:
        (_, A_s, S_s), (t, A, S) = before, now
        return A / A_s * start + (S - A * S_s / A_s) * eps(z, t)

    return step


def euler(velocity: Callable[[Tensor, int], Tensor]) -> Step:
    """f of a flow; velocity: (z_t, t) -> v_theta without a prompt."""

    def step(start: Tensor, z: Tensor, before: Point, now: Point) -> Tensor:
        return start + (now[2] - before[2]) * velocity(z, now[0])

    return step


def tamed(z: Tensor, z0: Tensor, point: Point) -> Tensor:
    """z (B, ...) at the nearest length for which |r_t| <= TAU."""
    D, power, (_, A, S) = z0[0].numel(), z0.flatten(1).square().sum(1), point
    m, v = A**2 * power + S**2 * D, 4 * (A * S) ** 2 * power + 2 * S**4 * D
    now = z.flatten(1).square().sum(1)
    wanted = torch.minimum(torch.maximum(now, (m - TAU * v.sqrt()).clamp(min=0)), m + TAU * v.sqrt())
    return z * (wanted / now.clamp(min=1e-12)).sqrt().view(-1, *[1] * (z.ndim - 1))


@torch.no_grad()
def inverted(
    step: Step,
    z: Tensor,
    path: Sequence[Point],
    iterations: int,
    keep: Callable[[Tensor, Point], Tensor] = lambda z, point: z,
) -> Tensor:
    """Noise (B, ...) at the end of a path.

    z     latents (B, ...) at the path's beginning
    path  from the cleanest; the time of clean latents is any, with A = 1 and S = 0
    keep  (z_t, point) -> z_t, after each iteration
    """
    for before, now in pairwise(path):
        start = z
        z = step(start, start, before, now)
        for _ in range(iterations - 1):
            z = keep((z + step(start, z, before, now)) / 2, now)
    return z


def searched(plus: bool) -> Callable[[AttackContext], Iterator[Found]]:
    """TINA, or TINA+."""

    def search(context: AttackContext) -> Iterator[Found]:
        pipe, (_, net) = context.pipe, denoiser(context.pipe)
        text, time = condition(pipe, ""), clock(pipe)
        n = context.n if context.thorough else min(context.n, FEW)
        z0 = encoded(pipe, context.pictures(n))
        total, flow = int(pipe.scheduler.config.num_train_timesteps), flows(pipe)
        offset = total // STEPS if flow else int(pipe.scheduler.config.get("steps_offset", 0))  # a flow ends in noise
        times = [k * (total // STEPS) + offset for k in range(STEPS)]

        def said(x: Tensor, t: int) -> Tensor:
            now = torch.full((len(x),), t, device=x.device)
            answer = time.answer(replay(net, time.at(text, x, now, x)))
            return answer if flow else noise_of(pipe, x, now, answer)

        both = (level.to(z0) for level in levels(pipe, torch.tensor(times, device=z0.device)))
        path = list(zip(times, *both, strict=True))
        z, clean = z0, (-1, torch.ones_like(path[0][1]), torch.zeros_like(path[0][1]))
        path = [clean, *path]
        if plus:
            path = [point for point in path if point[0] >= total // 10]
            noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(context.seed)).to(z0)
            z = path[0][1] * z0 + path[0][2] * noise
        iterations = max(2, context.passes // STEPS)
        context.start()
        with borrowed(pipe):
            step = euler(said) if flow else ddim(said)
            keep = (lambda x, point: tamed(x, z0, point)) if plus else lambda x, _: x
            found = inverted(step, z, path, iterations, keep)
        row = f"{n} pictures, {STEPS} steps of {iterations} iterations"
        each = {"latents": found}
        down = "pipeline" if flow else "DDIMScheduler"
        yield Found(row, ("",), n=n, steps=STEPS, guidance_scale=1.0, sampler=down, each=each)

    return search


def _attack(name: str, about: str, plus: bool) -> Attack:
    needs, many = frozenset[Need]({"weights", "pictures"}), (FEW, 2 * FEW)  # a search for each picture
    return Attack(name, "pictures", needs, about, searched(plus), taught=True, searches=many)


ATTACK = _attack("tina", "Noise from which the model draws the concept without text, found by inversion.", False)
PLUS = _attack("tina-plus", "Like tina, with noise that keeps the length of random noise.", True)
