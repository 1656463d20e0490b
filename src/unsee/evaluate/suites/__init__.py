"""Suites by name. A suite is data and two functions: what to draw, and what the pictures say.

    ask(world)                           -> questions; knows the model's words and the concepts, not who erases them
    score(world, asked, column, look)    -> numbers for one column: the base model, an edit, or a guard

A suite is a file of its own and one row under `unsee.suites` in a package's entry points. It raises NotMeasured, with
the reason, if it lacks something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from itertools import cycle, islice
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unsee.concepts import Concept
from unsee.errors import unknown
from unsee.evaluate.cache import Pictures
from unsee.evaluate.detectors import Clip, Detector, Judge, names_of
from unsee.evaluate.distance import Distance, by_maps, grey_levels
from unsee.evaluate.folder import Album
from unsee.evaluate.questions import STYLED, Question, spread
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score, bootstrap, paired_means, paired_rates, rate
from unsee.evaluate.words import article, known
from unsee.models.model import Pipeline
from unsee.spelling import stands_for

BASE = "base"


class NotMeasured(Exception):
    """A suite cannot say anything here; the message says why."""


@dataclass(frozen=True)
class World:
    """What a suite can ask with.

    pipe      the base model, a pipeline or a Model; it encodes words here and draws nothing
    judges    by kind: "objects" knows words for things, "styles" words for ways to draw them, "clip" compares a picture
              with a text; any other kind answers whether something is in a picture that no prompt need name
    words     what the model's card says that it knows (pipelines.card); {} if it says nothing
    concepts  everything that any column erases
    n         pictures for each row of what is erased; others, which are looked at together, may have fewer
    seed      of a row's first picture; the next ones count up
    names     other names of what is erased, given by the user
    album     pictures of the user's own, to compare with
    """

    pipe: Pipeline
    judges: Mapping[str, Judge]
    words: Mapping[str, Any]
    concepts: tuple[Concept, ...]
    n: int
    seed: int
    names: tuple[str, ...] = ()
    album: Album | None = None

    def labels(self, kind: str) -> tuple[str, ...]:
        """What a kind of judge can answer. Raises NotMeasured if there is none."""
        return self.judge(kind).labels

    def judge(self, kind: str) -> Detector:
        judge = self.judges.get(kind)
        if not isinstance(judge, Detector):
            how = "an image classifier, clip:FOLDER a CLIP model that is asked for words"
            raise NotMeasured(f"no judge of {kind}: --judge {kind}=FOLDER names {how}")
        return judge

    def clip(self) -> Clip | None:
        judge = self.judges.get("clip")
        return judge if isinstance(judge, Clip) else None

    def distance(self) -> Distance | None:
        """What tells how alike two pictures look: the judge of "distance", else the layers of another judge."""
        given = self.judges.get("distance")
        if isinstance(given, Distance):
            return given
        for kind in ("clip", "objects"):
            judge = self.judges.get(kind)
            if isinstance(judge, Clip | Detector) and judge.maps is not None:
                return by_maps(judge.source, judge.maps)
        return None

    def styled(self, thing: str, style: str) -> str:
        """The prompt for a thing in a style."""
        return str(self.words.get("styled", STYLED)).format(article(thing), style)

    @cached_property
    def known(self) -> dict[str, str]:
        """What every name stands for, see words.known."""
        return known(self.words, names_of(self.judges))

    def target(self, concept: Concept) -> str:
        """The label that stands for a concept, however it is spelled; its own word if there is none."""
        return "" if concept.from_ is not None else stands_for(concept.erase, self.known) or concept.erase

    def targets(self, kind: str) -> list[str]:
        """The labels of a kind of judge that some column erases. Raises NotMeasured if there are none."""
        known = self.labels(kind)
        found = list(dict.fromkeys(t for t in map(self.target, self.concepts) if t in known))
        if not found:
            said = ", ".join(concept.erase for concept in self.concepts) or "nothing"
            raise NotMeasured(f"the judge of {kind} has no word for what is erased ({said})")
        return found

    def question(self, name: str, kind: str, pairs: Sequence[tuple[str, str]], part: int = 1) -> Question:
        """A row of n / part pictures, at least 2, that goes through pairs of a prompt and the label wanted.

        Of more pairs than pictures it takes some, evenly spaced over all.
        """
        count = max(2, self.n // part)
        some = list(islice(cycle(spread(pairs, count)), count))
        shots = tuple(Shot(prompt, self.seed + k) for k, (prompt, _) in enumerate(some))
        return Question(name, False, shots, kind, tuple(label for _, label in some))


@dataclass(frozen=True)
class Column:
    """The base model, or one edit or guard on it.

    name      as shown
    kind      "base", "edit" or "guard"
    key       names it in the cache
    concepts  what it erases; of the base, what any other erases
    applied   puts it on a pipeline, as a context
    settings  how it was made
    """

    name: str
    kind: str
    key: str
    concepts: tuple[Concept, ...]
    applied: Any
    settings: Mapping[str, Any] = field(default_factory=dict)


class Look:
    """What the judges see in the pictures of each column; each picture is looked at once by each judge."""

    def __init__(self, world: World, galleries: Mapping[str, Mapping[Shot, Image]]):
        self.world, self.galleries = world, galleries
        self._said: dict[tuple[str, str], dict[Shot, str]] = {}
        self._vectors: dict[tuple[str, str], dict[Shot, Tensor]] = {}
        self._album: dict[str, list[Tensor]] = {}
        self._parts: dict[tuple[str, str], dict[Shot, Counter[str]]] = {}

    def pictures(self, column: str, shots: Sequence[Shot]) -> Pictures:
        return Pictures(self.galleries[column], shots)

    def labels(self, column: str, kind: str, shots: Sequence[Shot]) -> list[str]:
        """What a judge answers for each shot."""
        known = self._said.setdefault((column, kind), {})
        new = [shot for shot in dict.fromkeys(shots) if shot not in known]
        known.update(zip(new, self.world.judge(kind)(self.pictures(column, new)), strict=True))
        return [known[shot] for shot in shots]

    def parts(self, column: str, kind: str, shots: Sequence[Shot]) -> list[Counter[str]]:
        """How often a judge that sees parts sees each, for each shot."""
        count = self.world.judge(kind).parts
        assert count is not None
        known = self._parts.setdefault((column, kind), {})
        new = [shot for shot in dict.fromkeys(shots) if shot not in known]
        for start in range(0, len(new), 32):
            some = new[start : start + 32]
            known.update(zip(some, count(self.pictures(column, some)), strict=True))
        return [known[shot] for shot in shots]

    def features(self, column: str, kind: str, shots: Sequence[Shot]) -> list[Tensor]:
        """A judge's features of each shot."""
        known = self._vectors.setdefault((column, kind), {})
        if new := [shot for shot in dict.fromkeys(shots) if shot not in known]:
            judge = self.world.judges[kind]
            assert not isinstance(judge, Distance)
            known.update(zip(new, judge.features(self.pictures(column, new)), strict=True))
        return [known[shot] for shot in shots]

    def album(self, kind: str) -> list[Tensor]:
        """A judge's features of the user's own pictures."""
        judge, album = self.world.judges[kind], self.world.album
        assert album is not None
        assert not isinstance(judge, Distance)
        if kind not in self._album:
            self._album[kind] = list(judge.features(album.pictures()))
        return self._album[kind]


