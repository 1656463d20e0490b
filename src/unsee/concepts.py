"""`Concept`: what must go, what takes its place, what must stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass

from unsee.errors import InputError, one_line
from unsee.io.lists import entries
from unsee.spelling import listed, lookup, plain


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
            raise ValueError("a list of words holds an empty word")
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
    """The concepts that a caller gave. Each was a Concept or a text, and a text may list several ("church, castle").

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


COLUMNS = {"erase": "erase", "anchor": "anchor", "keep": "keep", "synonyms": "synonyms", "from": "from_"}
"""The columns of a CSV of concepts, and the field that each is."""


def read_concepts(path: str | Path) -> tuple[Concept, ...]:
    """The concepts in a file: one a line, or a CSV with the columns of COLUMNS, of which only `erase` must be there.

    Blank lines and lines that start with # are skipped. In a CSV, `keep` and `synonyms` are lists, "castle, house".
    Raises InputError, naming the line, for a file or an entry that cannot be used, and as `check` does.
    """
    found, places = [], []
    for place, cells in entries(Path(path), list(COLUMNS)):
        try:
            found.append(Concept(**{COLUMNS[name]: cell for name, cell in cells.items()}))  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        places.append(place)
    return check(found, places=places)


def to_keep(concepts: Iterable[Concept]) -> list[str]:
    """The words of `keep` of all concepts, each once."""
    return list(dict.fromkeys(word for concept in concepts for word in concept.keep))


def read_keep(path: Path) -> list[str]:
    """Words that must stay, from a file. Raises InputError as `io.lists.entries` does."""
    return [cells["keep"] for _, cells in entries(path, ["keep"])]


def check(
    concepts: Sequence[Concept], names: Mapping[str, str] | None = None, places: Sequence[str] = ()
) -> tuple[Concept, ...]:
    """The concepts, each once.

    Raises InputError if one of them is to be kept or takes a place that is erased: nothing would be erased. So it does
    if one word is erased in two ways.

    names   what names stand for; two that stand for one thing are one
    places  where in a file each concept stands, which errors say; no word is there twice
    """
    at = [f"{place}: " for place in places] or [""] * len(concepts)

    @cache
    def meant(word: str) -> str:
        return lookup(word, names or {}) or word

    before: dict[tuple[str, str | None], tuple[int, str]] = {}
    for k, concept in enumerate(concepts):
        for name in concept.names:
            j, other = before.setdefault((plain(name), concept.from_), (k, name))
            if j != k and (places or concepts[j] != concept):
                where = f", there and in {places[j].rpartition(', ')[2]}" if places else ""
                what = repr(name) if other == name else f"{name!r} is {other!r}, which"
                raise InputError(f"{at[k]}{what} is erased twice{where}: name it once")
    changed = {meant(word): word for c in concepts for word in ((c.from_,) if c.from_ else c.names)}
    erased = {meant(word): word for c in concepts if not c.from_ for word in c.names}
    kept: set[str] = set()
    for k, concept in enumerate(concepts):
        for word in concept.keep:
            if word not in kept and (gone := lookup(meant(word), changed)) is not None:
                raise InputError(f"{at[k]}keep holds {word!r}, but {gone!r} must change: leave it out of keep")
            kept.add(word)
    for k, concept in enumerate(concepts):
        own = {meant(name): name for name in concept.names}
        for role, place in (("anchor", concept.anchor), ("from", concept.from_)):
            if not place:
                continue
            if (itself := lookup(meant(place), own)) is not None:
                raise InputError(
                    f"{at[k]}{role} is {place!r}, which is the concept {itself!r} itself: name something else"
                )
            if role == "anchor" and (gone := lookup(meant(place), erased)) is not None:
                also = f"{gone!r} is erased too: name something that stays"
                raise InputError(f"{at[k]}anchor of {concept.erase!r} is {place!r}, but {also}")
    return tuple(dict.fromkeys(concepts))
