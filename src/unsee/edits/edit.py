"""An edit: differences of a model's weights, and a card that says how they were made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from unsee.edits.card import Card, read_card
from unsee.errors import InputError
from unsee.io.atomic import write_whole
from unsee.models.denoisers import denoisers
from unsee.models.distributed import spread_like, whole_tensor
from unsee.models.fingerprint import base_hash
from unsee.models.model import Pipeline, kind, model_name, raw, variant_of
from unsee.models.names import model_folder
from unsee.models.weights import in_use, is_full_precision, own_parameters, temporary_values


@dataclass(frozen=True)
class LowRank:
    """A difference of a matrix as a product, up @ down: what adapters learn and closed forms compute, kept exact.

    up    (out, rank)
    down  (rank, in); of a convolution (rank, in * height * width)
    """

    up: Tensor
    down: Tensor

    def dense(self, shape: torch.Size) -> Tensor:
        """The difference itself, float32, in the shape of the weight that it belongs to."""
        return (self.up.float() @ self.down.float()).reshape(shape)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Singular value decomposition (out, rank), (rank,), (rank, in), without the product itself.

        up @ down = Qu Ru (Qd Rd)^T: the small matrix in the middle has the same singular values.
        """
        up, down = (factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in (self.up, self.down))
        qu, ru = torch.linalg.qr(up)
        qd, rd = torch.linalg.qr(down.T)
        u, s, v = torch.linalg.svd(ru @ rd.T, full_matrices=False)
        return qu @ u, s, v @ qd.T


Delta = Tensor | LowRank


