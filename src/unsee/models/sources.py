"""Where a model's weights lie: what a folder or a file holds, and one line for each that cannot be used."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError, fetch_diffusers_config
from huggingface_hub import hf_hub_download, list_repo_files
from safetensors.torch import load_file

from unsee.errors import InputError, unknown

PICKLES = (".ckpt", ".pt", ".pth", ".bin")

CHECKERS = ("safety_checker", "watermarker")
"""Components that black pictures out, or mark them, after a model has drawn them."""

_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(\.(?P<variant>\w+))?(-\d+-of-\d+)?\.safetensors")

_ASKS = {
    "mask_image": "an inpainting model",
    "strength": "a model that redraws a picture, such as a refiner",
    "controlnet_conditioning_scale": "a ControlNet pipeline, which follows a second picture",
    "control_image": "a model that follows a second picture",
}
"""Arguments of a pipeline's call that say that a prompt is not enough for it."""


def variant(
    folder: Path | None, wanted: str | None = None, hub: str | None = None, revision: str | None = None
) -> str | None:
    """The variant of a pipeline's weights that is to be read, such as "fp16"; None is the plain ones.

    folder  of the pipeline, or of what the cache has of it
    wanted  if None, it is what there is of a part that has no plain ones
    hub     the id that is asked for what the folder lacks
    Raises InputError for a part that has pickles only, and for a wanted one that no part has.
    """
    files = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")] if folder else []
    there = _variants(str(folder), files)
    if hub and not any(wanted in names if wanted else names for names in there.values()):
        there = _variants(hub, list_repo_files(hub, revision=revision))
    known = {name for names in there.values() for name in names if name}
    if wanted is not None and wanted not in known:
        if known:
            raise unknown("variant", wanted, known)
        raise InputError(f"{hub or (folder and folder.name)} has no variant {wanted!r}, nor any other: leave it out")
    return wanted or next((min(map(str, names)) for names in there.values() if names and None not in names), None)


def _variants(place: str, files: Sequence[str]) -> dict[str, set[str | None]]:
    """By part of a pipeline, which variants of its weights there are among files such as "unet/config.json"."""
    parts: dict[str, list[str]] = {}
    for path in files:
        part, _, file = path.partition("/")
        parts.setdefault(part, []).append(file)
    found = {}
    for part, inside in sorted(parts.items()):
        found[part] = {match["variant"] for file in inside if (match := _WEIGHTS.fullmatch(file))}
        if not found[part] and any(file.endswith(".bin") for file in inside if "model" in file):
            to = place if Path(place).is_dir() else Path(place).name
            code = f"from diffusers import DiffusionPipeline as P; P.from_pretrained({place!r}).save_pretrained({to!r})"
            raise InputError(
                f"{place} has its {part} as .bin, a pickle, which can run code; only safetensors are read."
                f" Convert it, if you trust it: python -c {shlex.quote(code)}"
            )
    return found


def refused(file: Path) -> InputError:
    """The error for a model file that is a pickle."""
    code = (
        "import torch; from safetensors.torch import save_file;"
        f" d = torch.load({str(file)!r}, map_location='cpu', weights_only=True); d = d.get('state_dict', d);"
        " save_file({k: v.contiguous() for k, v in d.items() if hasattr(v, 'shape')},"
        f" {str(file.with_suffix('.safetensors'))!r})"
    )
    return InputError(
        f"{file} is a pickle, which can run code; only .safetensors are read. Convert it: python -c {shlex.quote(code)}"
    )


def part_of(folder: Path) -> str | None:
    """The class of the one part of a pipeline that a folder holds, such as ControlNetModel; None if it is none."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return str(said.get("_class_name", ""))[:100] or None if isinstance(said, dict) else None


def check_kind(model: str, name: str) -> None:
    """Raise InputError if a pipeline's class, by name, draws from more than a prompt."""
    kind = getattr(diffusers, str(name), None)  # a model with code of its own gives a list
    taken = inspect.signature(kind.__call__).parameters if kind is not None else {}
    if found := next((what for asks, what in _ASKS.items() if asks in taken), None):
        raise InputError(f"{model} is {found} ({name}): give a model that draws from a prompt alone")


def check_channels(model: str, pipe: Any) -> None:
    """Raise InputError if a U-Net reads more channels than its VAE has: a mask and a picture beside the latent."""
    net, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    if net is None or vae is None:
        return
    reads, latent = getattr(net.config, "in_channels", None), getattr(vae.config, "latent_channels", None)
    if reads and latent and reads > latent:
        raise InputError(
            f"{model} is an inpainting or upscaling model: its U-Net reads {reads} channels, a latent has {latent}; "
            "give a model that draws from a prompt alone"
        )


def read_index(place: str | Path, revision: str | None = None) -> dict[str, Any]:
    """What the model_index.json of a folder or of a hub id says: a pipeline's class and its parts."""
    path = Path(place) / "model_index.json"
    path = path if path.is_file() else Path(hf_hub_download(str(place), path.name, revision=revision))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def checkers(kind: type) -> tuple[str, ...]:
    """The CHECKERS that a class of pipelines can do without.

    diffusers has one method for them, `run_safety_checker`, which lets pictures pass where the component is None.
    Pipelines of Cosmos have none: their checker stays, and stops a run with an error, which is not taken for erasing.
    """
    return CHECKERS if hasattr(kind, "run_safety_checker") else ()


def checkers_of(index: dict[str, Any]) -> tuple[str, ...]:
    """The checkers that a model_index.json names and that its pipeline can do without."""
    named = (name for name in checkers(getattr(diffusers, str(index.get("_class_name")), object)) if index.get(name))
    return tuple(name for name in named if index[name][0] is not None)


def without_checkers(index: dict[str, Any]) -> dict[str, Any]:
    """The options of loading that leave them out."""
    found: dict[str, Any] = dict.fromkeys(checkers_of(index))
    return {**found, "requires_safety_checker": False} if "safety_checker" in found else found


def from_file(file: Path, place: str | None, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A pipeline from one model file with the configuration of `place`; by default what diffusers guesses.

    With it comes the model_index.json of `place`.

    What the file lacks, when it holds a denoiser alone, is taken from `place`.
    """
    if place is None:
        guessed: Any = fetch_diffusers_config(load_file(file))  # type: ignore[no-untyped-call]
        place = guessed["pretrained_model_name_or_path"]
    index = read_index(place)
    check_kind(str(place), index["_class_name"])
    kind = getattr(diffusers, index["_class_name"])
    without = without_checkers(index)
    try:
        return kind.from_single_file(str(file), config=str(place), dtype=dtype, **without), index
    except SingleFileComponentError:
        key = next((key for key in ("unet", "transformer") if key in index), None)
        if key is None:
            raise
        part = getattr(diffusers, index[key][1])
        net = part.from_single_file(str(file), config=str(place), subfolder=key, dtype=dtype)
        options: dict[str, Any] = {key: net, **without}
        pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            str(place), dtype=dtype, use_safetensors=True, **options
        )
        return pipe, index
