"""What layers inside a denoiser read and add while a pipeline draws, for B prompts, a row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsee.calls import named, stacked
from unsee.guidance import Enough, run, unguided
from unsee.pipelines import denoiser


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
