"""The one training loop: regress chosen weights on recorded targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from unsee.layers import swapped
from unsee.recorder import Call, Watch, quiet, replay

OPTIMIZERS = ("sgd", "adam")
WIDTH_RATE = 0.25
"""Step size times fan-in, when no step size is given. The best step for a matrix falls with its width (muP: Yang et
al., arXiv:2203.03466), so that one number serves a small model and a large one."""


def fan_in(weight: Tensor) -> int:
    """How many inputs one output of a weight sums over; a bias or a scale counts as wide as it is long."""
    return weight[0].numel() if weight.ndim > 1 else weight.numel()


@dataclass(frozen=True)
class Lesson:
    """What the denoiser is asked in one update.

    call    N rows; `call.output` is what it should answer, in the network's own output (N, ...)
    weight  (N,), the weight of each row's mean squared error
    """

    call: Call
    weight: Tensor


@contextmanager
def trainable(weights: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """Within the context the weights are copies that take gradients; yields the originals, which it puts back."""
    originals = {name: weight.data for name, weight in weights.items()}
    with swapped(weights, {name: value.clone() for name, value in originals.items()}):
        for weight in weights.values():
            weight.requires_grad_(True)
        try:
            yield originals
        finally:
            for weight in weights.values():
                weight.requires_grad_(False)
                weight.grad = None


def fit(
    denoiser: nn.Module,
    weights: Mapping[str, nn.Parameter],
    lesson: Callable[[int], Lesson],
    *,
    updates: int,
    lr: float | None = None,
    optimizer: str = "sgd",
    schedule: str = "linear",
    watch: Watch = quiet,
) -> list[float]:
    """Minimise sum_n w_n mean |e_theta(call_n) - call_n.output|^2 over the weights; returns each update's loss.

    lesson     gives the rows of update k = 0, 1, ...
    lr         how far a weight moves in one update at most, root mean square; None is WIDTH_RATE / fan_in for each
    optimizer  "sgd": momentum 0.9 over gradients that are scaled, matrix by matrix, to a root mean square of one. What
               it adds to a matrix lies in the span of the inputs it was trained on, so other inputs are hardly touched.
               "adam", which scales number by number, leaves that span and costs other concepts more (docs/LOG.md)
    schedule   of lr, a name of diffusers.optimization.get_scheduler; a tenth of the updates warms up

    Weights in 16 bits are trained through float32 masters: an update is often smaller than bfloat16 can add.
    Raises FloatingPointError when the loss is no longer finite.
    """
    masters = {
        name: weight if weight.dtype == torch.float32 else weight.detach().float() for name, weight in weights.items()
    }
    groups: dict[float, list[Tensor]] = {}
    for master in masters.values():
        groups.setdefault(lr or WIDTH_RATE / fan_in(master), []).append(master)
    grouped = [{"params": group, "lr": rate} for rate, group in groups.items()]
    steps: torch.optim.Optimizer
    if optimizer == "adam":
        steps = torch.optim.Adam(grouped, fused=True)
    else:
        steps = torch.optim.SGD(grouped, momentum=0.9, dampening=0.9)
    rates = get_scheduler(schedule, steps, num_warmup_steps=updates // 10, num_training_steps=updates)
    # float16 gradients underflow; neither optimizer cares about the scale of a loss.
    scale = 2.0**12 if any(weight.dtype == torch.float16 for weight in weights.values()) else 1.0
    losses = []
    for update in range(updates):
        now = lesson(update)
        error = (replay(denoiser, now.call).float() - now.call.output.float()).square().flatten(1).mean(1)
        loss = (now.weight * error).sum()
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {losses[-1]} after {update} updates: try a lower lr than {max(groups):g}"
            )
        for name, weight in weights.items():
            if weight.grad is not None:
                grad = weight.grad.float() / scale
                masters[name].grad = grad if optimizer == "adam" else grad / (grad.square().mean().sqrt() + 1e-12)
        steps.step()
        rates.step()
        for name, weight in weights.items():
            weight.grad = masters[name].grad = None
            if masters[name] is not weight:
                weight.data.copy_(masters[name])
        watch("fit", update + 1, updates)
    return losses
