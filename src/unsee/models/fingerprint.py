"""How weights are hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

from unsee.models.denoisers import denoisers
from unsee.models.distributed import plain
from unsee.models.model import Pipeline
from unsee.models.weights import own_names


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


def base_hash(pipe: Pipeline, keys: Iterable[str]) -> str:
    """What a card says of the weights of the denoisers of these names: a fingerprint; of two, the hash of both."""
    nets = denoisers(pipe)
    found = [fingerprint(nets[key]) for key in sorted(set(keys))]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
