"""Processes, and weights that are spread over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, send_to_device
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unsee.models.denoisers import denoisers
from unsee.models.model import Pipeline

T = TypeVar("T")


def processes() -> PartialState:
    """The processes that `torchrun` or `accelerate launch` has started; without it, just this one.

    On a machine without an accelerator accelerate must be set to the CPU: else each process counts itself alone.
    """
    return PartialState(cpu=not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))


def shard(pipe: Pipeline) -> None:
    """Spread the denoisers' weights over all processes (FSDP).

    Each process holds a part of every weight, and a block has its whole weights only while it runs. What changes a
    weight by training is then refused; adapters and closed forms work, and edits can be applied.
    """
    everyone = processes()
    mesh = init_device_mesh(everyone.device.type, (everyone.num_processes,))
    for net in denoisers(pipe).values():
        blocks = getattr(net, "_no_split_modules", None) or ()
        for module in reversed(list(net.modules())):  # what lies inside another comes first
            if module is net or type(module).__name__ in blocks:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be spread over processes, in one piece; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def plain(tensor: Tensor) -> Tensor:
    """The numbers that a tensor stands for, in one piece; quantisers bring classes of tensors of their own."""
    packed = type(tensor).__module__.split(".")[0] != "torch" and hasattr(tensor, "dequantize")
    return tensor.dequantize() if packed else whole_tensor(tensor)


def spread_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor on the device of another one, and spread over processes if that is."""
    tensor = tensor.to(other.device)
    if isinstance(other, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor


def share(items: Sequence[T]) -> list[T]:
    """The items that this process makes: every n-th, of n processes.

    All have equally many: who would have less makes the first one too. Where weights are spread over processes (FSDP),
    each call of the denoiser is one of all of them.
    """
    everyone = processes()
    mine = list(items[everyone.process_index :: everyone.num_processes])
    return mine if len(mine) * everyone.num_processes >= len(items) else [*mine, items[0]]


def gathered(parts: list[T], count: int) -> list[T]:
    """The first `count` of the parts that all processes made, each its `share`, in their order."""
    everyone = processes()
    if everyone.num_processes == 1:
        return parts
    whole = gather_object(send_to_device([(everyone.process_index, k, part) for k, part in enumerate(parts)], "cpu"))
    ordered = [part for _, _, part in sorted(whole, key=lambda item: (item[1], item[0]))]
    here: list[T] = send_to_device(ordered[:count], everyone.device)
    return here
