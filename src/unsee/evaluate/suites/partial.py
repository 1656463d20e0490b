"""Fig. 11 of Gandikota et al. (2023): is the thing gone, or only the part of it that the classifier goes by?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from unsee.evaluate.context import EvalContext
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

GUESSES = 5


def ask(context: EvalContext) -> list[Question]:
    return [
        context.question(
            f"object/{name}", name, "objects", [(article(name), name), (f"a picture of {article(name)}", name)]
        )
        for name in context.targets("objects")
    ]


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    """Three readings, each stricter on the edit: first guess, among the first five, and the mean probability.

    Its parts that the detector knows too, such as a church's cross, are counted beside it: has only that part gone?
    """
    detector = c.context.detector("objects")
    for question in asked:
        name, role, shots = question.labels[0], c.role(question), question.shots
        base, now = c.both(lambda variant, shots=shots: detector.likely(c.seen.pictures(variant, shots)))  # type: ignore[misc]
        k = detector.labels.index(name)
        labels = c.seen.labels(c.variant.name, "objects", shots)
        note = "seen as " + ", ".join(f"{label} {times}" for label, times in Counter(labels).most_common(3))
        title = f"{name}, first guess"
        yield c.share(f"first/{name}", title, c.hits(question), role, detector.source, note)
        yield from c.answers(question, labels)
        top = min(GUESSES, len(detector.labels))
        parts = c.context.words.get("objects", {}).get(name, {}).get("parts", ())
        for label in (name, *(part for part in parts if part in detector.labels)):
            of = detector.labels.index(label)
            five: list[list[bool]] = [(p.topk(top).indices == of).any(1).tolist() for p in (base, now)]
            what = name if label == name else f"{name}: its {label}"
            key = f"top/{name}" if label == name else f"top/{name}/{label}"
            yield c.share(key, f"{what}, among the first {top}", five, role if of == k else "other", detector.source)
        sure: list[list[float]] = [p[:, k].to(torch.float64).tolist() for p in (base, now)]
        title = f"{name}, probability"
        yield c.average(f"probability/{name}", title, "probability", sure, role, detector.source)


SUITE = Suite(
    "partial", "Whether a part of the erased object is left: any of the classifier's first guesses counts.", ask, score
)
