r"""Causal tracing: how much of a prompt's effect on the prediction goes through some layers.

Meng, Bau, Andonian, Belinkov: "Locating and editing factual associations in GPT", NeurIPS 2022, arXiv:2202.05262; of
diffusion models Basu et al.: "Localizing and editing knowledge in text-to-image generative models", ICLR 2024,
arXiv:2310.13730. With three predictions at one x and t,

    c    where the concept is asked for
    a    where something else is asked for, the anchor
    p    where the concept is asked for, while some layers put out what they put out for the anchor

    moved  =  <p - c, a - c> / |a - c|^2

is 0 if nothing of the difference between the two prompts comes through these layers, and 1 if all of it does. Layers
that are patched together count together; what comes through one may come through another too, so that shares of
single layers need not add up to 1.

Departures: there, noise on the prompt's embeddings takes the concept away and one layer's activation is restored. Here
the anchor's activation takes the place of one layer's, which leads to a prediction that the model makes, not to noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call
from unsee.denoising.replay import replay
from unsee.errors import InputError


@dataclass(frozen=True)
class Place:
    """What a module of the denoiser puts out, or a part of it.

    layer   the module's name
    part    which of the tensors that it returns; None: it returns one
    tokens  first and last + 1 of the places (B, places, channels) that count; None: all
    """

    layer: str
    part: int | None = None
    tokens: tuple[int, int] | None = None

    def of(self, output: Any) -> Tensor:
        """The whole tensor that the place is in. Raises InputError if the module returns something else."""
        found = output if self.part is None else output[self.part]
        if not isinstance(found, Tensor):
            raise InputError(f"{self.layer} returns several values: name one of them as the part")
        return found

    def at(self, output: Tensor) -> Tensor:
        return output if self.tokens is None else output[:, slice(*self.tokens)]


@torch.no_grad()
def activations(denoiser: nn.Module, call: Call, places: Iterable[Place]) -> dict[Place, Tensor]:
    """What modules put out in a call, at each place. Raises InputError for a module that the call does not reach."""
    found: dict[Place, Tensor] = {}

    def keep(place: Place, output: Any) -> None:
        found[place] = place.at(place.of(output)).clone()

    places = list(dict.fromkeys(places))
    with _hooked(denoiser, places, keep):
        replay(denoiser, call)
    if silent := next((one.layer for one in places if one not in found), None):
        raise InputError(f"{silent} is not reached by this call")
    return found


@contextmanager
def patched(denoiser: nn.Module, held: Mapping[Place, Tensor]) -> Iterator[None]:
    """Within the context modules put out what `held` has for their places, whatever they read.

    Raises InputError, when the denoiser is called, where the shapes differ: prompts that are written in other numbers
    of tokens.
    """

    def put(place: Place, output: Any) -> Any:
        whole, value = place.of(output), held[place]
        if place.at(whole).shape != value.shape:
            raise InputError(
                f"{place.layer} returns shape {tuple(whole.shape)}, not {tuple(value.shape)} as for the anchor"
            )
        new = value
        if place.tokens is not None:
            new = whole.clone()
            new[:, slice(*place.tokens)] = value
        return new if place.part is None else (*output[: place.part], new, *output[place.part + 1 :])

    with _hooked(denoiser, held, put):
        yield


@contextmanager
def _hooked(denoiser: nn.Module, places: Iterable[Place], meet: Callable[[Place, Any], Any]) -> Iterator[None]:
    """Within the context `meet` sees what modules put out at each place, and what it returns, unless None, goes on."""
    handles = [
        denoiser.get_submodule(one.layer).register_forward_hook(lambda _, __, output, one=one: meet(one, output))
        for one in places
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def exchanged(denoiser: nn.Module, call: Call, other: Call, places: Iterable[Place]) -> Tensor:
    """The prediction (B, ...) for `call` while places hold what they hold for `other`; B rows each, at one x and t."""
    with patched(denoiser, activations(denoiser, other, places)):
        return replay(denoiser, call)


def moved(c: Tensor, a: Tensor, p: Tensor) -> Tensor:
    """The share (B,) of the way from c to a that p has gone; each (B, ...)."""
    way, gone = ((x - c).flatten(1).float() for x in (a, p))
    return (gone * way).sum(1) / way.square().sum(1)
