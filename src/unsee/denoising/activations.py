"""What layers inside a denoiser read and add while a pipeline draws, for B prompts, a row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, bind_arguments
from unsee.denoising.guidance import Enough, at_small_size, run, unguided
from unsee.denoising.replay import replay
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.memory import Portions, spread
from unsee.models.model import Pipeline, raw
from unsee.models.weights import is_full_precision
from unsee.progress import Progress, no_progress

FAINT = 1e-6
"""The least share of what a layer puts out that a channel of its input counts as making."""


def second_moments(
    pipe: Pipeline, prompts: Sequence[str], layers: Sequence[str], *, batch: int = 64, progress: Progress = no_progress
) -> dict[str, Tensor]:
    """E[x x^T], float64, of the inputs x of linear layers of the denoiser, over all tokens of all prompts.

    layers  names of modules; the result has a (features, features) matrix for each, shared where they read one tensor
    A channel that its layers hardly read counts as louder than it is; see `audible`.
    Costs at most one unguided denoiser call for each prompt, and none where the layers read an argument of it.
    """
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def moments(rows: slice) -> dict[str, tuple[Tensor, int]]:
        found: dict[str, tuple[Tensor, int]] = {}

        def add(name: str, x: Tensor, read: Tensor) -> None:
            x = x[read].double()  # what is inverted must be known to more than float32 sums to
            found[name] = (x.T @ x, x.shape[0])

        _listen(pipe, prompts[rows], together, add)
        progress("prompts", rows.stop, len(prompts))
        return found

    progress("prompts", 0, len(prompts))
    together = _together(pipe, prompts[0], layers)
    for part in _portions(pipe, batch).each(moments, len(prompts)):
        for name, (moment, count) in part.items():
            sums[name] = sums.get(name, 0) + moment
            counts[name] += count
    _, net = denoiser(pipe)
    found = {name: audible(net, together[name].layers, total / counts[name]) for name, total in sums.items()}
    return {name: found[first] for first, source in together.items() for name in source.layers}


def audible(net: nn.Module, layers: Sequence[str], moment: Tensor) -> Tensor:
    """A moment E[x x^T] of what layers read, in which each channel j makes a share FAINT of what one of them puts out:

        E[x_j^2]  >=  FAINT min_W sum_k |W_k|^2 E[x_k^2] / |W_j|^2,     W_j a column of W

    Text encoders have dead channels: one of MiniLM's is of size 1e-9. In exact numbers it tells names apart as well as
    any other does, and to an inverse moment it is the cheapest one to read. Such an edit has numbers of 1e7, which
    float16 does not hold, and in 8 bits they drown all others (docs/LOG.md). The rule is the same for any scale of x.
    """
    loud, least = moment.diagonal(), torch.full_like(moment.diagonal(), torch.inf)
    for layer in layers:
        columns = _columns(net, layer, len(moment)).to(moment)
        total = (columns * loud).sum()
        least = torch.minimum(least, FAINT * total / columns.clamp(min=FAINT * float(columns.mean()) + 1e-300))
    more = (least - loud).clamp(min=0)
    return moment + more.diag() if more.any() else moment


def _columns(net: nn.Module, layer: str, features: int) -> Tensor:
    """The squared lengths of the columns of a layer's matrix."""
    weight = net.get_submodule(layer).weight
    if isinstance(weight, nn.Parameter) and is_full_precision(weight):
        return whole_tensor(weight).detach().double().square().sum(0)
    return written(net, layer, torch.eye(features, device=next(net.parameters()).device)).double().square().sum(-1)


def _portions(pipe: Pipeline, batch: int) -> Portions:
    return Portions(batch, "prompts", "load the text encoders in fewer bits", fixed=spread(pipe))


@torch.no_grad()
def met(pipe: Pipeline, moments: Mapping[str, Tensor], calls: Sequence[Call]) -> dict[str, Tensor]:
    """Second moments that `second_moments` found, and what recorded calls have of them at all their times.

    Layers behind the first ones may read text that depends on the time and on the picture: half of such a moment is
    then of what they read in these calls. What layers read of arguments is the same at all times, and stays as it is.
    """
    sources = _together(pipe, "", list(moments)).values()
    changing = [layer for source in sources if not source.argument for layer in source.layers]
    if not (changing and calls):
        return dict(moments)
    _, net = denoiser(pipe)
    found: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    for call in calls:
        masks = _masks(call.arguments)

        def add(layer: str, x: Tensor, masks: Sequence[Tensor] = masks) -> None:
            x = x[_read(x, masks)].double()
            found[layer] = found.get(layer, 0) + x.T @ x
            counts[layer] += len(x)

        handles = [
            net.get_submodule(layer).register_forward_pre_hook(lambda _, args, layer=layer: add(layer, args[0]))
            for layer in changing
        ]
        try:
            replay(net, call)
        finally:
            for handle in handles:
                handle.remove()
    return {**moments, **{layer: (moments[layer] + found[layer] / counts[layer]) / 2 for layer in changing}}


def _masks(arguments: Mapping[str, Any]) -> list[Tensor]:
    return [value for name, value in arguments.items() if "mask" in name and isinstance(value, Tensor)]


