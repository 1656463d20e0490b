"""Ask, draw, score: each distinct picture is drawn once for each column, whichever suites look at it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unsee.concepts import Concept
from unsee.denoising.record import Watch, quiet
from unsee.errors import InputError
from unsee.evaluate.cache import Cache, Gallery, model_key
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured, SuiteRecord
from unsee.evaluate.render import Sampling
from unsee.evaluate.suites import BASE, Column, Figure, Look, NotMeasured, Suite, World


@dataclass(frozen=True)
class Outcome:
    """What suites found: records, and the pictures behind them by column.

    asked  the questions of each suite that could be measured
    """

    suites: tuple[SuiteRecord, ...]
    measured: tuple[Measured, ...]
    answers: tuple[Answer, ...]
    figures: tuple[Figure, ...]
    asked: dict[str, list[Question]]
    galleries: dict[str, Gallery]
    seconds: dict[str, float]
    model: str


def run(
    world: World,
    suites: Sequence[Suite],
    columns: Sequence[Column],
    sampling: Sampling,
    cache: Path,
    *,
    batch: int = 32,
    watch: Watch = quiet,
) -> Outcome:
    """Measure every column, the base model first. A suite that lacks something says so and stops no other.

    cache  folder of pictures; what is there is not drawn again
    batch  pictures drawn side by side
    Raises InputError if the cache cannot be written, or a column does not fit the model.
    """
    store = Cache(cache)
    asked: dict[str, list[Question]] = {}
    missing: dict[str, str] = {}
    for suite in suites:
        try:
            asked[suite.name] = suite.ask(world)
        except NotMeasured as reason:
            missing[suite.name] = str(reason)
    every = [question for questions in asked.values() for question in questions]
    model = model_key(world.pipe)

    start = time.perf_counter()
    galleries: dict[str, Gallery] = {}
    for column in columns:

        def tick(stage: str, done: int, total: int, before: int = len(galleries)) -> None:
            watch(stage, before * total + done, len(columns) * total)

        galleries[column.name] = store.draw(
            world.pipe,
            [shot for q in every if column.kind == BASE or not q.reference for shot in q.shots],
            sampling,
            model=model,
            change=column.key,
            applied=partial(column.applied, world.pipe),
            batch=batch,
            watch=tick,
        )
    drawn = time.perf_counter()

    look = Look(world, galleries)
    measured: list[Measured] = []
    answers: list[Answer] = []
    figures: list[Figure] = []
    jobs = [(suite, column) for suite in suites if suite.name in asked for column in columns]
    watch("score", 0, len(jobs))
    for done, (suite, column) in enumerate(jobs, start=1):
        try:
            for found in suite.score(world, asked[suite.name], column, look):
                if isinstance(found, Measured):
                    measured.append(found)
                elif isinstance(found, Figure):
                    figures.append(found)
                else:
                    answers.append(found)
        except NotMeasured as reason:
            missing[suite.name] = str(reason)
        watch("score", done, len(jobs))
    seconds = {"render": drawn - start, "score": time.perf_counter() - drawn}
    records = tuple(SuiteRecord(suite.name, suite.about, missing.get(suite.name)) for suite in suites)
    return Outcome(records, tuple(measured), tuple(answers), tuple(figures), asked, galleries, seconds, model)


def base(concepts: Sequence[Concept]) -> Column:
    """The base model as a column; rows about what is erased are about these concepts."""
    return Column(BASE, BASE, "", tuple(concepts), lambda pipe: nullcontext())


def distinct(columns: Sequence[Column]) -> None:
    """Raise InputError if two columns have one name."""
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            raise InputError(f"two columns are called {column.name!r}")
        seen.add(column.name)
