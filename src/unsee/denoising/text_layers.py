"""Which layers of a denoiser read the prompt, where no table has their names: found by watching calls."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.denoising.rows import tensors
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.weights import TextLayers, known, remember


def find_text(pipe: Pipeline) -> None:
    """Find out which layers of the denoiser read the text, where no name says so (weights.BLOCKS). Done once.

    They read the same with another seed and something else with another prompt, and many tokens. Where it enters:

        keys and values of cross-attention   several blocks have layers that read one and the same text
        an embedder                          else those that read an argument of the call, else those that run first
    """
    _, net = denoiser(pipe)
    if known(net):
        return
    asked = (("a church", 0), ("a church", 1), ("a dog on a beach", 0))
    calls = [conditions(pipe, [prompt], seeds=[seed], answered=False) for prompt, seed in asked]
    one, seed, prompt = (_sums(net, call) for call in calls)
    text = [name for name, x in one.items() if x.tokens > 1 and x.same(seed.get(name)) and not x.same(prompt.get(name))]
    together: list[list[str]] = []
    for name in text:
        group = next((group for group in together if one[group[0]].same(one[name])), None)
        group.append(name) if group else together.append([name])
    most = max(together, key=lambda group: len({name.rpartition(".")[0] for name in group}), default=[])
    if len({name.rpartition(".")[0] for name in most}) < 2:
        most = [name for name in text if one[name].given] or next(iter(together), [])
    remember(net, TextLayers(tuple(f"{name}.weight" for name in text), tuple(f"{name}.weight" for name in most)))


@dataclass(frozen=True)
class _Read:
    """What a linear layer read: so many tokens, by sums of them; and whether it is an argument of the call."""

    tokens: int
    sums: tuple[float, float]
    given: bool

    def same(self, other: _Read | None) -> bool:
        """Whether two layers have the same input, up to rounding."""
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