@dataclass(frozen=True)
class Edit:
    """Differences of weights, by "denoiser.parameter" name, and the card that says where they come from.

    An edit is a small file; it changes no model until it is applied. `applied` and `apply` check that the model is
    the one that the edit was made for: the weights are hashed once, and again when they have changed.

        >>> edit = unsee.Edit.load(edit.save("edit.safetensors"))
        >>> with edit.applied(pipe): picture = pipe("a church").images[0]
    """

    deltas: dict[str, Delta]
    card: Card

    @classmethod
    def between(cls, prefix: str, before: Mapping[str, Tensor], after: Mapping[str, nn.Parameter], card: Card) -> Edit:
        """The edit that leads from `before` to `after`, two states of the denoiser called `prefix`, in float32."""
        return cls({f"{prefix}.{name}": after[name].detach().float() - before[name].float() for name in before}, card)

    @contextmanager
    def applied(self, pipe: Pipeline, scale: float = 1.0) -> Iterator[None]:
        """Within the context the pipeline's weights are base + scale * delta; afterwards they are the base's very bits.

        scale  any finite number; 0 is the base, negative strengthens the concept
        Where a linear layer's weight is quantised, a low-rank difference stands beside it, as an adapter does.
        Raises InputError if the edit was made for another model.
        """
        with self._on(pipe, scale):
            yield

    def apply(self, pipe: Pipeline, scale: float = 1.0) -> None:
        """Put the edit into a pipeline until `remove`, for example in a server; `applied` does so within a context.

        Raises InputError if the edit was made for another model. A model that has an edit is another one (see `merge`).

            >>> edit.apply(pipe)
            >>> edit.remove(pipe)
        """
        with self._on(pipe, scale) as stack:
            _APPLIED.setdefault(self._first(pipe), {})[id(self)] = (self, stack.pop_all())

    def remove(self, pipe: Pipeline) -> None:
        """Take the edit out of a pipeline into which `apply` has put it: the weights are the base's very bits again.

        Raises InputError if the edit is not in the pipeline.
        """
        _, stack = _APPLIED.get(self._first(pipe), {}).pop(id(self), (self, None))
        if stack is None:
            raise InputError("this edit is not in the pipeline: `remove` takes out what its own `apply` has put in")
        stack.close()

    def _first(self, pipe: Pipeline) -> nn.Module:
        """The first denoiser of a pipeline that the edit changes."""
        return denoisers(pipe)[min(name.split(".")[0] for name in self.deltas)]

    def _on(self, pipe: Pipeline, scale: float) -> ExitStack:
        """The context of `applied`, entered already; it holds parts of the denoisers, and not the pipeline."""
        parameters = self.check(pipe)
        beside = {
            name: delta
            for name, delta in self.deltas.items()
            if isinstance(delta, LowRank) and not is_full_precision(parameters[name])
        }
        edited = {name: parameters[name].data.clone() for name in self.deltas if name not in beside}
        for name in edited:
            delta = self.deltas[name]
            dense = delta.dense(edited[name].shape) if isinstance(delta, LowRank) else delta
            edited[name].copy_(edited[name].float().add_(spread_like(dense, edited[name]), alpha=scale))
            if not whole_tensor(torch.isfinite(edited[name]).all()):
                raise InputError(f"with this edit {name!r} holds numbers too large for {edited[name].dtype}")
        with ExitStack() as stack:
            stack.enter_context(temporary_values(parameters, edited))
            stack.enter_context(_beside([(_layer(pipe, name), delta) for name, delta in beside.items()], scale))
            return stack.pop_all()

    def forced(self, pipe: Pipeline) -> Edit:
        """The same differences for the model of `pipe`, whatever they were made for; the card says so.

        This carries an edit from a model to its sibling, a finetune. Raises InputError if names or shapes differ.
        """
        self._parameters(pipe)
        found = self.base_in(pipe)
        if found == self.card.base_hash:
            return self
        origin = self.card.forced_from or self.card.base_hash
        return Edit(
            self.deltas,
            replace(
                self.card,
                base=model_name(pipe),
                base_hash=found,
                forced_from=origin,
                claims=None,
                variant=variant_of(pipe),
            ),
        )

    def base(self, model: str | None = None, variant: str | None = None) -> tuple[str, str | None]:
        """The name and the variant of the model to load for this edit: those given, else what its card says.

        Raises InputError if the model that the card names is not found.
        """
        if model:
            return model, variant
        base = self.card.base
        try:
            model_folder(base)
        except InputError as error:
            said = f"the edit was made for {base!r}, which is not found here: give `model`"
            raise InputError(said) from error
        return base, variant or self.card.variant

    def fingerprint(self) -> str:
        """A hash of every bit of the differences, without the card."""
        digest = hashlib.sha256()
        for name, delta in sorted(self.deltas.items()):
            for part in (delta.up, delta.down) if isinstance(delta, LowRank) else (delta,):
                whole = part.detach().cpu().contiguous()
                digest.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
                digest.update(whole.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def base_in(self, pipe: Pipeline) -> str:
        """The hash of the denoisers that the edit changes, as they are in a pipeline now."""
        return base_hash(pipe, [name.split(".")[0] for name in self.deltas])

    def check(self, pipe: Pipeline) -> dict[str, nn.Parameter]:
        """The pipeline's parameters by the edit's names. Raises InputError if the edit was made for another model."""
        parameters = self._parameters(pipe)
        found = self.base_in(pipe)
        if found != self.card.base_hash:
            if any(in_use(denoisers(pipe)[key]) for key in {name.split(".")[0] for name in self.deltas}):
                raise InputError(
                    "another edit is applied already, and this one was not made on top of it; to apply edits of one "
                    "base together, use `unsee.applied(pipe, [edit, edit])`"
                )
            raise InputError(
                f"this edit was made for {self.card.base!r} with weights {self.card.base_hash[:12]}; "
                f"the weights here are {found[:12]}; {self._elsewhere(pipe)}"
            )
        return parameters

    def _elsewhere(self, pipe: Pipeline) -> str:
        """What to do where the weights are not those that the edit was made for."""
        made, here = self.card.variant, variant_of(pipe)
        if made == here:
            return "give the model that it was made for; `edit.forced(pipe)` carries it over to this one"
        if made is None:
            return f"it was made for the plain files, and the variant {here!r} is loaded: leave out `variant`"
        return f"it was made for the variant {made!r} of the model's files: load it with `variant` {made}"

    def _parameters(self, pipe: Pipeline) -> dict[str, nn.Parameter]:
        """The pipeline's parameters by the edit's names. Raises InputError if one is missing or of another shape."""
        modules = denoisers(pipe)
        parameters = {
            f"{key}.{name}": value for key, net in modules.items() for name, value in own_parameters(net).items()
        }
        made_for = f"this edit was made for {self.card.base!r}"
        for weight, delta in self.deltas.items():
            if weight not in parameters:
                raise InputError(f"{made_for}; {kind(pipe).__name__} here has no weight {weight!r}")
            there, here = _shape(delta), tuple(parameters[weight].shape)
            layer = _layer(pipe, weight)
            if isinstance(layer, nn.Linear):  # a packed weight has another shape than its layer
                here = (layer.out_features, layer.in_features) if weight.endswith(".weight") else here
            if there != (here if isinstance(delta, Tensor) else (here[0], math.prod(here[1:]))):
                raise InputError(f"{made_for}: {weight!r} has shape {there} there, {here} here")
        return parameters

    def save(self, path: str | Path) -> Path:
        """Write a .safetensors file, whole or not at all: deltas as tensors, the card as metadata.

        A dense delta is stored under its weight's name, a low-rank one under that name + ".up" and ".down".
        """
        path = Path(path)
        tensors: dict[str, Tensor] = {}
        for name, delta in self.deltas.items():
            if isinstance(delta, Tensor):
                tensors[name] = delta
            else:
                tensors |= {f"{name}.up": delta.up, f"{name}.down": delta.down}
        tensors = {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}
        data = save(tensors, metadata={"unsee": self.card.to_json()})
        write_whole(path, lambda part: part.write_bytes(data))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read a file written by `save`. Raises InputError if it is missing, broken, or no edit; reads no pickle."""
        card = read_card(path)
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is broken: {error}") from error
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise InputError(f"{path} holds no usable edit: some of its numbers are not finite")
        deltas: dict[str, Delta] = {}
        for key, tensor in tensors.items():
            name, _, piece = key.rpartition(".")
            if piece not in ("up", "down"):
                deltas[key] = tensor
            else:
                deltas[name] = LowRank(tensors[f"{name}.up"], tensors[f"{name}.down"])
        return cls(deltas, card)


_APPLIED: WeakKeyDictionary[nn.Module, dict[int, tuple[Edit, ExitStack]]] = WeakKeyDictionary()
"""Edits that `apply` has put into denoisers, with what takes them out."""


def _shape(delta: Delta) -> tuple[int, ...]:
    return tuple(delta.shape) if isinstance(delta, Tensor) else (delta.up.shape[0], delta.down.shape[-1])


def _layer(pipe: Pipeline, weight: str) -> nn.Module:
    """The module that holds a weight, which an edit names "denoiser.layer.weight"."""
    key, _, name = weight.partition(".")
    module: nn.Module = getattr(raw(pipe), key).get_submodule(name.rpartition(".")[0])
    return module


@contextmanager
def _beside(layers: Sequence[tuple[nn.Module, LowRank]], scale: float) -> Iterator[None]:
    """Within the context linear layers answer W x + scale up (down x), whatever W is stored as."""

    def hook(delta: LowRank) -> Any:
        def add(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            up, down = delta.up.to(out), delta.down.to(out)
            return out + scale * nn.functional.linear(nn.functional.linear(args[0].to(out), down), up)

        return add

    handles = [layer.register_forward_hook(hook(delta)) for layer, delta in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
