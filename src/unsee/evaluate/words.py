"""What names stand for, what a detector chooses among, and how a thing is asked for; the words are a model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.concepts import Concept
from unsee.models.words import Words
from unsee.spelling import lookup

IMAGENETTE = (
    "cassette player", "chain saw", "church", "gas pump", "tench", "garbage truck", "English springer", "golf ball",
    "parachute", "French horn",
)  # fmt: skip
ARTISTS = ("Kelly McKernan", "Thomas Kinkade", "Tyler Edlin", "Kilian Eng", "Ajin: Demi-Human")
"""The things and artists of Gandikota et al. (2023): what a detector is asked to choose among where nothing is said."""


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


def ways(name: str) -> tuple[str, ...]:
    """How a thing is asked for: by its name, and with an article if it takes one."""
    return tuple(dict.fromkeys([name, article(name)]))