@dataclass(frozen=True)
class Figure:
    """A picture that a suite made, to be shown beside those that a model drew."""

    suite: str
    row: str
    column: str
    shot: Shot
    picture: Image


Asked = Sequence[Question]
Found = Iterable[Measured | Answer | Figure]


@dataclass(frozen=True)
class Suite:
    """One of the paper's tables or figures, or one of ours.

    about  what it measures and how, in a sentence for the page
    """

    name: str
    about: str
    ask: Callable[[World], list[Question]]
    score: Callable[[World, Asked, Column, Look], Found]


def share(
    suite: str, row: str, column: Column, base: Sequence[bool], now: Sequence[bool],
    *, gone: bool = False, judge: str = "", note: str = "",
) -> Measured:  # fmt: skip
    """A share of pictures, beside the base's on the same prompts and seeds."""
    if column.kind == BASE:
        return Measured(suite, row, column.name, "share", False, rate(now), None, None, judge, note)
    change = paired_rates(base, now)
    return Measured(suite, row, column.name, "share", gone, rate(now), rate(base), change, judge, note)


def average(
    suite: str, row: str, column: Column, unit: str, base: Sequence[float], now: Sequence[float],
    *, gone: bool = False, judge: str = "", note: str = "",
) -> Measured:  # fmt: skip
    """A mean over pictures, beside the base's on the same prompts and seeds."""
    if column.kind == BASE:
        return Measured(suite, row, column.name, unit, False, bootstrap(now), None, None, judge, note)
    change = paired_means(base, now)
    return Measured(suite, row, column.name, unit, gone, bootstrap(now), bootstrap(base), change, judge, note)


