"""What layers inside a denoiser read and add while a pipeline draws, for B prompts, a row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from torch import Tensor, nn

from unsee.calls import Call, named, replay, stacked, tensors
from unsee.guidance import Enough, run, unguided
from unsee.layers import TextLayers, known, remember
from unsee.pipelines import denoiser
from unsee.recorder import conditions


def second_moments(pipe: Any, prompts: Sequence[str], layers: Sequence[str], *, batch: int = 64) -> dict[str, Tensor]:
    """E[x x^T] of the inputs x of linear layers of the denoiser, over all tokens of all prompts.

    layers  names of modules; the result has a (features, features) matrix for each, shared where they read one tensor
    Costs at most one unguided denoiser call for each prompt, and none where the layers read an argument of it.
    """
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def add(name: str, x: Tensor) -> None:
        x = x.flatten(0, -2).float()
        sums[name] = sums.get(name, 0) + x.T @ x
        counts[name] += x.shape[0]

    together = _together(pipe, prompts[0], layers)
    for start in range(0, len(prompts), batch):
        _overhear(pipe, prompts[start : start + batch], together, add)
    found = {name: total / counts[name] for name, total in sums.items()}
    return {name: found[first] for first, source in together.items() for name in source.layers}


def inputs(pipe: Any, prompts: Sequence[str], layers: Sequence[str]) -> dict[str, Tensor]:
    """The inputs (B, ..., features) of layers of the denoiser in one unguided call for B prompts, all at one latent."""
    heard: dict[str, Tensor] = {}
    together = _together(pipe, prompts[0], layers)
    _overhear(pipe, prompts, together, heard.__setitem__, seeds=[0] * len(prompts))
    return {name: heard[first] for first, source in together.items() for name in source.layers}


def means(pipe: Any, prompts: Sequence[str], layer: str, *, batch: int = 64) -> Tensor:
    """The inputs of a layer of the denoiser for B prompts, each a mean over all tokens: (B, features)."""
    found: list[Tensor] = []
    together = _together(pipe, prompts[0], [layer])
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]

        def add(_: str, x: Tensor, n: int = len(some)) -> None:
            found.append(x.reshape(n, -1, x.shape[-1]).float().mean(1))

        _overhear(pipe, some, together, add, seeds=[0] * len(some))
    return torch.cat(found)


@dataclass(frozen=True)
class _Source:
    """Layers that read one tensor, and the denoiser's argument that it is; None if the denoiser computes it."""

    layers: tuple[str, ...] = ()
    argument: str | None = None


def _together(pipe: Any, prompt: str, layers: Sequence[str]) -> dict[str, _Source]:
    """Layers that read one tensor, by the first of them: all cross-attention reads what the text encoder wrote."""
    _, net = denoiser(pipe)
    heard: dict[str, Tensor] = {}  # holds what was read, so that no two tensors had one place in memory
    given: dict[str, Any] = {}
    handle = net.register_forward_pre_hook(lambda *call: given.update(named(*call)), with_kwargs=True)
    try:
        _overhear(pipe, [prompt], {name: _Source() for name in layers}, heard.__setitem__)
    finally:
        handle.remove()
    arguments = {_where(value): name for name, value in given.items() if isinstance(value, Tensor)}
    groups: dict[tuple[int, torch.Size], list[str]] = {}
    for name, x in heard.items():
        groups.setdefault(_where(x), []).append(name)
    return {names[0]: _Source(tuple(names), arguments.get(where)) for where, names in groups.items()}


def _where(x: Tensor) -> tuple[int, torch.Size]:
    return x.data_ptr(), x.shape


def _overhear(
    pipe: Any,
    prompts: Sequence[str],
    layers: Mapping[str, _Source],
    hear: Callable[[str, Tensor], None],
    seeds: Sequence[int] | None = None,
) -> None:
    """Make the first denoiser call of unguided runs, until `hear` has got each layer's name and input.

    Where all of them read arguments of the call, the denoiser computes nothing.
    """
    _, net = denoiser(pipe)
    options, seeds = unguided(pipe), seeds or range(len(prompts))
    silent = set(layers)

    def listen(name: str, x: Tensor) -> None:
        hear(name, x.detach())
        silent.discard(name)
        if not silent:
            raise Enough

    def answered(*_: object) -> None:
        raise Enough

    def asked(*call: Any) -> None:
        arguments = named(*call)
        for name, source in layers.items():
            if source.argument:
                listen(name, arguments[source.argument])

    handles = [net.register_forward_pre_hook(asked, with_kwargs=True)] + [
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: listen(name, args[0]))
        for name, source in layers.items()
        if not source.argument
    ]
    try:
        run(pipe, answered, prompts, seeds, 50, options)
    finally:
        for handle in handles:
            handle.remove()


def find_text(pipe: Any) -> None:
    """Find out which layers of the denoiser read the text, where no name tells (layers.BLOCKS), once for each denoiser.

    They read the same with another seed and something else with another prompt, and many tokens. Where it enters:

        keys and values of cross-attention   several blocks have layers that read one and the same text
        an embedder                          else those that read an argument of the call, else those heard first
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
    pipe: Any, prompts: Sequence[str], layers: Sequence[str], *, seeds: Sequence[int], steps: int = 20
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
