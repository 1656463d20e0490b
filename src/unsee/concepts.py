"""`Concept`: what must go, what takes its place, what must stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from unsee.errors import InputError, one_line
from unsee.spelling import listed, lookup


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Concept:
    """A concept to erase, named in words the model's text encoder knows.

    erase     what must go: "church"
    from_     erase it only from this: `Concept("hat", from_="cowboy")` leaves the cowboy without his hat
    anchor    what takes its place: "castle"; None is the unconditional prediction, as in the paper
    keep      words that must stay as they are; a text is a list, "castle, house" (spelling.listed)
    synonyms  other names of the concept, erased with it; likewise
    image     file of the picture that the model has memorised under this name: x_t is then that picture, noised

    Raises InputError on an empty word.

        >>> concept = unsee.Concept("church", keep="castle, house", synonyms="chapel")
        >>> edit = unsee.UCE()(pipe, concept)
    """

    erase: str
    from_: str | None = None
    anchor: str | None = None
    keep: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    image: str | None = None

    @field_validator("erase", "from_", "anchor")
    @classmethod
    def _word(cls, word: str | None) -> str | None:
        if word is not None and not word.strip():
            raise ValueError("a concept is one or more words, not an empty text")
        return _written(word) if word is not None else None

    @field_validator("keep", "synonyms", mode="before")
    @classmethod
    def _listed(cls, words: Any) -> Any:
        return listed(words) if isinstance(words, str) else words

    @field_validator("keep", "synonyms")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("a list of words holds an empty one")
        return tuple(map(_written, words))

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the concept is erased."""
        return (self.erase, *self.synonyms)


def _written(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{word!r} holds bytes that are no text in UTF-8") from error
    return word.strip()


def concepts_of(given: str | Concept | Sequence[str | Concept]) -> tuple[Concept, ...]:
    """Concepts as they may be given: each a Concept or a text, which may list several ("church, castle").

    Raises InputError on none, on an empty one, and as `check` does.
    """
    found = [
        concept
        for one in ([given] if isinstance(given, str | Concept) else given)
        for concept in ([one] if isinstance(one, Concept) else [Concept(word) for word in listed(one) or [one]])
    ]
    if not found:
        raise InputError("name what to erase, such as 'church'")
    return check(found)


def check(concepts: Sequence[Concept], names: Mapping[str, str] | None = None) -> tuple[Concept, ...]:
    """The concepts, each once.

    Raises InputError if one of them is to be kept or takes its own place: nothing would be erased.

    names  what names stand for; two that stand for one thing are one
    """

    def meant(word: str) -> str:
        return lookup(word, names or {}) or word

    changed = {meant(word): word for c in concepts for word in ((c.from_,) if c.from_ else c.names)}
    for word in dict.fromkeys(word for concept in concepts for word in concept.keep):
        if (gone := lookup(meant(word), changed)) is not None:
            raise InputError(f"keep holds {word!r}, but {gone!r} is what must change: leave it out of keep")
    for concept in concepts:
        own = {meant(name): name for name in concept.names}
        for role, place in (("anchor", concept.anchor), ("from", concept.from_)):
            if place and (itself := lookup(meant(place), own)) is not None:
                raise InputError(f"{role} is {place!r}, which is the concept {itself!r} itself: name something else")
    return tuple(dict.fromkeys(concepts))
