"""Ask, draw, score: each distinct picture is drawn once for each column, whichever suites look at it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from PIL.Image import Image

from unsee.concepts import Concept
from unsee.errors import InputError
from unsee.evaluate.cache import Cache, Memory
from unsee.evaluate.context import BASE, EvalContext, NotMeasured, Variant
from unsee.evaluate.measures import Comparison
from unsee.evaluate.observations import Figure, Observations
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured, SuiteRecord
from unsee.evaluate.render import Sampling, Shot
from unsee.evaluate.suites import Suite
from unsee.progress import Progress, no_progress


@dataclass(frozen=True)
class Outcome:
    """What suites found: records, and the pictures behind them by variant.

    asked  the questions of each suite that could be measured
    """

    suites: tuple[SuiteRecord, ...]
    measured: tuple[Measured, ...]
    answers: tuple[Answer, ...]
    figures: tuple[Figure, ...]
    asked: dict[str, list[Question]]
    galleries: dict[str, Mapping[Shot, Image]]
    seconds: dict[str, float]
    model: str


def run(
    context: EvalContext,
    suites: Sequence[Suite],
    variants: Sequence[Variant],
    sampling: Sampling,
    store: Cache | Memory,
    *,
    batch: int = 32,
    progress: Progress = no_progress,
) -> Outcome:
    """Measure every variant, the base model first. A suite that lacks something says so and stops no other.

    store  keeps pictures; what is there is not drawn again
    batch  pictures drawn side by side
    Raises InputError if the cache cannot be written, or a variant does not fit the model.
    """
    asked: dict[str, list[Question]] = {}
    missing: dict[str, str] = {}
    for suite in suites:
        try:
            asked[suite.name] = suite.ask(context)
        except NotMeasured as reason:
            missing[suite.name] = str(reason)
    every = [question for questions in asked.values() for question in questions]
    model = store.key(context.pipe)

    start = time.perf_counter()
    galleries: dict[str, Mapping[Shot, Image]] = {}
    for variant in variants:

        def tick(stage: str, done: int, total: int, before: int = len(galleries)) -> None:
            progress(stage, before * total + done, len(variants) * total)

        galleries[variant.name] = store.draw(
            context.pipe,
            [shot for q in every if variant.kind == BASE or not q.reference for shot in q.shots],
            sampling,
            model=model,
            change=variant.key,
            applied=partial(variant.applied, context.pipe),
            batch=batch,
            progress=tick,
        )
    drawn = time.perf_counter()

    seen = Observations(context, galleries)
    measured: list[Measured] = []
    answers: list[Answer] = []
    figures: list[Figure] = []
    jobs = [(suite, variant) for suite in suites if suite.name in asked for variant in variants]
    progress("score", 0, len(jobs))
    for done, (suite, variant) in enumerate(jobs, start=1):
        try:
            for found in suite.score(asked[suite.name], Comparison(suite.name, context, variant, seen)):
                if isinstance(found, Measured):
                    measured.append(found)
                elif isinstance(found, Figure):
                    figures.append(found)
                else:
                    answers.append(found)
        except NotMeasured as reason:
            missing[suite.name] = str(reason)
        progress("score", done, len(jobs))
    seconds = {"render": drawn - start, "score": time.perf_counter() - drawn}
    records = tuple(SuiteRecord(suite.name, suite.about, missing.get(suite.name)) for suite in suites)
    return Outcome(records, tuple(measured), tuple(answers), tuple(figures), asked, galleries, seconds, model)


def base(concepts: Sequence[Concept]) -> Variant:
    """The base model as a variant; rows about what is erased are about these concepts."""
    return Variant(BASE, BASE, "", tuple(concepts), lambda pipe: nullcontext())


def distinct(variants: Sequence[Variant]) -> None:
    """Raise InputError if two variants have one name."""
    seen: set[str] = set()
    for variant in variants:
        if variant.name in seen:
            raise InputError(f"two columns are called {variant.name!r}")
        seen.add(variant.name)
