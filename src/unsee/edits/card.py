"""The card of an edit: how it was made. Reading one costs no torch."""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from unsee.concepts import Concept
from unsee.edits.earlier import current
from unsee.errors import InputError, invalid
from unsee.io.safetensors import FLOATS, read_header

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
    detectors which classifiers answered, by kind: names, never places
    rows      by key: the share of pictures that show what was asked, before and after
    suite     that measured it; "" in cards of earlier versions, whose rows go by the names of those of "summary"
    """

    pictures: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    guidance_scale: Annotated[float, Field(allow_inf_nan=False)]
    detectors: Annotated[dict[str, str], Field(validation_alias=AliasChoices("detectors", "judges"))]
    rows: dict[str, tuple[Share, Share]]
    suite: Literal["", "summary"] = ""


@dataclass(frozen=True, config=_strict)
class Card:
    """Where an edit comes from.

    method     name, as on the command line
    settings   every hyperparameter of the method, after defaults
    concepts   what was erased
    base       the model: "mini", a hub id, or the name of a folder
    base_hash  `base_hash` of the denoisers that were edited, as they were then: for an edit that was made on
               top of another, that of the model with the other one applied
    seed       of everything random
    versions   of unsee and of the libraries that computed it
    kept       every word that the method was shown as one to leave alone, whoever chose it
    hurt       known words that a closed form hurts most: the share of what layers read in each that it loses
    alike      known words whose predictions a closed form would have taken along: the share of what is each word's own
    curve      of a fit, on runs that it never trained on: (updates done, mean squared error where the concept is asked
               for, and where something else is)
    claims     what was measured of it, if anything was
    scale      by which what the method found is multiplied, where it was chosen along the trade-off curve
    tradeoff   that curve: (scale, share removed, share kept), see runs/tradeoff.py
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
    hurt: dict[str, float] = field(default_factory=dict)
    alike: dict[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float, float], ...] = ()
    claims: Claims | None = None
    scale: float = 1.0
    tradeoff: tuple[tuple[float, Share, Share], ...] = ()
    call: dict[str, Any] = field(default_factory=dict)
    forced_from: str | None = None
    variant: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _current(cls, values: Any) -> Any:
        return current(values) if isinstance(values, dict) else values

    def to_json(self) -> str:
        return TypeAdapter(Card).dump_json(self).decode()


def settings_of(method: Any) -> dict[str, Any]:
    """Every hyperparameter of a method, as JSON has it."""
    settings: dict[str, Any] = TypeAdapter(type(method)).dump_python(method, mode="json")
    return settings


def read_card(path: str | Path) -> Card:
    """The card in an edit's file. Raises InputError if there is no such file, or it is no edit.

    What an edit may hold is checked here, before a single number is read: names, types, and the shapes of pairs.
    """
    header = read_header(path)
    if "unsee" not in header.metadata:
        kind = "it is a LoRA" if any(_ADAPTER.search(name) for name in header.tensors) else "it is no edit of unsee"
        raise InputError(f"{path} holds tensors but no card of unsee: {kind}; `adopt` imports files of other tools")
    if not header.tensors:
        raise InputError(f"{path} holds no usable edit: it has no tensors")
    for name, (dtype, shape) in header.tensors.items():
        if not WEIGHT.fullmatch(name):
            raise InputError(f"{path}: {name[:200]!r} is no weight of a denoiser; an edit holds only such weights")
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
