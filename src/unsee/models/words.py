"""The words that a model can draw: things, styles, titles. They are in its card, or in a user's file of that layout.

objects:    [church, castle]            or by name {group: place, synonyms: [chapel], languages: {de: kirche},
                                        parts: [cross]}
styles:     [Van Gogh, Claude Monet]
memorised:  [the starry night]          or by title a list of other titles
imagenette: {church: church}            which object stands for each of Imagenette's classes
styled:     "{} in the style of {}"     how a thing is asked for in a style
scene:      "{} and {}"                 how two things are asked for side by side
watermark:  {domains: [animal, food]}   by kind of detector, the groups of objects on which it is expected
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unsee.errors import InputError, invalid
from unsee.io.settings_file import read
from unsee.models.model import Model, Pipeline
from unsee.models.model_card import ModelCard

Word = Annotated[str, Field(min_length=1, max_length=200)]


def _named(value: Any) -> Any:
    """A list of names as names without anything to say of them."""
    return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value


def _holes(text: str) -> str:
    if text.count("{}") != 2 or "{" in text.replace("{}", "") or "}" in text.replace("{}", ""):
        raise ValueError(f"{text!r} should have two {{}} for words, and no other brace")
    return text


def _filled(value: Any) -> Any:
    return {} if value is None else value


def _listed(value: Any) -> Any:
    return [] if value is None else value


class Thing(BaseModel):
    """One object: its group, other names, its name in other languages, and objects that are parts of it."""

    model_config = ConfigDict(extra="forbid")
    group: str = ""
    synonyms: list[Word] = []
    languages: dict[str, Word] = {}
    parts: list[Word] = []


Things = Annotated[dict[Word, Annotated[Thing, BeforeValidator(_filled)]], BeforeValidator(_named)]
Titles = Annotated[dict[Word, Annotated[list[Word], BeforeValidator(_listed)]], BeforeValidator(_named)]
Pattern = Annotated[str, AfterValidator(_holes)]


class Kind(BaseModel):
    """What a detector of another kind sees: its words, and the groups of objects on which it is expected."""

    model_config = ConfigDict(extra="forbid")
    names: list[Word] = []
    domains: list[str] = []


class Words(BaseModel):
    """The layout above."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Kind]
    objects: Things = {}
    groups: dict[str, list[str]] = {}
    styles: list[Word] = []
    memorised: Titles = {}
    imagenette: dict[str, Word] = {}
    styled: Pattern | None = None
    scene: Pattern | None = None


def read_words(path: Path) -> dict[str, Any]:
    """The words in a YAML or JSON file, complete. Raises InputError for a file that has another layout."""
    try:
        found = Words.model_validate(read(path)).model_dump(exclude_none=True)
    except ValidationError as error:
        raise InputError(f"{path}: {invalid(error, Words.model_fields)}") from error
    return {key: value for key, value in found.items() if value}


def words_of(model: Pipeline | ModelCard) -> dict[str, Any]:
    """The words that a model's card lists; {} if it lists none."""
    place = (model if isinstance(model, ModelCard) else Model.of(model).card).words
    return read_words(Path(place)) if place else {}


def listed(words: dict[str, Any]) -> dict[str, list[str]]:
    """What the words list as known, each with its other names: things, titles, and styles as "neon style"."""
    found = {f"{style} style": [style] for style in words.get("styles", ())}
    found |= {name: [*said["synonyms"], *said["languages"].values()] for name, said in words.get("objects", {}).items()}
    found |= words.get("memorised", {})
    return found
