"""The card of an edit: how it was made. Reading one costs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from unsee.concepts import Concept
from unsee.errors import InputError, invalid


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """Where an edit comes from.

    method     name, as on the command line
    settings   every hyperparameter of the method, after defaults
    concepts   what was erased
    base       the model: "mini", a hub id, or the name of a folder
    base_hash  `pipelines.fingerprint` of the denoiser that was edited
    seed       of everything random
    versions   of unsee and of the libraries that computed it
    kept       every word that the method was shown as one to leave alone, whoever chose it
    curve      of a fit, on runs that it never trained on: (updates done, mean squared error where the concept is asked
               for, and where something else is)
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

    def to_json(self) -> str:
        return TypeAdapter(Card).dump_json(self).decode()


def settings_of(method: Any) -> dict[str, Any]:
    """Every hyperparameter of a method, as JSON has it."""
    settings: dict[str, Any] = TypeAdapter(type(method)).dump_python(method, mode="json")
    return settings


def read_card(path: str | Path) -> Card:
    """The card in an edit's file. Raises InputError if there is no such file, or it is no edit."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no edit file {path}")
    if path.suffix != ".safetensors":
        raise InputError(f"{path.name} is no .safetensors file; no other kind is read, since a pickle can run code")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is broken or no safetensors file: {error}") from error
    if "unsee" not in metadata:
        raise InputError(f"{path} holds tensors but no card of unsee: it is no edit of this tool")
    try:
        return TypeAdapter(Card).validate_json(metadata["unsee"])
    except ValidationError as error:
        raise InputError(f"the card in {path} cannot be read: {invalid(error)}") from error