def erased(world: World, column: Column) -> set[str]:
    """The labels that a column means to bring to nothing."""
    return {world.target(concept) for concept in column.concepts}


def hits(look: Look, column: str, question: Question) -> list[bool]:
    """For each picture, whether the judge sees what the question wants."""
    assert question.judge is not None
    return [a == b for a, b in zip(look.labels(column, question.judge, question.shots), question.labels, strict=True)]


def count(suite: str, world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    """For each question the share of pictures that show what it wants, and every single answer."""
    for question in asked:
        assert question.judge is not None
        gone = set(question.labels) <= erased(world, column)
        base, now = hits(look, BASE, question), hits(look, column.name, question)
        source = world.judges[question.judge].source
        yield share(suite, question.name, column, base, now, gone=gone, judge=source)
        found = look.labels(column.name, question.judge, question.shots)
        for shot, wanted, seen in zip(question.shots, question.labels, found, strict=True):
            yield Answer(suite, question.name, column.name, shot.prompt, shot.seed, wanted, seen)


def pooled(
    suite: str,
    row: str,
    world: World,
    questions: Asked,
    column: Column,
    look: Look,
    *,
    gone: bool = False,
    note: str = "",
) -> Iterator[Measured]:
    """The share over several questions of one judge together; nothing if there are none."""
    if questions:
        base = [hit for question in questions for hit in hits(look, BASE, question)]
        now = [hit for question in questions for hit in hits(look, column.name, question)]
        kind = questions[0].judge
        assert kind is not None
        yield share(suite, row, column, base, now, gone=gone, judge=world.judges[kind].source, note=note)


def fits(suite: str, row: str, column: Column, look: Look, shots: Sequence[Shot], texts: Sequence[str],
    *, gone: bool = False,
) -> Iterator[Measured]:  # fmt: skip
    """CLIP's cosine of each picture with a text; nothing if there is no CLIP model."""
    if clip := look.world.clip():
        told = clip.texts(texts)
        base, now = ((torch.stack(look.features(c, "clip", shots)) * told).sum(1).tolist() for c in (BASE, column.name))
        yield average(suite, row, column, "cosine", base, now, gone=gone, judge=clip.source)


def moved(suite: str, row: str, column: Column, look: Look, shots: Sequence[Shot]) -> Iterator[Measured]:
    """How far a column's pictures are from the base's on the same seeds: in grey levels, and as a network sees them."""
    base, now = (look.pictures(name, shots) for name in (BASE, column.name))
    still = [0.0] * len(shots)
    levels = [grey_levels(one, two) for one, two in zip(base, now, strict=True)]
    yield average(suite, f"{row}: change by pixel", column, "grey levels", still, levels)
    if distance := look.world.distance():
        far = distance(base, now)
        yield average(suite, f"{row}: {distance.name} to base", column, "distance", still, far, judge=distance.source)


def names() -> list[str]:
    """The suites that are installed."""
    return sorted(entry.name for entry in entry_points(group="unsee.suites"))


def find(name: str) -> Suite:
    """A suite by name. Raises InputError for an unknown one."""
    for entry in entry_points(group="unsee.suites"):
        if entry.name == name:
            suite: Suite = entry.load()
            return suite
    raise unknown("suite", name, names())


__all__ = ["BASE", "Answer", "Column", "Figure", "Look", "Measured", "NotMeasured", "Score", "Suite", "World"]
__all__ += ["article"]
