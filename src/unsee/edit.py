"""An edit: what to add to a model's weights, and a card saying how that was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from unsee.card import Card, read_card
from unsee.errors import InputError
from unsee.layers import swapped
from unsee.pipelines import denoisers, fingerprint


@dataclass(frozen=True)
class Edit:
    """Differences of weights, by "denoiser.parameter" name, and the card that says where they come from.

    An edit is a small file; it changes no model until it is applied, and then only for a while:

        with edit.applied(pipe):
            pipe("a church")
    """

    deltas: dict[str, Tensor]
    card: Card

    @classmethod
    def between(cls, prefix: str, before: Mapping[str, Tensor], after: Mapping[str, nn.Parameter], card: Card) -> Edit:
        """The edit that leads from `before` to `after`, two states of the denoiser called `prefix`, in float32."""
        return cls({f"{prefix}.{name}": after[name].detach().float() - before[name].float() for name in before}, card)

    @contextmanager
    def applied(self, pipe: Any, scale: float = 1.0) -> Iterator[None]:
        """Within the context the pipeline's weights are base + scale * delta; afterwards they are the base's very bits.

        scale  any finite number; 0 is the base, negative strengthens the concept
        Raises InputError if the edit was made for another model.
        """
        parameters = self._fitting(pipe)
        edited = {name: parameters[name].data.clone() for name in self.deltas}
        for name, delta in self.deltas.items():
            edited[name].copy_(edited[name].float().add_(delta.to(edited[name].device), alpha=scale))
        with swapped(parameters, edited):
            yield

    def _fitting(self, pipe: Any) -> dict[str, nn.Parameter]:
        """The pipeline's parameters by the edit's names, if it is the model that the edit was made for."""
        modules = denoisers(pipe)
        parameters = {f"{key}.{name}": value for key, net in modules.items() for name, value in net.named_parameters()}
        made_for = f"this edit was made for {self.card.base!r}"
        for name, delta in self.deltas.items():
            if name not in parameters:
                raise InputError(f"{made_for}; {type(pipe).__name__} here has no weight {name!r}")
            if parameters[name].shape != delta.shape:
                raise InputError(
                    f"{made_for}: {name!r} has shape {tuple(delta.shape)} there, {tuple(parameters[name].shape)} here"
                )
        prefix = next(iter(self.deltas)).split(".")[0]
        here = fingerprint(modules[prefix])
        if here != self.card.base_hash:
            raise InputError(f"{made_for} with weights {self.card.base_hash[:12]}; the weights here are {here[:12]}")
        return parameters

    def save(self, path: str | Path) -> Path:
        """Write a .safetensors file, whole or not at all: deltas as tensors, the card as metadata."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        tensors = {name: delta.contiguous().cpu() for name, delta in self.deltas.items()}
        part.write_bytes(save(tensors, metadata={"unsee": self.card.to_json()}))
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read a file written by `save`. Raises InputError if it is missing, broken, or no edit; reads no pickle."""
        card = read_card(path)
        try:
            deltas = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is broken: {error}") from error
        if not deltas or not all(torch.isfinite(delta).all() for delta in deltas.values()):
            raise InputError(f"{path} holds no usable edit: its numbers are missing or not finite")
        return cls(deltas, card)
