"""Sec. 5.5 of Gandikota et al. (2023): how far to steer away. Edits that differ in eta, erased against kept.

There, eta 1, 3 and 10 erase 83, 88 and 92 % of what is to go and cost other objects 7, 14 and 34 points.
"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.context import BASE, EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

CLASSES = 10
PART = 4
KEPT = "kept/"


def ask(context: EvalContext) -> list[Question]:
    """A row for what is erased, asked for as its kind of thing is met; and ten objects that are to stay."""
    known = context.labels("objects")
    gone = list(dict.fromkeys(map(context.target, context.concepts)))
    some = spread([name for name in known if name not in gone], context.n)
    ways = {
        "objects": lambda name: [(f"an image of {article(name)}", name)],
        "styles": lambda name: [(context.styled(thing, name), name) for thing in some],
    }
    asked = []
    for name in gone:
        kind = next((kind for kind in context.detectors if name in context.detectors[kind].labels), None)
        if kind is not None:
            # What is no object and no style is an implicit concept.
            pairs = ways[kind](name) if kind in ways else [(article(thing), name) for thing in some]
            asked.append(context.question(f"removed/{name}", name, kind, pairs))
    if not asked:
        raise NotMeasured("no detector has a word for what is erased")
    ten = [name for name in context.words.get("imagenette", {}).values() if name in known and name not in gone]
    for name in ten or spread(some, CLASSES):
        pairs = [(f"an image of {article(name)}", name)]
        asked.append(context.question(f"{KEPT}{name}", f"kept: {name}", "objects", pairs, PART))
    return asked


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    """For edits that were made with an eta; others have no row here."""
    if c.variant.kind != BASE and "eta" not in c.variant.settings:
        return
    eta = "" if c.variant.kind == BASE else f"eta {c.variant.settings['eta']:g}"
    note = "" if eta in c.variant.name else f"{c.variant.name} has {eta}"
    kept = [question for question in asked if question.key.startswith(KEPT)]
    removed = [question for question in asked if question not in kept and c.role(question) == "removed"]
    yield from c.pooled("removed", "erased", removed, "removed", note)
    yield from c.pooled("kept", "kept", kept, note=note)
    yield from c.count(asked)


SUITE = Suite(
    "eta", "Edits with different eta: what is left of the erased concept, and of ten other objects.", ask, score
)
