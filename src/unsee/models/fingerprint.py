"""How a model is named and its weights are hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unsee.models.denoisers import denoisers
from unsee.models.distributed import plain
from unsee.models.names import BUNDLED
from unsee.models.weights import own_names


def model_name(pipe: Any) -> str:
    """How a card names the model of a pipeline: "mini", a hub id@commit, or the last part of a path; then +LoRA."""
    if given := getattr(pipe, "unsee_name", None):
        return str(given)
    origin = str(getattr(pipe, "name_or_path", "") or "in memory")
    if bundled := next((name for name, folder in BUNDLED.items() if folder == Path(origin)), None):
        return bundled
    return Path(origin).name if Path(origin).is_dir() else origin


def variant_of(pipe: Any) -> str | None:
    """Which variant of its files a pipeline was loaded from; None is the plain ones."""
    return getattr(pipe, "unsee_variant", None)


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: sha256 over names, shapes and values, in hex.

    Values are rounded to bfloat16 first, so that one model loaded in float32 and in bfloat16 has one fingerprint. An
    adapter that is on a module is no part of it.
    """
    digest, state = hashlib.sha256(), module.state_dict()
    for key, name in sorted(own_names(module, state).items()):
        value = state[name]
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(plain(value.detach()).to(torch.bfloat16).cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def base_hash(pipe: Any, keys: Iterable[str]) -> str:
    """What a card says of the weights of the denoisers of these names: a fingerprint; of two, the hash of both."""
    nets = denoisers(pipe)
    found = [fingerprint(nets[key]) for key in sorted(set(keys))]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
