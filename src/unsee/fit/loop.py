"""The one training loop: regress chosen weights on recorded targets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, reduce
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unsee.denoising.calls import Call
from unsee.denoising.rows import select_rows
from unsee.errors import Diverged, InputError
from unsee.fit.masters import Masters
from unsee.fit.memory import FitMemory
from unsee.fit.monitor import HeldOutMonitor, Loss, error, squared
from unsee.fit.optimizers import OPTIMIZERS, RATE, Metric, reach
from unsee.fit.resume import ResumeFile, flat, restore
from unsee.models.distributed import processes
from unsee.models.memory import Portions
from unsee.models.weights import temporary_values
from unsee.progress import Progress, no_progress

EXPLODED = 1e4
"""A loss this many times the largest of the first ten ends a fit: rows differ a hundredfold by their timestep."""


@dataclass(frozen=True)
class TrainBatch:
    """What the denoiser is asked in one update.

    call    N rows; `call.output` is what it should answer, in the network's own output (N, ...)
    weight  (N,), the weight of each row's loss
    loss    the mean squared error, or another one, which may read more than one answer in `call.output`
    """

    call: Call
    weight: Tensor
    loss: Loss = squared

    @classmethod
    def mean(cls, call: Call, loss: Loss = squared) -> TrainBatch:
        """Rows of equal weight, which sum to one."""
        n = len(call.output)
        return cls(call, torch.full((n,), 1 / n, device=call.output.device), loss)


@dataclass(frozen=True)
class Learned:
    """What a fit moves.

    weights  parameters that take gradients, by name
    metric   of some matrices: what preconditions their gradients, and their steps (optimizers.Metric)
    writes   the layer whose output a tensor moves, where that is not its own (optimizers.reach)
    """

    weights: Mapping[str, nn.Parameter]
    metric: Mapping[str, Metric] = field(default_factory=dict)
    writes: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimisation:
    """How a fit moves it.

    updates    number of updates
    lr         how far a weight moves in one update at most, root mean square; None: as far as its layer's output may
    optimizer  a name in OPTIMIZERS
    schedule   of lr, a name of diffusers.optimization.get_scheduler; the first tenth of the updates warms up
    seconds    make only as many updates as fit into this time
    """

    updates: int
    lr: float | None = None
    optimizer: str = "matrix-adam"
    schedule: str = "linear"
    seconds: float | None = None


@contextmanager
def trainable(weights: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Tensor]]:
    """Within the context the weights are copies that take gradients; yields the originals, which it puts back.

    Gradients and `requires_grad` are then those from before, too. Other weights are the caller's (see borrow.borrowed).
    Raises InputError for weights that are spread over processes.
    """
    if any(isinstance(weight, DTensor) for weight in weights.values()):
        raise InputError("weights that are spread over processes (FSDP) cannot be trained: use the method lora")
    originals = {name: weight.data for name, weight in weights.items()}
    before = [(weight, weight.requires_grad, weight.grad) for weight in weights.values()]
    with temporary_values(weights, {name: value.clone() for name, value in originals.items()}):
        for weight in weights.values():
            weight.requires_grad_(True)
            weight.grad = None
        try:
            yield originals
        finally:
            for weight, learning, grad in before:
                weight.requires_grad_(learning)
                weight.grad = grad


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
    learned: Learned,
    make_batch: Callable[[int], TrainBatch],
    how: Optimisation,
    *,
    monitor: HeldOutMonitor | None = None,
    resume: ResumeFile | None = None,
    memory: FitMemory | None = None,
    progress: Progress = no_progress,
) -> list[float]:
    """Minimise sum_n w_n mean |e_theta(call_n) - call_n.output|^2, or another loss; returns each update's loss.

    make_batch  (k) -> the rows of update k = 0, 1, ...; the same rows for the same k, so that a fit can be resumed
    monitor     measures the error on held-out rows, and may end the fit early
    resume      keeps the state; if it holds one, the fit goes on from there to the same bits
    memory      rows come in portions that fit into memory, whose gradients are summed. Default: all at once

    Weights in 16 bits are trained through masters in float32 (masters.Masters).
    Raises Diverged when the loss is no longer finite, or EXPLODED times what it was; what `resume` keeps is
    then the last good state.
    """
    metric, optimizer, everyone = learned.metric, how.optimizer, processes()
    portions = memory or Portions()
    home = memory.home(learned.weights, moments=2 if optimizer == "adam" else 1) if memory else None
    masters = Masters(learned.weights, home)
    whiten = _roots(metric, next(iter(masters.tensors.values())))
    steps = OPTIMIZERS[optimizer](
        [{"params": [master], "root": whiten.get(name)} for name, master in masters.tensors.items()]
    )
    rates, losses, last = torch.zeros(0), list[float](), how.updates

    def state() -> dict[str, Tensor]:
        curve = monitor.curve if monitor else []
        numbers = {"losses": torch.tensor(losses).double(), "curve": torch.tensor(curve).double()}
        numbers |= {"last": torch.tensor(last), "rates": rates, "rows": torch.tensor(portions.size)}
        return {**masters.state(), **flat(steps), **numbers}

    if resume and (kept := resume.load()):
        masters.restore(kept)
        restore(steps, kept)
        losses, last, rates = kept["losses"].tolist(), int(kept["last"]), kept["rates"]
        if monitor:
            monitor.curve = [tuple(point) for point in kept["curve"].tolist()]
        portions.size = min(portions.size, int(kept["rows"]))  # the same portions, to the same bits
    if memory:
        memory.measure()
    first, started = len(losses), time.monotonic()
    pace = _pace(how.schedule, last)
    progress("fit", first, last)
    for update in range(first, how.updates):
        if how.seconds and last == how.updates and update == first + 3:  # three tell how long one takes
            fit_in = first + max(3, int(3 * how.seconds / (time.monotonic() - started)))
            last = min(last, broadcast_object_list([fit_in])[0])  # in one process for all
            pace = _pace(how.schedule, last)
        if update >= last:
            break
        looked = bool(monitor and monitor.curve and monitor.curve[-1][0] == update)  # before it was interrupted
        if monitor and update % monitor.every == 0 and not looked and monitor(denoiser, update, portions):
            break
        now = make_batch(update)
        rows = -(-len(now.weight) // everyone.num_processes)
        if not len(rates):
            rates = _rates(denoiser, learned, _mine(now, 0, len(now.weight))[0], how)
        for group, rate in zip(steps.param_groups, rates.tolist(), strict=True):
            group |= {"rate": rate, "lr": rate * pace(update)}
        total = float(_summed(portions.whole(partial(_gradients, denoiser, masters, now, rows), rows)))
        if not math.isfinite(total) or total > EXPLODED * max(losses[:10], default=total) > 0:
            raise Diverged(f"the loss is {total:g} after {update} updates: try a lower lr than {how.lr or RATE:g}")
        if resume and update % resume.window == 0 and everyone.is_main_process:
            resume.offer(state)
        losses.append(total)
        for name, master in masters.tensors.items():
            grad = _summed(masters.gradient(name))
            spares = name in metric and optimizer != "matrix-adam"  # which multiplies by itself
            master.grad = grad @ whiten[name].T @ whiten[name] if spares else grad
        steps.step()
        masters.clear()
        masters.give()
        progress("fit", update + 1, last)
    if monitor and monitor.curve[-1][0] != len(losses):
        monitor(denoiser, len(losses), portions)
    return losses


def _gradients(denoiser: nn.Module, masters: Masters, now: TrainBatch, rows: int, size: int) -> Tensor:
    """Leave the gradients of this process's rows, times `scale`, in the masters, so many rows at once; the loss."""
    masters.clear()
    found: list[Tensor] = []
    for start in range(0, rows, size):
        part, weight = _mine(now, start, min(start + size, rows))
        loss = (weight * error(denoiser, part, now.loss)).sum()
        (loss * masters.scale).backward()  # type: ignore[no-untyped-call]
        found.append(loss.detach())
        masters.collect()
    return torch.stack(found).sum()


