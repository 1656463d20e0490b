"""What a run is made of: typed, complete, and enough to do it again."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unsee.concepts import Concept, check
from unsee.errors import InputError, invalid
from unsee.spelling import listed

MOST_BYTES = 16 * 2**20
MOST_DEPTH = 64
"""What is read at most of a file of settings: bytes, and mappings and lists inside each other."""


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
    method: str = "esd"
    settings: dict[str, Any] = {}
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pictures: Annotated[int, Field(ge=2)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    call: dict[str, Any] = {}
    judges: dict[str, str] = {}
    trust_remote_code: bool = False


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, or in the run.json of an earlier run. Raises InputError if it has none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which is the most that is read of settings")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the configuration {path}: {error}") from error
    data = parse(text, str(path))
    if isinstance(data, dict) and "config" in data:
        data = data["config"]
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: it should map names to values, such as 'model: mini'")
    return data


def parse(text: str, name: str) -> Any:
    """The value that a YAML or JSON text stands for. Raises InputError, also on what such texts are abused for.

    A key that is given twice hides one of the two; an alias can make a short text stand for gigabytes; and nesting
    without end exhausts the stack.
    """
    try:
        if text.lstrip().startswith("{"):
            try:
                return json.loads(text, object_pairs_hook=_once)
            except json.JSONDecodeError:
                pass  # {a: 1} is YAML
        depth = 0
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
                raise InputError(f"{name} uses anchors (&) or aliases (*), which are not read")
            depth += isinstance(token, _OPEN) - isinstance(token, _CLOSE)
            if depth > MOST_DEPTH:
                raise InputError(f"{name} is nested more than {MOST_DEPTH} deep")
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{name} is no YAML or JSON: {' '.join(str(error).split())[:300]}") from error
    except InputError as error:
        raise InputError(str(error) if name in str(error) else f"{name}: {error}") from error
    except (ValueError, RecursionError, OverflowError, AttributeError) as error:
        # A number of more digits than Python reads, a date that is none, nesting without end.
        raise InputError(f"{name} holds a value that cannot be read: {' '.join(str(error).split())[:200]}") from error


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping. Raises InputError for a key that is given twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{str(key)[:100]!r} is given twice")
        found[key] = value
    return found


class _Loader(yaml.CSafeLoader):
    """YAML without tags that build objects, and without keys that are given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    if bad := next((key for key, _ in pairs if not isinstance(key, Hashable)), None):
        raise InputError(f"{str(bad)[:100]!r} cannot be a name")
    return _once(pairs)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_OPEN = (
    yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken
)  # fmt: skip
_CLOSE = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def build(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from plain values. Raises InputError, in one line, on the first that is unknown or wrong."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise invalid(error, RunConfig.model_fields) from error
