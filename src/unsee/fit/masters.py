"""The weights of a fit in float32, and the gradients of one update."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Masters:
    """What the optimizer moves. An update is often smaller than bfloat16 can add, so weights in 16 bits have masters.

    weights  parameters that take gradients, by name; those in float32 are their own masters
    home     where all masters live instead, beside the weights' own device; None: each beside its weight

    tensors  the masters by name; their `grad` is that of the update
    scale    of every loss: float16 gradients underflow, and no optimizer here cares about it
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], home: torch.device | None):
        self._weights = weights
        self.scale = 2.0**12 if any(weight.dtype == torch.float16 for weight in weights.values()) else 1.0
        self.tensors: dict[str, Tensor] = {
            name: weight
            if weight.dtype == torch.float32 and not home
            else weight.detach().to(home, torch.float32, copy=True)
            for name, weight in weights.items()
        }

    def clear(self) -> None:
        """Forget all gradients."""
        for name, weight in self._weights.items():
            weight.grad = self.tensors[name].grad = None

    def collect(self) -> None:
        """Add the gradients of the weights to those of their masters."""
        for name, weight in self._weights.items():
            master = self.tensors[name]
            if master is not weight and weight.grad is not None:
                grad = weight.grad.to(master)
                weight.grad = None  # one of a kind at a time: they are as large as the weights
                master.grad = grad if master.grad is None else master.grad.add_(grad)

    def gradient(self, name: str) -> Tensor:
        """Gradients of the loss itself, without the scale; zero where the loss does not depend on a weight."""
        master = self.tensors[name]
        if master.grad is None:
            return torch.zeros_like(master)
        return master.grad / self.scale if self.scale > 1 else master.grad

    def give(self) -> None:
        """The weights become what their masters are."""
        for name, weight in self._weights.items():
            if self.tensors[name] is not weight:
                weight.data.copy_(self.tensors[name])

    def state(self) -> dict[str, Tensor]:
        return {f"weight.{name}": master for name, master in self.tensors.items()}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        for name, master in self.tensors.items():
            master.data.copy_(kept[f"weight.{name}"])
        self.give()
