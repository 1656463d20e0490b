"""What a suite can ask with, and what it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle, islice
from typing import Any

from unsee.concepts import Concept
from unsee.evaluate.detectors import AnyDetector, Clip, Detector, names_of
from unsee.evaluate.distance import Distance, by_maps
from unsee.evaluate.folder import Album
from unsee.evaluate.questions import STYLED, Question, spread
from unsee.evaluate.records import Role
from unsee.evaluate.render import Shot
from unsee.evaluate.words import article, known
from unsee.models.model import Pipeline
from unsee.spelling import lookup

BASE = "base"


class NotMeasured(Exception):
    """A suite cannot measure anything here; the message says why."""


@dataclass(frozen=True)
class EvalContext:
    """What a suite can ask with.

    pipe       the base model; it encodes words here and draws nothing
    detectors  by kind: "objects" knows words for things, "styles" words for ways to draw them, "clip" compares a
               picture with a text; any other kind answers whether something is in a picture that no prompt need name
    words      what the model's card says that it knows; {} if it says nothing
    concepts   everything that any variant erases
    n          pictures for each row of what is erased; others, which are looked at together, may have fewer
    seed       of a row's first picture; the next ones count up
    kept       words that the edits were made to preserve
    names      other names of what is erased, given by the user
    album      pictures of the user's own, to compare with
    """

    pipe: Pipeline
    detectors: Mapping[str, AnyDetector]
    words: Mapping[str, Any]
    concepts: tuple[Concept, ...]
    n: int
    seed: int
    kept: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    album: Album | None = None

    def labels(self, kind: str) -> tuple[str, ...]:
        """What a kind of detector can answer. Raises NotMeasured if there is none."""
        return self.detector(kind).labels

    def detector(self, kind: str) -> Detector:
        found = self.detectors.get(kind)
        if not isinstance(found, Detector):
            how = "an image classifier, or clip:FOLDER for a CLIP model that chooses among words"
            raise NotMeasured(f"no detector of {kind}: give one as `detectors` {kind}=FOLDER, {how}")
        return found

    def clip(self) -> Clip | None:
        found = self.detectors.get("clip")
        return found if isinstance(found, Clip) else None

    def distance(self) -> Distance | None:
        """What measures how alike two pictures look: the detector of "distance", else the layers of another one."""
        given = self.detectors.get("distance")
        if isinstance(given, Distance):
            return given
        for kind in ("clip", "objects"):
            detector = self.detectors.get(kind)
            if isinstance(detector, Clip | Detector) and detector.maps is not None:
                return by_maps(detector.source, detector.maps)
        return None

    def styled(self, thing: str, style: str) -> str:
        """The prompt for a thing in a style."""
        return str(self.words.get("styled", STYLED)).format(article(thing), style)

    @cached_property
    def known(self) -> dict[str, str]:
        """What every name stands for, see words.known."""
        return known(self.words, names_of(self.detectors))

    def target(self, concept: Concept) -> str:
        """The label that stands for a concept, however it is spelled; its own word if there is none."""
        return "" if concept.from_ is not None else lookup(concept.erase, self.known) or concept.erase

    def targets(self, kind: str) -> list[str]:
        """The labels of a kind of detector that some variant erases. Raises NotMeasured if there are none."""
        known = self.labels(kind)
        found = list(dict.fromkeys(t for t in map(self.target, self.concepts) if t in known))
        if not found:
            words = ", ".join(concept.erase for concept in self.concepts) or "nothing"
            raise NotMeasured(f"the detector of {kind} has no word for what is erased ({words})")
        return found

    def question(
        self, key: str, name: str, kind: str, pairs: Sequence[tuple[str, str]], part: int = 1, role: Role = "kept"
    ) -> Question:
        """A row of n / part pictures, at least 2, that goes through pairs of a prompt and the label wanted.

        Of more pairs than pictures it takes some, evenly spaced over all.
        """
        count = max(2, self.n // part)
        some = list(islice(cycle(spread(pairs, count)), count))
        shots = tuple(Shot(prompt, self.seed + k) for k, (prompt, _) in enumerate(some))
        return Question(key, name, shots, kind, tuple(label for _, label in some), role)


@dataclass(frozen=True)
class Variant:
    """The base model, or one edit or guard on it.

    name      as shown
    kind      "base", "edit" or "guard"
    key       names it in the cache
    concepts  what it erases; of the base, what any other erases
    applied   puts it on a pipeline, as a context
    settings  how it was made
    curve     of an edit's fit, see Card
    """

    name: str
    kind: str
    key: str
    concepts: tuple[Concept, ...]
    applied: Any
    settings: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[float, float, float], ...] = ()
