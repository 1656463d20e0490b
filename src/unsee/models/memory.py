"""What to do when memory runs out: the same with half as many rows at once, and at the end one line that helps."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn
from torch.distributed.fsdp import FSDPModule

from unsee.models.denoisers import denoisers
from unsee.models.model import Pipeline, kind

T = TypeVar("T")

log = logging.getLogger("unsee")

SMALLER = "draw smaller ones, such as `call={'height': 512, 'width': 512}`, or take a model of fewer bits"
"""What to do where not even one picture fits."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on an accelerator or on the machine."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, Exception) and should_reduce_batch_size(error))


def free(device: torch.device) -> int:
    """Bytes that are free on a device; for a CPU, in main memory."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


FOUR_BITS = 4.5 / 8
"""Bytes of a number in four bits; every 64 numbers share a scale of 32 bits."""


def size(part: nn.Module) -> int:
    """Bytes of the weights of a module."""
    return sum(weight.numel() * weight.itemsize for weight in part.parameters())


def check_room(pipe: Pipeline, device: torch.device) -> None:
    """Raises OutOfMemory, with what would fit, if a device has less free memory than all weights of a pipeline take."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    whole, there = sum(map(size, parts)), free(device)
    if whole <= there:
        return
    ways = []
    if (largest := max(map(size, parts))) < there:
        ways.append(f"in Python enable_model_cpu_offload(), which holds one part at a time, of {largest / 1e9:.1f} GB")
    nets = list(denoisers(pipe).values())
    small = sum(FOUR_BITS * weight.numel() for net in nets for weight in net.parameters())
    if (less := whole - sum(map(size, nets)) + small) < there:
        ways.append(f"in Python a denoiser of four bits with the method lora, {less / 1e9:.1f} GB in all")
    ways.append("many GPUs by FSDP; or the CPU, with ACCELERATE_USE_CPU=1")
    raise OutOfMemory(
        f"the weights of {kind(pipe).__name__} take {whole / 1e9:.1f} GB, and {there / 1e9:.1f} GB are free on "
        f"{device}; what helps: {'; or '.join(ways)}"
    )


@dataclass
class Portions:
    """How many rows are worked on at once: half of them, and a line that says so, whenever memory does not hold them.

    size    rows at most; what was too many once is not tried again
    what    rows of what, for that line
    advice  what to do where one row is too many
    fixed   nothing is halved: processes that share weights must work in step
    """

    size: int = sys.maxsize
    what: str = "rows"
    advice: str = "take fewer of them at once"
    fixed: bool = False

    def each(self, work: Callable[[slice], T], count: int) -> Iterator[T]:
        """What `work` returns for one slice of `count` rows after another; what was done is not done again."""
        start = 0
        while start < count:
            rows = slice(start, min(start + self.size, count))
            done: list[T] = []
            with self.halved(rows.stop - start):
                done.append(work(rows))
            if done:
                start = rows.stop
                yield done.pop()

    def whole(self, work: Callable[[int], T], count: int) -> T:
        """What `work` returns, given how many of `count` rows to take at once; it begins anew with half as many."""
        while True:
            with self.halved(min(self.size, count)):
                return work(min(self.size, count))

    @contextmanager
    def halved(self, rows: int) -> Iterator[None]:
        """Within the context memory may run out: `size` is then less than `rows`. MemoryError if it cannot be."""
        try:
            yield
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or isinstance(error, OutOfMemory):
                raise
            cause = error.with_traceback(None)  # which would hold all that was computed
        clear_device_cache(garbage_collection=True)
        if self.fixed or not self.fewer(rows):
            raise OutOfMemory(f"out of memory with {rows} {self.what} at once: {self.advice}") from cause

    def fewer(self, rows: int) -> bool:
        """Take less than so many rows from here on, if that is possible."""
        if rows <= 1:
            return False
        self.size = rows // 2
        log.warning("out of memory with %d %s at once: %d from here on", rows, self.what, self.size)
        return True


def advice(error: BaseException) -> str:
    """The advice to a user whose memory ran out anywhere, in one line."""
    what = " ".join(str(error).split())[:120]
    return (
        f"out of memory ({what}); these take less: gradient checkpointing (`gradient_checkpointing=True`), fewer "
        "pictures at once (`batch`), or the method lora"
    )


class OutOfMemory(MemoryError):
    """Memory that ran out where nothing is left to halve. The message is one line that says what would help."""


def spread(pipe: Pipeline) -> bool:
    """Whether the weights of a denoiser are spread over processes (FSDP)."""
    return any(isinstance(net, FSDPModule) for net in denoisers(pipe).values())
