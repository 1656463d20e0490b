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

OPTIMIZERS = ("matrix-adam", "adam")
WIDTH_RATE = 0.5
"""Step size times fan-in, when no step size is given. The best step for a matrix falls with its width (muP: Yang et
al., arXiv:2203.03466), so that one number serves a small model and a large one."""


def fan_in(weight: Tensor) -> int:
    """How many inputs one output of a weight sums over; a bias or a scale counts as wide as it is long."""
    return weight[0].numel() if weight.ndim > 1 else weight.numel()


def sparing(moment: Tensor, damping: float) -> Tensor:
    """(C + damping mean(diag C) I)^-1 for C = E[x x^T], the second moment of a matrix's inputs on what must stay.

    Multiplied to a gradient from the right, it gives the change D of the matrix that lowers the loss most, to first
    order, for a given change E|D x|^2 of its outputs on those inputs: the geometry of K-FAC (Martens and Grosse,
    arXiv:1503.05671) and of closed-form erasers (UCE, arXiv:2308.14761).

    moment   (features, features)
    damping  > 0; the smaller, the less is moved in directions that those inputs use
    """
    size = moment.shape[0]
    scaled = moment / (moment.trace() / size)
    inverse: Tensor = torch.linalg.inv(scaled + damping * torch.eye(size, device=moment.device, dtype=moment.dtype))
    return inverse


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
    optimizer: str = "matrix-adam",
    schedule: str = "linear",
    metric: Mapping[str, Tensor] | None = None,
    watch: Watch = quiet,
) -> list[float]:
    """Minimise sum_n w_n mean |e_theta(call_n) - call_n.output|^2 over the weights; returns each update's loss.

    lesson     gives the rows of update k = 0, 1, ...
    lr         how far a weight moves in one update at most, root mean square; None is WIDTH_RATE / fan_in for each
    optimizer  "matrix-adam": Adam with one second moment for a whole matrix (as in Adam-mini, arXiv:2406.16793). What
               it adds to a matrix lies in the span of the inputs it was trained on: others are hardly touched.
               "adam", which scales number by number, leaves that span and costs other concepts more (docs/LOG.md)
    schedule   of lr, a name of diffusers.optimization.get_scheduler; a tenth of the updates warms up
    metric     for some matrices, what their gradients are multiplied by from the right (see `sparing`)

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
        steps = torch.optim.SGD(grouped, momentum=0.9, dampening=0.9)  # of gradients that are scaled below
    rates = get_scheduler(schedule, steps, num_warmup_steps=updates // 10, num_training_steps=updates)
    # float16 gradients underflow; neither optimizer cares about the scale of a loss.
    scale = 2.0**12 if any(weight.dtype == torch.float16 for weight in weights.values()) else 1.0
    squares = {name: torch.zeros((), device=master.device) for name, master in masters.items()}
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
                if metric and name in metric:
                    grad = grad @ metric[name]
                if optimizer != "adam":
                    squares[name].lerp_(grad.square().mean(), 0.01)
                    grad /= (squares[name] / (1 - 0.99 ** (update + 1))).sqrt() + 1e-12
                masters[name].grad = grad
        steps.step()
        rates.step()
        for name, weight in weights.items():
            weight.grad = masters[name].grad = None
            if masters[name] is not weight:
                weight.data.copy_(masters[name])
        watch("fit", update + 1, updates)
    return losses
