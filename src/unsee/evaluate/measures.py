"""A variant beside the base model, picture by picture: shares, means, fit to texts, change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from unsee.evaluate.context import BASE, EvalContext, Variant
from unsee.evaluate.distance import grey_levels
from unsee.evaluate.observations import Observations
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured, Role
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import bootstrap, paired_means, paired_rates, rate

T = TypeVar("T")
CHANGE = "/change"
"""Ends the key of a row's picture change."""


@dataclass(frozen=True)
class Comparison:
    """One variant beside the base model, on the same prompts and seeds: what a suite measures with.

    suite  its name, for the records
    """

    suite: str
    context: EvalContext
    variant: Variant
    seen: Observations

    @property
    def erased(self) -> set[str]:
        """The labels that the variant means to bring to zero."""
        return {self.context.target(concept) for concept in self.variant.concepts}

    def role(self, question: Question) -> Role:
        """What a question is about for this variant: another one may erase what this one keeps."""
        if question.erases:
            own = {(concept.erase, concept.from_) for concept in self.variant.concepts}
            removed = {(concept.erase, concept.from_) for concept in question.erases} <= own
        else:
            removed = bool(question.labels) and set(question.labels) <= self.erased
        return "removed" if removed else "kept" if question.role == "removed" else question.role

    def both(self, look: Callable[[str], T]) -> tuple[T, T]:
        """`look` for the base model and for the variant; it takes the name of either."""
        return look(BASE), look(self.variant.name)

    def share(
        self, key: str, row: str, pair: Sequence[Sequence[bool]],
        role: Role = "kept", detector: str = "", note: str = "",
    ) -> Measured:  # fmt: skip
        """A share of pictures. pair: of the base and of the variant, for each picture whether it counts."""
        (base, now), name = pair, self.variant.name
        if self.variant.kind == BASE:
            return Measured(self.suite, key, role, row, name, "share", rate(now), None, None, detector, note)
        change = paired_rates(base, now)
        return Measured(self.suite, key, role, row, name, "share", rate(now), rate(base), change, detector, note)

    def average(
        self, key: str, row: str, unit: str, pair: Sequence[Sequence[float]],
        role: Role = "other", detector: str = "", note: str = "", name: str = "",
    ) -> Measured:  # fmt: skip
        """A mean over pictures. pair: the numbers of the base's pictures, and of the variant's; name: see Measured."""
        (base, now), own = pair, self.variant.name
        if self.variant.kind == BASE:
            return Measured(self.suite, key, role, row, own, unit, bootstrap(now), None, None, detector, note, name)
        before, change = bootstrap(base), paired_means(base, now)
        return Measured(self.suite, key, role, row, own, unit, bootstrap(now), before, change, detector, note, name)

    def hits(self, question: Question) -> tuple[list[bool], list[bool]]:
        """For each picture of the base and of the variant, whether the detector sees what the question wants."""
        kind = question.detector
        assert kind is not None
        found = self.both(lambda name: self.seen.labels(name, kind, question.shots))
        base, now = ([a == b for a, b in zip(labels, question.labels, strict=True)] for labels in found)
        return base, now

    def answers(self, question: Question, found: Sequence[str], row: str = "") -> Iterator[Answer]:
        """Every single answer to a question about the variant's pictures; `row` where that is not the question's."""
        for shot, wanted, label in zip(question.shots, question.labels, found, strict=True):
            name = self.variant.name
            yield Answer(self.suite, question.key, row or question.name, name, shot.prompt, shot.seed, wanted, label)

    def count(self, questions: Sequence[Question]) -> Iterator[Measured | Answer]:
        """For each question the share of pictures that show what it wants, and every single answer."""
        for question in questions:
            kind = question.detector
            assert kind is not None
            source, role = self.context.detectors[kind].source, self.role(question)
            yield self.share(question.key, question.name, self.hits(question), role, source, question.note)
            yield from self.answers(question, self.seen.labels(self.variant.name, kind, question.shots))

    def pooled(
        self, key: str, row: str, questions: Sequence[Question], role: Role = "kept", note: str = ""
    ) -> Iterator[Measured]:
        """The share over several questions to one detector together; nothing if there are none."""
        if questions:
            each = [self.hits(question) for question in questions]
            base, now = ([hit for pair in each for hit in pair[k]] for k in (0, 1))
            source = self.context.detectors[str(questions[0].detector)].source
            yield self.share(key, row, (base, now), role, source, note)

    def fits(
        self, key: str, row: str, shots: Sequence[Shot], texts: Sequence[str], role: Role = "other"
    ) -> Iterator[Measured]:
        """CLIP's cosine of each picture with a text; nothing if there is no CLIP model."""
        if clip := self.context.clip():
            wanted = clip.texts(texts)

            def cosines(name: str) -> list[float]:
                found: list[float] = (torch.stack(self.seen.features(name, "clip", shots)) * wanted).sum(1).tolist()
                return found

            yield self.average(key, row, "cosine", self.both(cosines), role, clip.source)

    def change(self, key: str, row: str, shots: Sequence[Shot], role: Role = "other", note: str = "") -> Measured:
        """How far pictures are from the base's on the same seeds, in grey levels: see distance.grey_levels."""
        base, now = self.both(lambda name: self.seen.pictures(name, shots))
        levels = [grey_levels(one, two) for one, two in zip(base, now, strict=True)]
        pair = [0.0] * len(shots), levels
        return self.average(key + CHANGE, f"{row}: picture change", "grey levels", pair, role, note=note, name=row)

    def changes(self, key: str, row: str, shots: Sequence[Shot], role: Role = "other") -> Iterator[Measured]:
        """How far pictures are from the base's on the same seeds: in grey levels, and as a network sees them."""
        yield self.change(key, row, shots, role)
        if distance := self.context.distance():
            far = distance(*self.both(lambda name: self.seen.pictures(name, shots)))
            title = f"{row}: {distance.name} to base"
            still = [0.0] * len(shots)
            yield self.average(f"{key}/distance", title, "distance", (still, far), role, distance.source)