def _mine(now: TrainBatch, start: int, stop: int) -> tuple[Call, Tensor]:
    """Of this process's rows those from start to stop, and their weights. Of N processes each answers every N-th."""
    index, n = processes().process_index, processes().num_processes
    share = slice(index + n * start, n * stop, n)
    if not len(now.weight[share]):  # a denoiser that is spread over processes is asked by all of them
        return select_rows(now.call, slice(0, 1)), now.weight[:1] * 0
    return select_rows(now.call, share), now.weight[share]


def _summed(value: Tensor) -> Tensor:
    """Over all processes."""
    return value if processes().num_processes == 1 else reduce(value, "sum")


def _roots(metric: Mapping[str, Metric], like: Tensor) -> dict[str, Tensor]:
    """The inverse of each metric's root; many layers have one, which is inverted once."""
    known = {id(m.root): m.root for m in metric.values()}
    inverse = {key: torch.linalg.inv(root).to(like) for key, root in known.items()}
    return {name: inverse[id(m.root)] for name, m in metric.items()}


def _rates(
    denoiser: nn.Module,
    learned: Learned,
    call: Call,
    how: Optimisation,
) -> Tensor:
    """How far each tensor moves in one update at most, (tensors,), in its optimizer's units."""
    weights, metric, lr, optimizer = learned.weights, learned.metric, how.lr, how.optimizer
    if lr and optimizer != "matrix-adam":
        return torch.full((len(weights),), lr).double()
    known = {name: (lr or m.rate) * m.usual for name, m in metric.items() if optimizer == "matrix-adam"}
    others = {name: weight for name, weight in weights.items() if name not in known}
    if others:
        moved = reach(denoiser, others, call, learned.writes, _summed)
        known |= {name: (lr or RATE) * step for name, step in moved.items()}
    rates: Tensor = torch.tensor([known[name] for name in weights]).double() / len(weights) ** 0.5
    return rates


def _pace(schedule: str, updates: int) -> Callable[[int], float]:
    """What multiplies the rate at an update."""
    idle = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates: Any = get_scheduler(schedule, idle, num_warmup_steps=updates // 10, num_training_steps=updates)
    pace: Callable[[int], float] = rates.lr_lambdas[0]
    return pace
