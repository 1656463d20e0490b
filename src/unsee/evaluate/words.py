"""What a model can be asked for: things, styles, titles. Said by its card, or by the user in a file of the same layout.

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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unsee.concepts import Concept
from unsee.errors import InputError, invalid
from unsee.io.settings_file import read
from unsee.models.model import Model, Pipeline
from unsee.models.model_card import ModelCard
from unsee.spelling import lookup

IMAGENETTE = (
    "cassette player", "chain saw", "church", "gas pump", "tench", "garbage truck", "English springer", "golf ball",
    "parachute", "French horn",
)  # fmt: skip
ARTISTS = ("Kelly McKernan", "Thomas Kinkade", "Tyler Edlin", "Kilian Eng", "Ajin: Demi-Human")
"""The things and artists of Gandikota et al. (2023): what a detector is asked to choose among where nothing is said."""

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
    """What a model can be asked for, as its card says; {} if it says nothing."""
    place = (model if isinstance(model, ModelCard) else Model.of(model).card).words
    return read_words(Path(place)) if place else {}


def known(words: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every name stands for: a label of a detector, or else an object, a style or a title that the words list.

    labels  names that detectors know, and the label that each is; they come first
    Other names of a label lead to it, names of an object that no detector has a word for to the object.
    """
    found = dict(labels or {})
    objects, titles = words.get("objects", {}), words.get("memorised", {})
    for name in (*objects, *words.get("styles", ()), *titles):
        found.setdefault(name, lookup(name, labels or {}) or name)
    more = [(other, name) for name, said in objects.items() for other in said["synonyms"]]
    more += [(other, name) for name, said in objects.items() for other in said["languages"].values()]
    more += [(other, title) for title, others in titles.items() for other in others]
    more += [(one, name) for one, name in words.get("imagenette", {}).items()]
    more += [(one, kind) for kind, said in words.items() if kind not in Words.model_fields for one in said["names"]]
    for other, name in more:
        found.setdefault(other, found.get(name, name))
    return found


def choices(
    kind: str, words: Mapping[str, Any], concepts: Sequence[Concept], more: Sequence[str] = ()
) -> tuple[str, ...]:
    """What a CLIP model chooses among as a detector: what the words list, else the paper's things and artists.

    more  labels of the user's own prompts
    What is erased counts as an object unless it is listed as a style or as another name of an object.
    """
    styles, objects = words.get("styles") or ARTISTS, words.get("objects", {})
    more = [label for label in more if not lookup(label, known(words))]  # another name of what is listed
    if kind == "styles":
        return tuple(dict.fromkeys([*styles, *more]))
    if kind != "objects":
        return tuple(dict.fromkeys(more))
    listed = [*(objects or IMAGENETTE), *more]
    own = {word: word for word in listed}
    names = known({**words, "styles": styles}, own)
    gone = [c.from_ or c.erase for c in concepts]
    first = [lookup(word, own) or word for word in gone if lookup(word, own) or not lookup(word, names)]
    return tuple(dict.fromkeys([*first, *listed]))


def article(noun: str) -> str:
    """A noun with its article; plurals have none ("scissors", but "a bus", "a dress")."""
    if noun.startswith(("a ", "an ", "the ")) or (noun.endswith("s") and not noun.endswith(("ss", "us", "is"))):
        return noun
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
