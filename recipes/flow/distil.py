"""The distilled sibling: mini-flow in four steps and without guidance, from mini-flow's own weights.

The teacher's guided path is split at the times of the student's sampler, and the student learns the chord of each part:

    w(x, t) = v(x, t, "") + g (v(x, t, c) - v(x, t, ""))       the teacher's guided velocity, dx/dt = w
    x_k     on that path at t_k = 1 - k / K,  k = 0 ... K;  x_0 ~ N(0, 1)
    loss    || v'(x_k, t_k, c) - (x_{k+1} - x_k) / (t_{k+1} - t_k) ||^2

    x_k  latent over its deviation, (B, 16, 8, 8)
    c    MiniLM's last hidden states, (B, 24, 384), of captions as in the teacher's training

At loss zero, K Euler steps of v' end where the teacher's path ends. These are the targets of PeRFlow (Yan et al., 2024,
"PeRFlow: Piecewise rectified flow as universal plug-and-play accelerator"), with guidance inside them as in Meng et al.
(2023, "On distillation of guided diffusion models"). PeRFlow also trains at all times between, where a sampler of K
steps never is; here the student learns the K times alone. The target is a function of x_k and c. Flow matching's is
not: it holds noise that x_t does not determine. So few updates suffice, and the mean of squares blurs nothing. Paths
are recorded once. Each serves several updates, and an update runs the student alone. Consistency and adversarial losses
reach fewer steps, and need the teacher or a critic in every update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AuraFlowTransformer2DModel
from numpy.typing import NDArray
from torch import Tensor

from recipes.mini import BadInput, train
from recipes.mini.autoencoder import LATENT
from recipes.mini.build import Build

from . import build

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""x (B, 16, 8, 8), c (B, 24, 384), t (B,) -> (B, 16, 8, 8)"""


def times(steps: int) -> Tensor:
    """t_0 = 1 ... t_K = 0, (K + 1,)"""
    return torch.linspace(1, 0, steps + 1)


@torch.no_grad()
def path(v: Velocity, x: Tensor, c: Tensor, nothing: Tensor, guidance: float, steps: int, within: int) -> Tensor:
    """x_0 ... x_K (B, K + 1, 16, 8, 8) of guided Euler steps, so many within each part.

    nothing: the states of "", (1, 24, 384)
    """
    c = torch.cat([nothing.expand_as(c), c])
    kept = [x]
    for k, (t, after) in enumerate(pairwise(torch.linspace(1, 0, steps * within + 1).tolist()), 1):
        without, told = v(torch.cat([x, x]), c, x.new_full((2 * len(x),), t)).float().chunk(2)
        x = x + (after - t) * (without + guidance * (told - without))
        if k % within == 0:
            kept.append(x)
    return torch.stack(kept, 1)


def loss(net: AuraFlowTransformer2DModel, x: Tensor, c: Tensor, k: Tensor) -> Tensor:
    """x: paths (B, K + 1, 16, 8, 8); c (B, 24, 384); k: the part that each is asked for, (B,)"""
    t, row = times(x.shape[1] - 1).to(x.device), torch.arange(len(x))
    chord = (x[row, k + 1] - x[row, k]) / (t[k + 1] - t[k])[:, None, None, None]
    return (net(x[row, k], c, t[k]).sample - chord).square().mean()


def record(b: Build, teacher: Path) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Paths of captions as in training, (N, K + 1, 16, 8, 8), and the captions' numbers. The i-th path starts from the
    noise of seed + i. They are kept under the teacher's number of updates; an interrupted run goes on where it was."""
    c, read, where = b.config["turbo"]["paths"], build.reader(b), train.device()
    said = build.training_draws(b)(np.random.default_rng(c["seed"]), c["count"])[1]
    file = b.folder / f"paths-{build.updates(teacher)}.npy"
    shape = (len(said), c["steps"] + 1, LATENT, 8, 8)
    if not file.is_file():
        np.lib.format.open_memmap(file, "w+", np.float16, shape).flush()
    kept = np.load(file, mmap_mode="r+")
    if kept.shape != shape:
        raise BadInput(f"{file} is of another config; delete it, and the step `turbo` records it anew")
    net, nothing = build.load(teacher).to(where), read(np.zeros(1, np.int64))

    def velocity(x: Tensor, c: Tensor, t: Tensor) -> Tensor:
        return net(x, c, t).sample  # type: ignore[no-any-return]

    def batches() -> Iterator[None]:
        for i in range(0, len(said), c["batch"]):
            some = slice(i, min(i + c["batch"], len(said)))
            if not kept[some][-1, -1, -1].any():  # the last that is written
                x = torch.stack([noise(c["seed"] + n) for n in range(some.start, some.stop)]).to(where)
                with torch.autocast(where.type, torch.bfloat16, enabled=c["bf16"]):
                    made = path(velocity, x, read(said[some]), nothing, c["guidance"], c["steps"], c["within"])
                kept[some] = made.half().cpu().numpy()
            yield

    for _ in train.progress(batches(), "paths", -(-len(said) // c["batch"])):
        pass
    kept.flush()
    return kept, said


def noise(seed: int) -> Tensor:
    return torch.randn((LATENT, 8, 8), generator=torch.Generator().manual_seed(seed))


def student(b: Build, teacher: Path, stop: int | None = None) -> AuraFlowTransformer2DModel:
    """turbo-N.pt, of a teacher after N updates, from which it goes on; returns the averaged student."""
    plan, where, read, (paths, said) = b.plan("turbo", "train"), train.device(), build.reader(b), record(b, teacher)
    parts = torch.arange(plan.batch) % (paths.shape[1] - 1)  # each as often as every other
    net = build.load(teacher).to(where)

    def batch(seed: int) -> Tensor:
        i = np.random.default_rng(seed).integers(len(said), size=plan.batch)
        return loss(net, torch.from_numpy(paths[i]).float().to(where), read(said[i]), parts)

    name = f"turbo-{build.updates(teacher)}"
    return train.train(name, {"transformer": net}, batch, plan, b.folder, stop)["transformer"]  # type: ignore[return-value]


def distil(b: Build, teacher: Path, state: Path, stop: int | None = None) -> None:
    """The student of the teacher's weights, trained, is kept as a state of its own."""
    net, of = student(b, teacher, stop), build.updates(teacher)
    build.keep(net, state, updates=train.load(b.folder / f"turbo-{of}.pt")["updates"], teacher=of)
