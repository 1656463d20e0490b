"""The card of an edit: how it was made. Reading one costs no torch."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from unsee.concepts import Concept
from unsee.errors import InputError, invalid

MOST_HEADER = 16 * 2**20
MOST_BYTES = 64 * 2**30
"""What is read at most, in bytes: a header of 100,000 names; the largest open models in float32."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types that weights may have, as safetensors names them."""

WEIGHT = re.compile(r"(unet|transformer|transformer_2)(\.[A-Za-z0-9_-]+)+")
"""The names that an edit may hold: a denoiser and one of its parameters."""

_ADAPTER = re.compile(r"lora_(up|down|A|B)\b|lora\.(up|down)\b|\.diff(_b)?$|lokr_|hada_")

_strict = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=_strict)
class Claims:
    """What was measured of an edit, and all that is needed to measure it again.

    pictures  for each row
    seed      of a row's first picture
    steps, guidance_scale  of the sampler
    judges    which classifiers answered, by kind: names, never places
    rows      by name: the share of pictures that show what was asked, before and after
    """

    pictures: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    guidance_scale: Annotated[float, Field(allow_inf_nan=False)]
    judges: dict[str, str]
    rows: dict[str, tuple[Share, Share]]


@dataclass(frozen=True, config=_strict)
class Card:
    """Where an edit comes from.

    method     name, as on the command line
    settings   every hyperparameter of the method, after defaults
    concepts   what was erased
    base       the model: "mini", a hub id, or the name of a folder
    base_hash  `pipelines.base_hash` of the denoisers that were edited, as they were then: for an edit that was made on
               top of another, that of the model with the other one applied
    seed       of everything random
    versions   of unsee and of the libraries that computed it
    kept       every word that the method was shown as one to leave alone, whoever chose it
    curve      of a fit, on runs that it never trained on: (updates done, mean squared error where the concept is asked
               for, and where something else is)
    claims     what was measured of it, if anything was
    call       other options of the pipeline's calls, in recorded runs and in pictures
    forced_from  the base_hash it was made for, if it was put on other weights by force
    variant    of the base's files, such as "fp16"; None is the plain ones
    """

    method: str
    settings: dict[str, Any]
    concepts: tuple[Concept, ...]
    base: str
    base_hash: str
    seed: int
    versions: dict[str, str]
    kept: tuple[str, ...] = ()
    curve: tuple[tuple[float, float, float], ...] = ()
    claims: Claims | None = None
    call: dict[str, Any] = field(default_factory=dict)
    forced_from: str | None = None
    variant: str | None = None

    def to_json(self) -> str:
        return TypeAdapter(Card).dump_json(self).decode()


def settings_of(method: Any) -> dict[str, Any]:
    """Every hyperparameter of a method, as JSON has it."""
    settings: dict[str, Any] = TypeAdapter(type(method)).dump_python(method, mode="json")
    return settings


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself.

    metadata  texts by key
    tensors   type and shape by name
    """

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, without its tensors.

    Raises InputError if there is no such file, it is of another kind, broken, or larger than MOST_HEADER or MOST_BYTES.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        inside = [file.name for file in sorted(path.glob("*.safetensors"))]
        raise InputError(f"{path} is a folder" + (f": give a file in it, such as {path / inside[0]}" if inside else ""))
    if not path.is_file():
        raise InputError(f"there is no edit file {path}")
    if path.suffix != ".safetensors":
        pickle = path.suffix in (".pt", ".pth", ".bin", ".ckpt")
        how = f"; unsee import {path.name} --unpickle converts one, reading weights only" if pickle else ""
        raise InputError(
            f"{path.name} is no .safetensors file; no other kind is read, since a pickle can run code{how}"
        )
    try:
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
        if size > MOST_HEADER:
            raise InputError(
                f"{path} is broken or no safetensors file: its header has {size:,} bytes, {MOST_HEADER:,} are read"
            )
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which is the most that is read")
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
            return Header(file.metadata() or {}, tensors)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is broken or no safetensors file: {error}") from error


def read_card(path: str | Path) -> Card:
    """The card in an edit's file. Raises InputError if there is no such file, or it is no edit.

    What an edit may hold is checked here, before a single number is read: names, types, and the shapes of pairs.
    """
    header = read_header(path)
    if "unsee" not in header.metadata:
        kind = "it is a LoRA" if any(_ADAPTER.search(name) for name in header.tensors) else "it is no edit of this tool"
        raise InputError(
            f"{path} holds tensors but no card of unsee: {kind}; unsee import {Path(path).name} --model MODEL --out"
            " EDIT.safetensors makes an edit of other tools' files"
        )
    if not header.tensors:
        raise InputError(f"{path} holds no usable edit: it has no tensors")
    for name, (dtype, shape) in header.tensors.items():
        if not WEIGHT.fullmatch(name):
            raise InputError(f"{path}: {name[:200]!r} is no weight of a denoiser; an edit holds nothing else")
        if dtype not in FLOATS:
            raise InputError(f"{path}: {name!r} has type {dtype}; an edit holds {', '.join(FLOATS)}")
        weight, _, piece = name.rpartition(".")
        if piece not in ("up", "down"):
            continue
        _, up = header.tensors.get(f"{weight}.up", ("", ()))
        _, down = header.tensors.get(f"{weight}.down", ("", ()))
        if weight in header.tensors or len(up) != 2 or len(down) != 2 or up[1] != down[0]:
            raise InputError(f"{path} is broken: {name!r} with shape {shape} has no counterpart that fits it")
    try:
        return TypeAdapter(Card).validate_json(header.metadata["unsee"])
    except ValidationError as error:
        raise InputError(f"the card in {path} cannot be read: {invalid(error)}") from error
