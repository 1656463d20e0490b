"""Other tools' results as edits, with what is known of their origin.

weights  changed weights under a denoiser's own names: the ESD authors' and UCE's safetensors. Their difference to
         the base is the edit
lora     products of two factors, under the keys of any trainer (`unsee.io.lora`): kept as such
comfy    ComfyUI's and A1111's .diff and .diff_b
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsee.concepts import Concept
from unsee.edits.card import Card
from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError
from unsee.export import comfy
from unsee.io import lora
from unsee.io.safetensors import MOST_BYTES
from unsee.models.denoisers import denoiser
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Pipeline, model_name, variant_of
from unsee.models.sources import PICKLES
from unsee.versions import versions


def adopt(
    path: Path, pipe: Pipeline, *, concepts: Sequence[Concept] = (), unpickle: bool = False, partial: bool = False
) -> Edit:
    """Read another tool's file as an edit of the model `pipe`, which must be the model that it was made for.

    concepts  what the file erases, as the user says: the file does not
    unpickle  read a .pt file too, with torch.load(weights_only=True), which builds tensors and plain containers only
    partial   take what fits the model of an adapter that has more layers than it; text encoders are left out anyway
    Raises InputError if the file is broken, does not fit the model, or changes nothing of its denoiser.
    """
    metadata: dict[str, str] = {}
    if path.suffix in PICKLES and path.is_file():
        if not unpickle:
            raise InputError(f"{path.name} is a pickle, which can run code: `unpickle` converts it with weights only")
        tensors = _unpickled(path)
    else:
        tensors, metadata = lora.read_tensors(path)
    if "unsee" in metadata:
        raise InputError(f"{path} is an edit of unsee already")
    key, net = denoiser(pipe)
    plain = {name: value for name, value in tensors.items() if name.endswith((".diff", ".diff_b"))}
    factors = {name: value for name, value in tensors.items() if name not in plain}
    deltas: dict[str, Delta] = {}
    text: list[str] = []
    unknown: list[str] = []
    kind = "lora" if lora.is_lora(factors) else "comfy" if plain else "weights"
    if kind == "weights":
        deltas = _weights(path, tensors, pipe)
    if kind == "lora":
        deltas, text, unknown = _lora(path, factors, metadata, pipe)
    if plain:
        found, used = comfy.unpack(key, net, plain)
        deltas |= {f"{key}.{name}": delta for name, delta in found.items()}
        left = plain.keys() - used
        text += [name for name in left if lora.TEXT.match(name)]
        unknown += [name for name in left if not lora.TEXT.match(name)]
    if text and not deltas and not unknown:
        raise InputError(f"{path} changes text encoders only; an edit changes the {key}")
    if unknown and not (partial and deltas):
        share = f"{len(unknown)} of {len(unknown) + len(deltas)} layers are not in this {type(net).__name__}"
        rest = "; `partial` takes only the others" if deltas else ""
        raise InputError(f"{path}: {share}, such as {min(unknown)[:200]!r}{rest}")
    if not deltas:
        raise InputError(f"{path} changes nothing of this model's denoiser")
    out = {"text encoder": len(text), "not in this model": len(unknown)}
    settings = {
        "file": path.name,
        "sha256": _sha256(path),
        "format": kind,
        "left_out": {what: count for what, count in out.items() if count},
    }
    base = (model_name(pipe), fingerprint(net))
    edit = Edit(deltas, Card("imported", settings, tuple(concepts), *base, 0, versions(), variant=variant_of(pipe)))
    edit.check(pipe)
    return edit


def _weights(path: Path, tensors: dict[str, Tensor], pipe: Pipeline) -> dict[str, Delta]:
    """The difference of weights to the base's. One that is the base's, as the file's type of number has it, is none."""
    key, net = denoiser(pipe)
    parameters = dict(net.named_parameters())
    deltas: dict[str, Delta] = {}
    if any(given.startswith("model.diffusion_model.") for given in tensors):
        raise InputError(f"{path} is a whole model file: use it as `model` {path}@LAYOUT")
    for given, tensor in tensors.items():
        weight = given.removeprefix(f"{key}.")
        if weight not in parameters:
            near = get_close_matches(weight, parameters, n=1, cutoff=0)
            raise InputError(
                f"{path}: {type(net).__name__} has no weight {given[:200]!r}; nearest: {near[0]!r}; what can be read:"
                " changed weights as of ESD and UCE, LoRAs, and .diff keys"
            )
        base = parameters[weight].data
        if tensor.shape != base.shape:
            raise InputError(f"{path}: {given!r} has shape {tuple(tensor.shape)}, {tuple(base.shape)} in this model")
        value = tensor.to(base.device)
        if not torch.equal(value, base.to(value.dtype)):
            deltas[f"{key}.{weight}"] = value.float() - base.float()
    return deltas


def _lora(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], pipe: Pipeline
) -> tuple[dict[str, Delta], list[str], list[str]]:
    """The differences in the denoiser, and the layers of text encoders and of nothing here, which are left out."""
    key, net = denoiser(pipe)
    folded = lora.factors(path, tensors, metadata)
    found = lora.layers(path, folded, key, net)
    if found.factors or not found.unknown:
        deltas: dict[str, Delta] = {f"{key}.{name}": LowRank(*pair) for name, pair in found.factors.items()}
        return deltas, found.text, found.unknown
    deltas = {}
    with lora.loaded(pipe, path, folded):  # a format that diffusers may know
        for layer, module in net.named_modules():
            for adapter, down in getattr(module, "lora_A", {}).items():
                up, scale = module.lora_B[adapter].weight.detach(), module.scaling[adapter]
                factor = up.flatten(1) if scale == 1 else up.flatten(1) * scale
                deltas[f"{key}.{layer}.weight"] = LowRank(factor.clone(), down.weight.detach().flatten(1).clone())
    return deltas, found.text, found.unknown[len(deltas) :]


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt file: a state dict, or one for each module, as in the ESD authors' second code."""
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which is the most that is read")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile pickle makes of the reader
        raise InputError(f"{path} cannot be read with weights only: {' '.join(str(error).split())[:200]}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    tensors: dict[str, Tensor] = {}

    def take(prefix: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                tensors[prefix] = value
            elif prefix.endswith(".alpha"):
                tensors[prefix] = value.float()
        elif isinstance(value, dict) and prefix.count(".") < 64:
            for part, inner in value.items():
                take(f"{prefix}.{part}" if prefix else str(part), inner)
        elif not isinstance(value, int | float | str | None):  # such as counts of steps
            raise InputError(f"{path} is no state dict: {prefix[:200]!r} is a {type(value).__name__}")

    take("", found)
    lora.check_finite(path, tensors)
    return tensors


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
