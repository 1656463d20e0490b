"""Memory of a fit: how many rows at once, gradient checkpointing, where masters lie.

A gradient is a sum over rows, so rows may come in portions: the result is the same to rounding, and the memory is that
of one portion. Rules:

    rows at once            as many as fit: SHARE of the free memory, divided by what autograd keeps of one row
    gradient checkpointing  as the user says; by default only if one row does not fit without it
    masters                 float32 masters, gradients and optimizer state are on the device of the weights if they take
                            at most half of its free memory, else in main memory
    other parts             text encoders, VAE and so on wait in main memory while the denoiser trains on an accelerator

What one row takes is measured before the first update. Before anything is computed it is counted on fake tensors
(`expected`). On Stable Diffusion 1.4's U-Net the peak of a whole update is 1 to 4 % above what autograd keeps.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from unsee.denoising.calls import Call
from unsee.denoising.replay import checkpointed
from unsee.errors import InputError
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.memory import Portions, free, log, out_of_memory, size, spread
from unsee.models.model import Pipeline

SHARE = 0.8
"""The share of the free memory that an estimate may fill. The rest is for kernels and for gaps that nothing fits."""


class FitMemory(Portions):
    """How a fit uses memory, by the rules at the top of this file. A context: on exit all is as it was.

    pipe           whose denoiser is trained
    row            a call of one row, that is measured
    checkpointing  gradient checkpointing: True, False, or None: only if memory requires it
    alone          the fit uses the denoiser only: all other parts wait in main memory if it is on an accelerator

    Raises InputError where gradient checkpointing is asked for and impossible (calls.checkpointed).
    """

    def __init__(self, pipe: Pipeline, row: Call, checkpointing: bool | None = None, *, alone: bool = False):
        advice = "take a smaller selection of weights, smaller pictures, the method lora, or a base of fewer bits"
        super().__init__(sys.maxsize, "rows of an update", advice, fixed=spread(pipe))
        self.pipe, self.row, self.checkpointing, self.alone = pipe, row, checkpointing, alone
        self.net = denoiser(pipe)[1]
        self.state = 0
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        if self.checkpointing:
            self.stack.enter_context(checkpointed(self.net, self.row))
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def home(self, weights: Mapping[str, nn.Parameter], moments: int) -> torch.device | None:
        """Where masters, gradients and optimizer state lie, float32, `moments` numbers a weight; None: beside it."""
        if self.alone:
            self.stack.enter_context(aside(self.pipe))
        device = next(iter(weights.values())).device
        count = sum(weight.numel() for weight in weights.values())
        masters = sum(4 * weight.numel() for weight in weights.values() if weight.dtype != torch.float32)
        self.state = 4 * (1 + moments) * count  # still to come when masters are there
        if device.type == "cpu" or masters + self.state <= free(device) / 2:
            return None
        log.warning("master weights and optimizer state (%.1f GB) are in main memory", (masters + self.state) / 1e9)
        self.state = sum(weight.numel() * weight.itemsize for weight in weights.values())
        return torch.device("cpu")

    def measure(self) -> None:
        """Choose how many rows to take at once; of many processes all choose what the fullest device needs."""
        left = SHARE * min(gather_object([free(next(self.net.parameters()).device) - self.state]))
        try:
            row, block = kept(self.net, self.row)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            row, block = sys.maxsize, 0
        if row == sys.maxsize:
            clear_device_cache(garbage_collection=True)
        if row > left and self.checkpointing is None and self.enable_checkpointing():
            row = kept(self.net, self.row)[0] + block
        self.size = min(self.size, at_once(left, row))

    def enable_checkpointing(self) -> bool:
        """Turn gradient checkpointing on; whether the denoiser can."""
        try:
            self.stack.enter_context(checkpointed(self.net, self.row))
        except (InputError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise
            return False
        self.checkpointing = True
        log.warning("gradient checkpointing is on: one row does not fit into memory without it")
        return True

    def fewer(self, rows: int) -> bool:
        return super().fewer(rows) or (self.checkpointing is None and self.enable_checkpointing())


def at_once(left: float, row: float) -> int:
    """How many rows of so many bytes fit into what is left; one is always tried."""
    return max(1, int(left // max(row, 1)))


@dataclass(frozen=True)
class Expected:
    """Bytes that a fit is expected to take, counted on fake tensors: nothing is computed and nothing allocated.

    model         all parts of the pipeline
    state         copies, masters, gradients and optimizer state of what is trained
    row           what autograd keeps of a row
    checkpointed  the same with gradient checkpointing; as much where the denoiser has none
    """

    model: int
    state: int
    row: int
    checkpointed: int

    def sentence(self, device: torch.device, rows: int, checkpointing: bool | None, *, whole: bool = False) -> str:
        """In one line, for updates of so many rows on a device, by the rules at the top of this file.

        whole  all rows of an update are taken at once, whatever is free
        """
        there = free(device)
        left = SHARE * (there - self.state)
        fewer = checkpointing or (checkpointing is None and self.row > left)
        row = self.checkpointed if fewer else self.row
        rows = rows if whole else min(rows, at_once(left, row))
        return (
            f"about {_size(self.model + self.state + rows * row)} in the fit, estimated: {_size(self.model)} for the "
            f"model, {_size(self.state)} for what is trained, {rows} rows of {_size(row)} at once"
            f"{' with gradient checkpointing' if fewer else ''}; {_size(there)} are free on {device}"
        )


def expected(pipe: Pipeline, row: Call, weights: Mapping[str, nn.Parameter], learned: int, moments: int) -> Expected:
    """What a fit of `learned` numbers takes, in `weights` themselves or beside them.

    row  a call of one row. Raises InputError for layers that do not run on fake tensors (some quantised ones).
    """
    net = denoiser(pipe)[1]
    model = sum(size(part) for part in pipe.components.values() if isinstance(part, nn.Module))
    beside = learned < sum(weight.numel() for weight in weights.values())  # adapters: nothing is copied, all is float32
    held = 0 if beside else sum(w.numel() * (w.itemsize + 4 * (w.dtype != torch.float32)) for w in weights.values())
    state = held + learned * 4 * ((2 if beside else 1) + moments)
    before = bool(getattr(net, "is_gradient_checkpointing", False))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = {name: mode.from_tensor(weight) for name, weight in net.named_parameters()}
            for name, fake in fakes.items():
                fake.requires_grad_(name in weights and fake.is_floating_point())
            call = Call(*tree_map_only(Tensor, mode.from_tensor, (row.arguments, row.output)))
            plain, block = kept(net, call, fakes)
            if not getattr(net, "_supports_gradient_checkpointing", False):
                return Expected(model, state, plain, plain)
            net.enable_gradient_checkpointing()  # type: ignore[operator]
            return Expected(model, state, plain, kept(net, call, fakes)[0] + block)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise InputError(f"the memory of {type(net).__name__} cannot be estimated: {error}") from error
    finally:
        if not before and getattr(net, "_supports_gradient_checkpointing", False):
            net.disable_gradient_checkpointing()  # type: ignore[operator]


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


@contextmanager
def aside(pipe: Pipeline) -> Iterator[None]:
    """Within the context only a pipeline's denoisers are on the accelerator: all its other parts are in main memory.

    What moves by itself (offloading) stays as it is, and so does what cannot be moved (some quantised encoders).
    """
    moved: list[tuple[Any, torch.device]] = []
    working = set(map(id, denoisers(pipe).values()))
    for part in pipe.components.values():
        if not isinstance(part, nn.Module) or id(part) in working or hasattr(part, "_hf_hook"):
            continue
        device = next((weight.device for weight in part.parameters()), torch.device("cpu"))
        try:
            part.to("cpu")
        except (ValueError, RuntimeError, NotImplementedError):
            continue
        moved.append((part, device))
    try:
        yield
    finally:
        for part, device in moved:
            part.to(device)


class Ledger:
    """Bytes that autograd keeps for the way back, weights aside; of tensors that share memory, once."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.now = 0
        self.weights = set(map(place, weights))
        self.known: dict[int, weakref.ref[Kept]] = {}

    def pack(self, tensor: Tensor) -> tuple[Tensor, Kept | None]:
        if place(tensor) in self.weights:
            return tensor.detach(), None
        seen = self.known.get(place(tensor))
        one = (seen and seen()) or Kept(self, tensor)
        self.known[place(tensor)] = weakref.ref(one)
        return tensor.detach(), one  # with its history it would hold itself, forever


