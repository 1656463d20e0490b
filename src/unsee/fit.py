"""The one training loop: regress chosen weights on recorded targets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, reduce
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unsee.calls import Call, pick, replay
from unsee.checkpoint import Checkpoint, flat, restore
from unsee.errors import InputError
from unsee.layers import swapped
from unsee.memory import Portions
from unsee.pipelines import processes
from unsee.recorder import Watch, quiet
from unsee.room import Room

WIDTH_RATE = 0.3
"""Step size times fan-in times the root of how many tensors move, when no step size is given. The best step for a
matrix falls with its width (muP: Yang et al., arXiv:2203.03466), and what many tensors change in the output adds up
as independent parts do. So one number serves small models and large ones, narrow selections and wide ones."""
EXPLODED = 1e4
"""A loss so many times the largest of the first ten ends a fit: single rows differ a hundredfold by their timestep."""


class MatrixAdam(torch.optim.Optimizer):
    """Adam with one second moment for a whole matrix (as in Adam-mini, arXiv:2406.16793).

    m <- 0.9 m + 0.1 g / sqrt(v),   v <- 0.99 v + 0.01 mean(g^2), without bias,   w <- w - lr m

    What it adds to a matrix lies in the span of the inputs it was trained on: others are hardly touched. Adam scales
    number by number, leaves that span, and costs other concepts more (docs/LOG.md). v is at least 1e-8 of the largest
    matrix's: where attention has settled, a gradient is nothing but rounding, and moves nothing.
    """

    def __init__(self, params: Iterable[Any]):
        super().__init__(params, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        moved = [(group["lr"], w) for group in self.param_groups for w in group["params"] if w.grad is not None]
        for _, weight in moved:
            state = self.state[weight]
            if not state:
                state["step"], state["square"] = torch.zeros(()), torch.zeros((), device=weight.device)
            state["step"] += 1
            state["square"].lerp_(weight.grad.square().mean(), 0.01)
        floor = 1e-8 * max(float(self.state[weight]["square"]) for _, weight in moved) + 1e-24
        for lr, weight in moved:
            state = self.state[weight]
            grad = weight.grad / (state["square"].clamp(min=floor) / (1 - 0.99 ** state["step"].item())).sqrt()
            if "momentum" not in state:
                state["momentum"] = grad.clone()
            weight.sub_(state["momentum"].lerp_(grad, 0.1), alpha=lr)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "matrix-adam": MatrixAdam,
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
}


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
    """Within the context the weights are copies that take gradients; yields the originals, which it puts back.

    Raises InputError for weights that are spread over processes.
    """
    if any(isinstance(weight, DTensor) for weight in weights.values()):
        raise InputError("weights that are spread over processes (FSDP) are not trained themselves: use --method lora")
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


@dataclass
class Examiner:
    """Asks the denoiser rows that no update trains on, every few updates.

    erased, kept  rows that ask for the concept, rows of what must stay; each row's target is its output
    every         updates between two points of the curve
    patience      stop once the error on `erased` has not fallen by a hundredth in so many points; 0: never
    curve         points so far: (updates done, mean squared error on `erased`, and on `kept`)
    """

    erased: Call
    kept: Call
    every: int = 10
    patience: int = 0
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    def __call__(self, denoiser: nn.Module, done: int, portions: Portions) -> bool:
        """Add a point, from so many rows at once; whether the fit may stop."""

        def mean(call: Call) -> float:
            count = len(call.output)
            return float(torch.cat(list(portions.each(lambda rows: error(denoiser, pick(call, rows)), count))).mean())

        with torch.no_grad():
            erased, kept = mean(self.erased), mean(self.kept)
        self.curve.append((done, erased, kept))
        if not 0 < self.patience < len(self.curve):
            return False
        errors = [point[1] for point in self.curve]
        return min(errors) >= 0.99 * min(errors[: -self.patience])


def error(denoiser: nn.Module, call: Call) -> Tensor:
    """Each row's mean squared error, (N,), in the network's own output."""
    return (replay(denoiser, call).float() - call.output.float()).square().flatten(1).mean(1)


@contextmanager
def flushing() -> Iterator[None]:
    """Within the context numbers below 1e-38 are zero: gradients have many, and a CPU is slow on them."""
    before = not torch.tensor(1e-38).mul(0.1).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@flushing()
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
    stride: float = 1.0,
    examiner: Examiner | None = None,
    seconds: float | None = None,
    checkpoint: Checkpoint | None = None,
    window: int = 1,
    room: Room | None = None,
    watch: Watch = quiet,
) -> list[float]:
    """Minimise sum_n w_n mean |e_theta(call_n) - call_n.output|^2 over the weights; returns each update's loss.

    lesson      gives the rows of update k = 0, 1, ...; the same rows for the same k, so that a fit can be resumed
    lr          how far a weight moves in one update at most, root mean square; None is by WIDTH_RATE
    optimizer   a name in OPTIMIZERS
    schedule    of lr, a name of diffusers.optimization.get_scheduler; a tenth of the updates warms up
    metric      for some matrices, what their gradients are multiplied by from the right (see `sparing`)
    stride      times that step, for a matrix with a metric: most of it lies in directions that other inputs do not use
    examiner    watches rows that are held out, and may end the fit early
    seconds     make only as many updates as fit into this time
    checkpoint  keeps the state; if it holds one, the fit goes on from there to the same bits
    window      updates at whose multiples a state may be kept: lessons that depend on the weights are made there
    room        how memory is used: rows come in portions that fit, whose gradients are summed. Default: all at once

    Weights in 16 bits are trained through float32 masters: an update is often smaller than bfloat16 can add.
    Raises FloatingPointError when the loss is no longer finite, or EXPLODED times what it was; what `checkpoint` keeps
    is then the last good state.
    """
    portions = room or Portions()
    home = room.home(weights, moments=2 if optimizer == "adam" else 1) if room else None
    masters = {
        name: weight
        if weight.dtype == torch.float32 and not home
        else weight.detach().to(home, torch.float32, copy=True)
        for name, weight in weights.items()
    }
    groups: dict[float, list[Tensor]] = {}
    for name, master in masters.items():
        rate = WIDTH_RATE * (stride if metric and name in metric else 1) / (fan_in(master) * len(masters) ** 0.5)
        groups.setdefault(lr or rate, []).append(master)
    steps = OPTIMIZERS[optimizer]([{"params": group} for group in groups.values()])
    # float16 gradients underflow; neither optimizer cares about the scale of a loss.
    scale = 2.0**12 if any(weight.dtype == torch.float16 for weight in weights.values()) else 1.0
    losses: list[float] = []
    last = updates

    def state() -> dict[str, Tensor]:
        curve = examiner.curve if examiner else []
        numbers = {"losses": torch.tensor(losses).double(), "curve": torch.tensor(curve).double()}
        numbers |= {"last": torch.tensor(last), "rows": torch.tensor(portions.size)}
        return {**{f"weight.{name}": master for name, master in masters.items()}, **flat(steps), **numbers}

    if checkpoint and (kept := checkpoint.load()):
        for name, parameter in weights.items():
            masters[name].data.copy_(kept[f"weight.{name}"])
            parameter.data.copy_(masters[name])
        restore(steps, kept)
        losses, last = kept["losses"].tolist(), int(kept["last"])
        if examiner:
            examiner.curve = [tuple(point) for point in kept["curve"].tolist()]
        portions.size = min(portions.size, int(kept["rows"]))  # the same portions, to the same bits
    # Of N processes, each answers every N-th row, and gradients are summed.
    everyone = processes()

    def summed(value: Tensor) -> Tensor:
        return value if everyone.num_processes == 1 else reduce(value, "sum")

    def gradient(now: Lesson, size: int) -> Tensor:
        """Leave the gradients of this process's rows, times `scale`, in the masters, so many rows at once; the loss."""
        for name, parameter in weights.items():
            parameter.grad = masters[name].grad = None
        found: list[Tensor] = []
        index, n = everyone.process_index, everyone.num_processes
        rows = -(-len(now.weight) // n)
        for start in range(0, rows, size):
            share = slice(index + n * start, n * min(start + size, rows), n)
            part, weight = pick(now.call, share), now.weight[share]
            if not len(weight):  # a denoiser that is spread over processes is asked by all of them
                part, weight = pick(now.call, slice(0, 1)), now.weight[:1] * 0
            loss = (weight * error(denoiser, part)).sum()
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            found.append(loss.detach())
            for name, parameter in weights.items():
                if masters[name] is not parameter and parameter.grad is not None:
                    grad = parameter.grad.to(masters[name])
                    parameter.grad = None  # one of a kind at a time: they are as large as the weights
                    held = masters[name].grad
                    masters[name].grad = grad if held is None else held.add_(grad)
        return torch.stack(found).sum()

    if room:
        room.measure()
    first, started = len(losses), time.monotonic()
    pace = _pace(schedule, last)
    for update in range(first, updates):
        if seconds and last == updates and update == first + 3:  # three tell how long one takes, in one process for all
            fit_in = first + max(3, int(3 * seconds / (time.monotonic() - started)))
            last = min(last, broadcast_object_list([fit_in])[0])
            pace = _pace(schedule, last)
        if update >= last:
            break
        looked = bool(examiner and examiner.curve and examiner.curve[-1][0] == update)  # before it was interrupted
        if examiner and update % examiner.every == 0 and not looked and examiner(denoiser, update, portions):
            break
        for group, rate in zip(steps.param_groups, groups, strict=True):
            group["lr"] = rate * pace(update)
        now = lesson(update)
        total = float(summed(portions.whole(partial(gradient, now), -(-len(now.weight) // everyone.num_processes))))
        if not math.isfinite(total) or total > EXPLODED * max(losses[:10], default=total) > 0:
            raise FloatingPointError(
                f"the loss is {total:g} after {update} updates: try a lower lr than {max(groups):g}"
            )
        if checkpoint and update % window == 0 and everyone.is_main_process:
            checkpoint.offer(state)
        losses.append(total)
        for name, master in masters.items():
            grad = (
                torch.zeros_like(master) if master.grad is None else master.grad / scale if scale > 1 else master.grad
            )
            grad = summed(grad)
            if metric and name in metric:
                grad = (grad.to(metric[name].device) @ metric[name]).to(grad.device)
            master.grad = grad
        steps.step()
        for name, parameter in weights.items():
            parameter.grad = masters[name].grad = None
            if masters[name] is not parameter:
                parameter.data.copy_(masters[name])
        watch("fit", update + 1, last)
    if examiner and examiner.curve[-1][0] != len(losses):
        examiner(denoiser, len(losses), portions)
    return losses


def _pace(schedule: str, updates: int) -> Callable[[int], float]:
    """What multiplies the rate at an update."""
    idle = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates: Any = get_scheduler(schedule, idle, num_warmup_steps=updates // 10, num_training_steps=updates)
    pace: Callable[[int], float] = rates.lr_lambdas[0]
    return pace