def _read(x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Which tokens of x (..., features) no mask hides; an additive mask is 0 where one reads."""
    mask = next((mask for mask in masks if mask.shape == x.shape[:-1]), torch.ones(x.shape[:-1]))
    return (mask == mask.max()).to(x.device)


def inputs(pipe: Pipeline, prompts: Sequence[str], layers: Sequence[str]) -> dict[str, Tensor]:
    """The inputs (B, ..., features) of layers of the denoiser in one unguided call for B prompts, all at one latent.

    Padding that a mask hides is zero.
    """
    together = _together(pipe, prompts[0], layers)

    def capture(rows: slice) -> dict[str, Tensor]:
        captured: dict[str, Tensor] = {}

        def add(name: str, x: Tensor, read: Tensor) -> None:
            captured[name] = torch.where(read[..., None], x, 0)

        _listen(pipe, prompts[rows], together, add, seeds=[0] * len(prompts[rows]))
        return captured

    parts = list(_portions(pipe, len(prompts)).each(capture, len(prompts)))
    captured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]
    return {name: captured[first] for first, source in together.items() for name in source.layers}


def means(
    pipe: Pipeline, prompts: Sequence[str], layers: Sequence[str], *, batch: int = 64, progress: Progress = no_progress
) -> dict[str, Tensor]:
    """The inputs of layers of the denoiser for B prompts, each a mean over all tokens: (B, features) for each layer."""
    progress("words", 0, len(prompts))
    together = _together(pipe, prompts[0], layers)

    def capture(rows: slice) -> dict[str, Tensor]:
        captured: dict[str, Tensor] = {}
        n = len(prompts[rows])

        def add(name: str, x: Tensor, read: Tensor) -> None:
            x, weight = x.reshape(n, -1, x.shape[-1]).float(), read.reshape(n, -1, 1).float()
            captured[name] = (x * weight).sum(1) / weight.sum(1).clamp(min=1)

        _listen(pipe, prompts[rows], together, add, seeds=[0] * n)
        progress("words", rows.stop, len(prompts))
        return captured

    parts = list(_portions(pipe, batch).each(capture, len(prompts)))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: found[first] for first, source in together.items() for name in source.layers}


@torch.no_grad()
def written(denoiser: nn.Module, layer: str, x: Tensor) -> Tensor:
    """W x, float32, of a linear layer of the denoiser, whatever W is stored as; x: (..., features)."""
    module = denoiser.get_submodule(layer)
    weight = module.weight
    if isinstance(weight, nn.Parameter) and is_full_precision(weight):
        return nn.functional.linear(x.float(), whole_tensor(weight).float())
    x = x.to(getattr(denoiser, "dtype", x.dtype))
    result: Tensor = module(x) - module(torch.zeros_like(x[..., :1, :]))
    return result.float()


@dataclass(frozen=True)
class _Source:
    """Layers that read one tensor, and the denoiser's argument that it is; None if the denoiser computes it."""

    layers: tuple[str, ...] = ()
    argument: str | None = None


_TOGETHER: WeakKeyDictionary[Any, dict[tuple[str, ...], dict[str, _Source]]] = WeakKeyDictionary()
"""What `_together` has found of a pipeline, as long as it lives: a prompt has no part in it."""


def _together(pipe: Pipeline, prompt: str, layers: Sequence[str]) -> dict[str, _Source]:
    """Layers that read one tensor, by the first of them: all cross-attention reads what the text encoder wrote."""
    known, key = _TOGETHER.setdefault(raw(pipe), {}), tuple(layers)
    if key not in known:
        known[key] = at_small_size(pipe, lambda size: _sources(pipe, prompt, layers, size))
    return known[key]


def _sources(pipe: Pipeline, prompt: str, layers: Sequence[str], size: Mapping[str, Any]) -> dict[str, _Source]:
    """The same, found by the first denoiser call of a run."""
    _, net = denoiser(pipe)
    captured: dict[str, Tensor] = {}  # holds what was read, so that no two tensors had one place in memory
    given: dict[str, Any] = {}
    handle = net.register_forward_pre_hook(lambda *call: given.update(bind_arguments(*call)), with_kwargs=True)
    try:
        alone = {name: _Source() for name in layers}
        _listen(pipe, [prompt], alone, lambda name, x, _: captured.update({name: x}), size=size)
    finally:
        handle.remove()
    arguments = {_where(value): name for name, value in given.items() if isinstance(value, Tensor)}
    groups: dict[tuple[int, torch.Size], list[str]] = {}
    for name, x in captured.items():
        groups.setdefault(_where(x), []).append(name)
    return {names[0]: _Source(tuple(names), arguments.get(where)) for where, names in groups.items()}


def _where(x: Tensor) -> tuple[int, torch.Size]:
    return x.data_ptr(), x.shape


def _listen(
    pipe: Pipeline,
    prompts: Sequence[str],
    layers: Mapping[str, _Source],
    capture: Callable[[str, Tensor, Tensor], None],
    seeds: Sequence[int] | None = None,
    size: Mapping[str, Any] = {},
) -> None:
    """Make the first denoiser call of unguided runs, until `hear` has got each layer's name and input.

    With them comes which tokens are read: those that no mask hides, all but features of the input's shape. Where all
    layers read arguments of the call, the denoiser computes nothing.
    """
    _, net = denoiser(pipe)
    options, seeds = {**unguided(pipe), **size}, seeds or range(len(prompts))
    silent = set(layers)
    masks: list[Tensor] = []

    def listen(name: str, x: Tensor) -> None:
        capture(name, x.detach(), _read(x, masks))
        silent.discard(name)
        if not silent:
            raise Enough

    def answered(*_: object) -> None:
        raise Enough

    def asked(*call: Any) -> None:
        arguments = bind_arguments(*call)
        masks.extend(_masks(arguments))
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
