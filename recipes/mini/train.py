"""The one training loop: every network of the miniature goes through it.

An update's randomness (which pictures, which noise) is a function of the seed and of the update's number alone. So
there is no generator to store, and stopping and resuming gives the same bits as not stopping.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from . import BadInput
from .muon import Muon, matrices

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    updates: int
    batch: int
    lr: float
    warmup: int = 100  # updates in which the rate rises to lr
    anneal: float = 1.0  # the last share of the updates, in which it falls to 1 % of that along a cosine
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.01  # AdamW's weight decay
    muon: float = 0.0  # Muon's rate for matrices and convolutions; 0 leaves them to AdamW
    bf16: bool = False  # autocast: it saves time where the processor has bfloat16 instructions, or on a GPU
    ema: float = 0.999  # the averaged weights, which are the result, remember about 1 / (1 - ema) updates
    save: int = 200  # updates between checkpoints
    seed: int = 0

    def pace(self, update: int) -> float:
        """What multiplies the rates: rises, stays, falls. While it stays, `updates` can change without effect."""
        left = (self.updates - update) / max(1, self.anneal * self.updates)
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1, left))
        return min(1, (update + 1) / max(1, self.warmup)) * (0.01 + 0.99 * fall)

    def optimizers(self, net: nn.Module) -> list[torch.optim.Optimizer]:
        chosen = matrices(net) if self.muon else []
        ids = {id(p) for p in chosen}
        rest = [p for p in net.parameters() if p.requires_grad and id(p) not in ids]
        adam = torch.optim.AdamW(rest, lr=self.lr, betas=self.betas, weight_decay=self.decay, fused=True)
        return [adam, Muon(chosen, lr=self.muon)] if chosen else [adam]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention() -> AbstractContextManager[None]:
    """Plain products on a CPU: in bfloat16, the fused attention's way back takes half of an update there."""
    return nullcontext() if device().type == "cuda" else sdpa_kernel(SDPBackend.MATH)


def progress(items: Iterable[T], name: str, total: int) -> Iterator[T]:
    yield from tqdm(items, name, total, disable=None, mininterval=1, dynamic_ncols=True)


def train(
    name: str,
    networks: Mapping[str, nn.Module],
    loss: Callable[[int], Tensor],
    plan: Plan,
    folder: Path,
    stop: int | None = None,
) -> dict[str, nn.Module]:
    """Minimise `loss` over the networks' parameters; returns averaged copies of them, for inference.

    loss: seed -> a scalar; it draws all it needs from that seed, which differs from update to update
    folder: holds the checkpoint NAME.pt and log.txt; a run that finds its checkpoint goes on from there
    stop: leave after this many updates in all, as if interrupted
    """
    net = nn.ModuleDict(networks)
    params = [p for p in net.parameters() if p.requires_grad]
    optimizers = plan.optimizers(net)
    rates = [o.defaults["lr"] for o in optimizers]
    mean = copy.deepcopy(net).requires_grad_(False)
    mean_params = [m for m, p in zip(mean.parameters(), net.parameters(), strict=True) if p.requires_grad]
    path, done = folder / f"{name}.pt", 0
    if path.exists():
        state = load(path)
        try:
            net.load_state_dict(state["net"])
            mean.load_state_dict(state["mean"])
            for o, kept in zip(optimizers, state["optimizers"], strict=True):
                o.load_state_dict(kept)
        except (KeyError, RuntimeError, ValueError) as e:
            raise BadInput(f"{path} is of another recipe ({str(e).splitlines()[0]}); delete it to start over") from e
        done = int(state["updates"])

    last = min(plan.updates, plan.updates if stop is None else stop)
    net.train()
    log = Log(folder / "log.txt", name, done, plan.updates)
    bar = tqdm(range(done, last), name, plan.updates, initial=done, disable=None, mininterval=1, dynamic_ncols=True)
    for update in bar:
        net.zero_grad(set_to_none=True)
        with attention():
            with torch.autocast(device().type, torch.bfloat16, enabled=plan.bf16):
                value = loss(1_000_003 * plan.seed + update)
            value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * plan.pace(update)
            optimizer.step()
        with torch.no_grad():  # early on, the average follows closely
            torch._foreach_lerp_(mean_params, params, 1 - min(plan.ema, (1 + update) / (10 + update)))
            for m, b in zip(mean.buffers(), net.buffers(), strict=True):
                m.copy_(b)
        done = update + 1
        log(done, value)
        if done % plan.save == 0 or done == last:
            save(path, net, mean, optimizers, done)
    return {k: mean[k].eval() for k in networks}


def save(path: Path, net: nn.Module, mean: nn.Module, optimizers: list[torch.optim.Optimizer], done: int) -> None:
    state = {"net": net.state_dict(), "mean": mean.state_dict(), "updates": done}
    torch.save({**state, "optimizers": [o.state_dict() for o in optimizers]}, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def begin(name: str, networks: Mapping[str, nn.Module], plan: Plan, folder: Path, done: int) -> None:
    """A checkpoint to go on from, of networks that were trained elsewhere for `done` updates."""
    net = nn.ModuleDict(networks)
    save(folder / f"{name}.pt", net, net, plan.optimizers(net), done)


def load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device(), weights_only=True)  # type: ignore[no-any-return]
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as e:
        raise BadInput(f"{path} is no checkpoint ({type(e).__name__}); delete it to start this step over") from e


class Log:
    """The mean loss of every 50 updates, with the time taken and the time left, to one file and to a dumb terminal."""

    def __init__(self, path: Path, name: str, done: int, updates: int) -> None:
        self.path, self.name, self.first, self.updates = path, name, done, updates
        self.start, self.sum, self.n = time.monotonic(), 0.0, 0

    def __call__(self, done: int, loss: Tensor) -> None:
        self.sum, self.n = self.sum + float(loss.detach()), self.n + 1
        if done % 50 and done != self.updates:
            return
        spent = time.monotonic() - self.start
        left = spent / (done - self.first) * (self.updates - done)
        text = f"{self.name} {done}/{self.updates} loss {self.sum / self.n:.4f} {spent:.0f} s, {left:.0f} s to go"
        with self.path.open("a", encoding="utf-8") as f:
            f.write(text + "\n")
        if not sys.stderr.isatty():
            print(text, flush=True)
        self.sum, self.n = 0.0, 0
