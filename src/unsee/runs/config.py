"""What a run is made of: typed, complete, and enough to do it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unsee.concepts import Concept, check
from unsee.errors import invalid
from unsee.spelling import listed


def _named(concepts: Any) -> Any:
    """Words as concepts: `church, castle`, `[church, castle]` and `[{erase: church}, castle]` may be written."""
    several = [concepts] if isinstance(concepts, str | dict) else concepts
    if not isinstance(several, list | tuple):
        return concepts
    lists = [listed(one) or [one] if isinstance(one, str) else [one] for one in several]
    return [{"erase": one} if isinstance(one, str) else one for words in lists for one in words]


def _text(model: Any) -> Any:
    return str(model) if isinstance(model, Path) else model


class RunConfig(BaseModel):
    """One run of `unsee erase`.

    concepts        what must go: words, or mappings with the fields of a Concept, or one text that lists words
    model           "mini", a pipeline folder, or a hub id
    variant         of the model's files, such as "fp16"; None is the plain ones, or what there is if there are none
    method          by name
    settings        hyperparameters of the method; after defaults, all of them
    seed            of everything random
    pictures        drawn for each row of the result, before and again after; None is 48, and 8 where no judge looks
    steps           sampler steps of those pictures; None is what the model's card says, or else the pipeline's default
    guidance_scale  of those pictures, 1 is none; likewise. That of recorded runs is a setting of the method
    call            other options of the pipeline's calls, in recorded runs and in pictures, such as {true_cfg_scale: 4}
    judges          classifiers by kind ("objects", "styles", ...), beside those that the model's card names
    trust_remote_code  run code that comes with the model
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: Annotated[tuple[Concept, ...], Field(min_length=1), BeforeValidator(_named), AfterValidator(check)]
    model: Annotated[str, BeforeValidator(_text)] = "mini"
    revision: str | None = None
    variant: str | None = None
    method: str = "hybrid"
    settings: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pictures: Annotated[int, Field(ge=2)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    call: dict[str, Any] = {}
    judges: dict[str, str] = {}
    trust_remote_code: bool = False


RENAMED = {
    "company": "context_words",
    "spared": "preserve_words",
    "unasked": "implicit",
    "checkpointing": "gradient_checkpointing",
    "steps": "record_steps",
    "guidance_scale": "record_guidance",
}
"""Names of settings in earlier versions, which run.json, configurations and --set may still have."""


def of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration of an earlier version in the names of this one. "esd" was then what hybrid is today."""
    method, settings = values.get("method"), values.get("settings")
    if method not in (None, "esd", "hybrid", "lora", "uce") or not isinstance(settings, dict):
        return values
    settings = {RENAMED.get(name, name): value for name, value in settings.items()}
    hybrid = {"method": "hybrid"} if method == "esd" and "start" in settings else {}
    return {**values, "settings": settings, **hybrid}


def build(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from plain values, of this version or an earlier one.

    Raises InputError, in one line, on the first that is unknown or wrong.
    """
    try:
        return RunConfig.model_validate(of_today(values))
    except ValidationError as error:
        raise invalid(error, RunConfig.model_fields) from error
