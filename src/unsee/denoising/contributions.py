"""What attention adds to a picture's features, by the token that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, stacked
from unsee.denoising.guidance import run, unguided
from unsee.denoising.replay import replay
from unsee.denoising.rows import tensors
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline


@dataclass(frozen=True)
class _Read:
    """What a linear layer read: so many tokens, by sums of them; and whether it is an argument of the call."""

    tokens: int
    sums: tuple[float, float]
    given: bool

    def same(self, other: _Read | None) -> bool:
        """Whether two layers read the same, but for rounding."""
        return (
            other is not None
            and self.tokens == other.tokens
            and all(isclose(*sums, rel_tol=1e-6) for sums in zip(self.sums, other.sums, strict=True))
        )


@torch.no_grad()
def _sums(net: nn.Module, call: Call) -> dict[str, _Read]:
    """What each linear layer reads when a call is asked again, in the order of reading."""
    found: dict[str, _Read] = {}
    given = {value.untyped_storage().data_ptr() for value in tensors(call.arguments)}

    def listen(name: str, x: Tensor) -> None:
        sums = (float(x.double().sum()), float(x.double().square().sum()))
        tokens = x.numel() // max(1, x.shape[-1])
        found.setdefault(name, _Read(tokens, sums, x.untyped_storage().data_ptr() in given))

    def hook(name: str) -> Any:
        return lambda _, args: listen(name, args[0])

    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers]
    try:
        replay(net, call)
    finally:
        for handle in handles:
            handle.remove()
    return found


def contributions(
    pipe: Pipeline, prompts: Sequence[str], layers: Sequence[str], *, seeds: Sequence[int], steps: int = 20
) -> dict[str, Tensor]:
    """How much modules of the denoiser add at each place: the root mean square over channels of what they return.

    layers  names of modules that return (rows, places, channels), such as attention
    Averaged over the steps of unguided runs, one for each prompt and seed: (B, places) for each layer.
    """
    _, net = denoiser(pipe)
    sums: dict[str, list[Tensor]] = {name: [] for name in layers}

    def add(name: str, output: Any) -> None:
        sums[name].append(stacked(output).float().square().mean(-1).sqrt())

    handles = [net.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: add(n, out)) for n in layers]
    try:
        run(pipe, lambda arguments, output: None, prompts, seeds, steps, unguided(pipe))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(found).mean(0) for name, found in sums.items()}
