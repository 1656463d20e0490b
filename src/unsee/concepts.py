"""What must go, and what must stay."""

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Concept:
    """A concept to erase, named in words the model's text encoder knows.

    erase     what must go: "church"
    from_     erase it only from this: `Concept("hat", from_="cowboy")` leaves the cowboy without his hat
    anchor    what takes its place: "castle"; None is the unconditional prediction, as in the paper
    keep      words that must stay as they are
    synonyms  other names of the concept, erased with it
    image     file of the picture that the model has memorised under this name: x_t is then that picture, noised

    Raises pydantic's ValidationError, a ValueError, on an empty word.
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
        return word.strip() if word is not None else None

    @field_validator("keep", "synonyms")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not all(word.strip() for word in words):
            raise ValueError("a list of words holds an empty one")
        return tuple(word.strip() for word in words)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the concept is erased."""
        return (self.erase, *self.synonyms)
