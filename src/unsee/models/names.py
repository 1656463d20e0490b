"""Names of models: what a text stands for, and where it lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from unsee.errors import InputError
from unsee.models.sources import (
    PICKLES,
    part_of,
    refused,
)

BUNDLED = {name: Path(__file__).parents[1] / name for name in ("mini", "mini-flow", "mini-flow-turbo")}
"""Models of this package by name: folders in the layout of a hub repository. "mini" is the miniature Stable Diffusion.
"mini-flow" is AuraFlow with a language model, "mini-flow-turbo" its distilled sibling, which takes four steps and no
guidance; both are there after `make mini-flow`."""


@dataclass(frozen=True)
class Source:
    """The parts of a model's name, BASE[@VERSION][+LORA...].

    base     "mini", a folder, a hub id, or one model file
    version  of a hub id, its revision; of a file, the folder or hub id whose layout and settings it has
    loras    files that are put on top
    """

    base: str
    version: str | None
    loras: tuple[str, ...]


def source(model: str) -> Source:
    """Take a model's name apart; the name of an existing folder or file is taken as it is."""
    if len(model) < 1000 and Path(model).exists():
        return Source(model, None, ())
    whole, *loras = model.split("+")
    base, _, version = whole.partition("@")
    return Source(base, version or None, tuple(loras))


def known_as(source: str) -> str:
    """A folder's own name, or a whole hub id: a page is shown to others, so it has no paths of this machine."""
    kind, colon, place = source.rpartition(":")  # of "clip:FOLDER"
    return f"{kind}{colon}{Path(place).name}" if Path(place).is_absolute() else source


def model_folder(model: str) -> Path | None:
    """The folder a model name stands for; None for a hub id and for a file.

    Raises InputError for a folder that is no pipeline.
    """
    model = source(model).base
    if len(model) > 1000 or "\0" in model or re.match(r"~[^/]", model):
        raise InputError(f"{model[:100]!r} is no name of a model")
    path = BUNDLED.get(model) or Path(model).expanduser()
    if model in BUNDLED and not path.is_dir():
        raise InputError(f"{model} does not lie in this package; in a clone of its repository run `make mini-flow`")
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            if kind := part_of(path):
                raise InputError(f"{model} is a {kind}, one part of a pipeline: give the folder of a whole pipeline")
            raise InputError(
                f"{model} is no pipeline folder: it has no model_index.json; save one with pipe.save_pretrained()"
            )
        return path
    if path.is_file() and path.suffix == ".safetensors":
        return None
    if path.is_file() and path.suffix in PICKLES:
        raise refused(path)
    if path.is_file() and path.suffix == ".gguf":
        raise InputError(
            f"{model} holds a denoiser alone, no text encoders: in Python, load it by diffusers' from_single_file with "
            "a GGUFQuantizationConfig, and give unsee the pipeline that it is a part of; lora works on it"
        )
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(
            f"there is no model {model!r}: give 'mini', a pipeline folder, or a hub id such as 'owner/name'"
        )
    return None


def snapshot(model: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model's revision in the local cache; None if it is not there."""
    found = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def commit(model: str, revision: str | None = None) -> str | None:
    """The commit of a hub model's revision as it lies in the local cache; None if it does not."""
    found = snapshot(model, revision)
    return found.name if found else None
