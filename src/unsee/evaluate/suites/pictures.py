"""What needs no classifier: how much the pictures of the erased thing change, and those of other things."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import IMAGENETTE, article

OTHERS = 10


def ask(context: EvalContext) -> list[Question]:
    """A row for each erased thing, and one for ten others."""
    if not context.concepts:
        raise NotMeasured("no concept is named: name one with `concepts`")
    erased = {concept.from_ or concept.erase: concept for concept in reversed(context.concepts)}
    erased = dict(reversed(erased.items()))
    rest = [name for name in context.words.get("objects", IMAGENETTE) if name not in erased]

    def shots(prompts: list[str]) -> tuple[Shot, ...]:
        return tuple(Shot(prompts[k % len(prompts)], context.seed + k) for k in range(context.n))

    asked = [
        Question(
            f"thing/{name}", name, shots([article(name)]), role="other", erases=() if concept.from_ else (concept,)
        )
        for name, concept in erased.items()
    ]
    others = [article(name) for name in spread(rest, OTHERS)]
    return [*asked, Question("others", "other things", shots(others))]


def score(asked: Asked, c: Comparison) -> Iterator[Measured]:
    for question in asked:
        role, texts = c.role(question), [shot.prompt for shot in question.shots]
        fit = f"{question.name}: fit to the prompt"
        yield from c.fits(f"{question.key}/fit", fit, question.shots, texts, role)
        yield from c.changes(question.key, question.name, question.shots, role)


SUITE = Suite(
    "pictures",
    "Without a classifier: how far pictures change from the base model's, and how well they agree with the prompt.",
    ask,
    score,
)
