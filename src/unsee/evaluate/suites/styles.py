"""Figs. 4 and 5 of Gandikota et al. (2023) as counts: every style, and whether the subject stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from unsee.evaluate.context import BASE, EvalContext, NotMeasured
from unsee.evaluate.detectors import Detector
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Answer, Measured, Role
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import IMAGENETTE, article

STYLE, SUBJECT, PLAIN, OBJECT = "style/", "subject/", "no style named/", "in styles/"
"""How the keys of rows begin: a style, what is drawn in it, its share where no style is named, an erased object."""
PART = 8  # of a row's pictures, for each style that stays


def ask(context: EvalContext) -> list[Question]:
    """For each style whether it shows, and whether its subject does; each erased object in every style.

    And how often the base model's pictures show an erased style that no prompt names: erasing leads to such pictures.
    Without a detector of styles, those that the model's words name; without one of objects, no subjects are counted.
    """
    counted = isinstance(context.detectors.get("styles"), Detector)
    styles = list(context.labels("styles") if counted else context.words.get("styles", ()))
    if not counted and (not styles or context.clip() is None):
        context.labels("styles")  # says what is missing
    objects = context.labels("objects") if "objects" in context.detectors else ()
    gone = {context.target(concept) for concept in context.concepts}
    known = [name for name in objects or context.words.get("objects", IMAGENETTE) if name not in gone | set(styles)]
    subjects = spread(known, context.n)
    if not objects and not gone & set(styles):
        words = ", ".join(concept.erase for concept in context.concepts) or "nothing"
        raise NotMeasured(
            f"what is erased ({words}) is neither a known style nor a known object: list styles in `words`"
        )
    asked = []
    for style in styles:
        drawn = [(context.styled(name, style), name) for name in subjects]
        part = 1 if style in gone else PART
        pairs = [(prompt, style) for prompt, _ in drawn]
        asked.append(context.question(f"{STYLE}{style}", style, "styles", pairs, part, "style"))
        if counted and style in gone:
            pairs = [(article(name), style) for name in subjects]
            title = f"{style}, where no style is named"
            plain = context.question(f"{PLAIN}{style}", title, "styles", pairs, role="other")
            asked.append(replace(plain, reference=True))
        if objects:
            title = f"subject in {style}"
            asked.append(context.question(f"{SUBJECT}{style}", title, "objects", drawn, part))
    for name in [name for name in objects if name in gone and name not in styles]:
        pairs = [(context.styled(name, style), name) for style in styles]
        asked.append(context.question(f"{OBJECT}{name}", f"{name}, in every style", "objects", pairs))
    return asked


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    plain, asked = [[question for question in asked if question.reference is bare] for bare in (True, False)]
    styles = [question for question in asked if question.key.startswith(STYLE)]
    subjects = [question for question in asked if question.key.startswith(SUBJECT)]
    lost = [question for question in styles if c.role(question) == "removed"]
    kept = [question for question in styles if question not in lost]
    own = {question.key.replace(STYLE, SUBJECT, 1) for question in lost}
    if "styles" in c.context.detectors:
        yield from c.pooled("removed", "erased styles", lost, "removed")
        yield from c.pooled("kept", "other styles", kept, "style")
    yield from c.pooled("subject of removed", "subject of erased styles", [q for q in subjects if q.key in own])
    yield from c.pooled("subject of kept", "subject of other styles", [q for q in subjects if q.key not in own])
    groups: list[tuple[str, str, list[Question], Role]] = [
        ("removed", "erased styles", lost, "removed"), ("kept", "other styles", kept, "style")
    ]  # fmt: skip
    for key, title, some, role in groups:
        shots = [shot for question in some for shot in question.shots]
        texts = [f"in the style of {label}" for question in some for label in question.labels]
        if some:
            yield from c.fits(f"{key}/fit", f"{title}: CLIP with the style", shots, texts, role)
            yield from c.changes(key, title, shots, role)
    yield from c.count([question for question in asked if question.detector in c.context.detectors])
    if c.variant.kind == BASE:
        yield from c.count(plain)


SUITE = Suite(
    "styles", "Objects drawn in every style: whether the style is recognised, and whether the object is.", ask, score
)
