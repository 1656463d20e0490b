"""Two things side by side, one of them erased: it should go, the other stay. Each half is classified alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article
from unsee.models.denoisers import denoisers
from unsee.models.model import raw

PART = 2  # each picture is two wide
LEFT, BESIDE = "left", "beside"


def ask(context: EvalContext) -> list[Question]:
    """For each erased object a row for itself, on the left, and one for what stands on the right."""
    scene = context.words.get("scene")
    if not scene:
        raise NotMeasured("the model's card has no 'scene', a prompt for two things side by side")
    size = _side(context)
    asked = []
    targets = context.targets("objects")
    for target in targets:
        rest = spread([name for name in context.labels("objects") if name not in targets], max(2, context.n // PART))
        prompts = [scene.format(article(target), article(name)) for name in rest]
        rows = {
            f"{LEFT}/{target}": (target, [(p, target) for p in prompts]),
            f"{BESIDE}/{target}": (f"the one beside {target}", list(zip(prompts, rest, strict=True))),
        }
        for key, (name, pairs) in rows.items():
            question = context.question(key, name, "objects", pairs, PART)
            asked.append(replace(question, shots=tuple(replace(s, size=(2 * size, size)) for s in question.shots)))
    return asked


def _side(context: EvalContext) -> int:
    """The width of one picture in pixels."""
    net: Any = next(iter(denoisers(context.pipe).values()))
    return int(net.config.sample_size * raw(context.pipe).vae_scale_factor)


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    detector = c.context.detector("objects")
    for question in asked:
        left = question.key.startswith(LEFT)
        labels: list[list[str]] = []
        for name in c.both(str):
            whole = c.seen.pictures(name, question.shots)
            boxes = [(0, 0, p.width // 2, p.height) if left else (p.width // 2, 0, p.width, p.height) for p in whole]
            labels.append(detector([picture.crop(box) for picture, box in zip(whole, boxes, strict=True)]))
        hits = [[a == b for a, b in zip(found, question.labels, strict=True)] for found in labels]
        yield c.share(question.key, question.name, hits, c.role(question), detector.source)
        yield from c.answers(question, labels[1])


SUITE = Suite(
    "scenes", "Two objects side by side, one of them erased. Each half of the picture is classified alone.", ask, score
)
