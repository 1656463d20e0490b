"""What a run or an evaluation is made of: typed, complete, and enough to do it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from unsee.concepts import Concept, check
from unsee.edits.earlier import current
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


OLD = {"judges": "detectors"}
"""Keys of earlier versions that are still read."""


def renamed(values: Any) -> Any:
    """A configuration of an earlier version in the names of this one."""
    if not isinstance(values, dict):
        return values
    found: dict[Any, Any] = {OLD.get(key, key): value for key, value in values.items()}
    return current(found)


class _Config(BaseModel):
    """What both have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str | None = None
    variant: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    call: dict[str, Any] = {}
    detectors: dict[str, str] = {}
    trust_remote_code: bool = False

    _old = model_validator(mode="before")(renamed)


class RunConfig(_Config):
    """One run of `unsee erase`.

    concepts        what must go: words, or mappings with the fields of a Concept, or one text that lists words
    model           "mini", a pipeline folder, or a hub id
    variant         variant of the model's files, such as "fp16"; None: files without a variant, or the only variant
    method          name of the method; None: balance where every concept is a name and every setting is one of
                    balance's (uce for up to ten where the prompt enters by an embedder), else hybrid
    settings        hyperparameters of the method; after defaults, all of them
    auto            choose the edit's scale along its trade-off curve (runs/tradeoff.py); else it is 1
    seed            random seed
    pictures        pictures for each row of the result, before and after; None: 48, or 8 without a detector
    steps           sampler steps of the pictures; None: those of the model's card, or the pipeline's default
    guidance_scale  guidance scale of the pictures, 1 is none; None likewise. Recorded runs have a setting of the method
    call            other options of the pipeline's calls, in recorded runs and in pictures, such as {true_cfg_scale: 4}
    detectors       classifiers by kind ("objects", "styles", ...), beside those that the model's card names
    trust_remote_code  run code that comes with the model
    """

    concepts: Annotated[tuple[Concept, ...], Field(min_length=1), BeforeValidator(_named), AfterValidator(check)]
    model: Annotated[str, BeforeValidator(_text)] = "mini"
    method: str | None = None
    settings: dict[str, Any] = {}
    auto: bool = False
    pictures: Annotated[int, Field(ge=2)] | None = None


class EvalConfig(_Config):
    """One run of `unsee evaluate`.

    model       "mini", a pipeline folder, or a hub id; or the folder of a run of `unsee erase`: its model and its edit
    revision, variant  revision and variant of the model's files; they go before those of a run's folder
    suites      names of suites
    tables      prompts of the user's own, as CSV files (see suites/table.py)
    edits       files, or NAME=FILE
    guards      names of guards, against `concepts`
    concepts    what the edits erase; none: what their cards name. If no card has one of these concepts, all edits
                count as edits of these: a card may name nothing, or use another name
    names       other names of the concept, for the suite "paraphrase"
    detectors   detectors by kind, beside those that the model's card names; see evaluate/detectors.py
    words       words that the model can draw, in place of those of its card; see models/words.py
    folder      folder of the user's own pictures, for the suites "fidelity" and "memorised"; see evaluate/folder.py
    force_base  measure edits on this model although they were made for another
    pictures    pictures for each row of what is erased
    seed        seed of a row's first picture
    steps, guidance_scale  those of the pictures; None: those of the model's card, or the pipeline's default
    call        other options of the pipeline's calls; they go before those of a run's folder
    """

    model: Annotated[str, BeforeValidator(_text)]
    suites: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    concepts: Annotated[tuple[Concept, ...], BeforeValidator(_named), AfterValidator(check)] = ()
    names: tuple[str, ...] = ()
    words: dict[str, Any] | None = None
    folder: str | None = None
    force_base: bool = False
    pictures: Annotated[int, Field(ge=2)] = 48


Together = Annotated[tuple[Concept, ...], Field(min_length=1), BeforeValidator(_named), AfterValidator(check)]
"""Concepts that one edit erases: a word, a list of words, or mappings with the fields of a Concept."""


class AttackConfig(BaseModel):
    """How each edit is attacked: arguments of runs.siege.prepare."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attacks: tuple[str, ...] = ()
    budget: str = "small"
    pictures: Annotated[int, Field(ge=2)] = 24
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    detectors: dict[str, str] = {}


class SweepConfig(BaseModel):
    """A sweep: every model with every concept, method, setting and seed.

    models    names of models
    concepts  a word, or a list of words that one edit erases, for each cell
    methods   names of methods; none: the one that `unsee erase` chooses
    settings  by method, a list of mappings, one for each cell; other methods have their defaults
    seeds     random seeds
    erase     other fields of RunConfig for every cell, such as {pictures: 16}
    evaluate  fields of EvalConfig, such as {suites: [neighbours]}; none: what erase measures, the suite "summary"
    attack    fields of AttackConfig, such as {attacks: [names, token]}; none: no attack
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("mini",)
    concepts: Annotated[tuple[Together, ...], Field(min_length=1)]
    methods: tuple[str, ...] = ()
    settings: dict[str, tuple[dict[str, Any], ...]] = {}
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    erase: dict[str, Any] = {}
    evaluate: dict[str, Any] | None = None
    attack: dict[str, Any] | None = None


Made = TypeVar("Made", RunConfig, EvalConfig, SweepConfig, AttackConfig)


def build(values: dict[str, Any], kind: type[Made] = RunConfig) -> Made:  # type: ignore[assignment]
    """A configuration from plain values. Raises InputError, in one line, on the first that is unknown or wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise invalid(error, kind.model_fields) from error
