"""How weights are hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from unsee.models.denoisers import denoisers
from unsee.models.distributed import plain
from unsee.models.model import Pipeline
from unsee.models.weights import own_names


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: sha256 over names, shapes and values, in hex.

    Values are rounded to bfloat16 first, so that one model loaded in float32 and in bfloat16 has one fingerprint. An
    adapter that is on a module is no part of it. What was hashed last is not hashed again until it changes.
    """
    state = module.state_dict()
    values = {key: state[name] for key, name in sorted(own_names(module, state).items())}
    marks = {key: _Mark.of(value) for key, value in values.items()}
    known = _HASHED.get(module)
    if known is None or None in marks.values() or marks != known[0]:
        _HASHED[module] = known = (marks, hash_of(values))
    return known[1]


def hash_of(values: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and values in bfloat16, in hex."""
    digest = hashlib.sha256()
    for key, value in values.items():
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(plain(value.detach()).to(torch.bfloat16).cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(eq=False)
class _Mark:
    """Shows at little cost whether a tensor is as it was: its memory, how often it was changed, and its last row.

    The version does not count changes through `.data`; the last row shows them, unless they leave it as it is.
    """

    storage: StorageWeakRef
    layout: tuple[object, ...]
    row: Tensor

    @classmethod
    def of(cls, value: Tensor) -> _Mark | None:
        """None for what is no plain tensor (quantised, spread over processes): it is hashed each time."""
        if type(value) is not Tensor or value.is_inference():
            return None
        layout = (value._version, value.storage_offset(), value.shape, value.stride(), value.dtype, value.device)
        storage = StorageWeakRef(value.untyped_storage())  # type: ignore[no-untyped-call]
        return cls(storage, layout, (value[-1:] if value.ndim else value).clone())

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, _Mark) and (self.storage, self.layout) == (other.storage, other.layout)
        return same and torch.equal(self.row, other.row)  # type: ignore[attr-defined]


_HASHED: WeakKeyDictionary[nn.Module, tuple[dict[str, _Mark | None], str]] = WeakKeyDictionary()
"""The last fingerprint of each module, with the marks of the weights that it was taken of."""


def base_hash(pipe: Pipeline, keys: Iterable[str]) -> str:
    """The hash of these denoisers' weights for a card: a fingerprint; with two denoisers, the hash of both."""
    nets = denoisers(pipe)
    found = [fingerprint(nets[key]) for key in sorted(set(keys))]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