class Kept:
    """A tensor that autograd keeps, counted from when it is kept until nothing holds it."""

    def __init__(self, ledger: Ledger, tensor: Tensor) -> None:
        self.ledger, self.bytes = ledger, tensor.untyped_storage().nbytes()
        ledger.now += self.bytes

    def __del__(self) -> None:
        self.ledger.now -= self.bytes


def place(tensor: Tensor) -> int:
    """The memory of a tensor; of a quantised one, which has parts, the tensor itself."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def kept(net: nn.Module, call: Call, weights: Mapping[str, Tensor] | None = None) -> tuple[int, int]:
    """Bytes that autograd keeps for the way back of a call, and what of them the largest block keeps.

    weights  parameters in the place of the network's own, by name
    Blocks are what gradient checkpointing computes again: layers that a module with that switch holds in a list.
    """
    ledger, before, found = Ledger((weights or dict(net.named_parameters())).values()), [], [0]
    lists = [
        layers
        for module in net.modules()
        if hasattr(module, "gradient_checkpointing")
        for layers in module.children()
        if isinstance(layers, nn.ModuleList)
    ]
    blocks = [block for layers in lists for block in layers]
    handles = [block.register_forward_pre_hook(lambda *_: before.append(ledger.now)) for block in blocks]
    handles += [block.register_forward_hook(lambda *_: found.append(ledger.now - before.pop())) for block in blocks]
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda pair: pair[0]):
            answer = functional_call(net, dict(weights or {}), (), call.arguments)
            return (ledger.now, max(found)) if answer is not None else (0, 0)  # which holds what was kept
    finally:
        for handle in handles:
            handle.remove()
