"""What a run is made of: typed, complete, and enough to do it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unsee.concepts import Concept
from unsee.errors import InputError, invalid


class RunConfig(BaseModel):
    """One run of `unsee erase`.

    concepts        what must go
    model           "mini", a pipeline folder, or a hub id
    method          by name
    settings        hyperparameters of the method; after defaults, all of them
    seed            of everything random
    pictures        drawn for each row of the result, before and again after
    steps           sampler steps of those pictures; None is what the model's card says, or else the pipeline's default
    guidance_scale  of those pictures; likewise
    judges          classifiers by kind ("objects", "styles", ...), beside those that the model's card names
    trust_remote_code  run code that comes with the model
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]
    model: str = "mini"
    revision: str | None = None
    method: str = "esd"
    settings: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0)] = 0
    pictures: Annotated[int, Field(ge=2)] = 48
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    judges: dict[str, str] = {}
    trust_remote_code: bool = False


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, or in the run.json of an earlier run. Raises InputError if it has none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML or JSON: {' '.join(str(error).split())}") from error
    if isinstance(data, dict) and "config" in data:
        data = data["config"]
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: it should map names to values, such as 'model: mini'")
    return data


def build(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from plain values. Raises InputError, in one line, on the first that is unknown or wrong."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise invalid(error, RunConfig.model_fields) from error
