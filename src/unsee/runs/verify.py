"""Measure the claims of an edit's card again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.cache import Memory
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import AnyDetector
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Sampling
from unsee.evaluate.run import base, run
from unsee.evaluate.statistics import rate
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress
from unsee.runs.evaluate import as_variant


@dataclass(frozen=True)
class Claim:
    """One row of a card, as claimed and as found again: shares before and after, and Wilson's interval of the claim."""

    name: str
    claimed: tuple[float, float]
    found: tuple[float, float]
    held: bool


def verify(
    edit: Edit,
    pipe: Pipeline,
    detectors: Mapping[str, AnyDetector],
    *,
    words: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> list[Claim]:
    """Check that an edit is of the model `pipe`, and measure the claims of its card again, on their own seeds.

    On the machine that made a claim the same numbers come out; elsewhere rounding may turn some pictures. A claim holds
    if what is found lies in the claim's own 95 % interval, before and after.

    words  what the model's card says that it knows
    Raises InputError if the edit does not fit, or a detector that counted is missing.
    """
    edit.check(pipe)
    claims = edit.card.claims
    if claims is None:
        return []
    if missing := claims.detectors.keys() - detectors.keys():
        kind = min(missing)
        raise InputError(
            f"the claims were counted by {claims.detectors[kind]!r}: give that detector as `detectors` {kind}=FOLDER"
        )
    suite = suites.find(claims.suite or SUMMARY)
    concepts = edit.card.concepts
    context = EvalContext(pipe, detectors, words or {}, concepts, claims.pictures, claims.seed, kept=edit.card.kept)

    def claimed(question: Question) -> str:
        """How the claims name a row: cards of earlier versions have its English name."""
        return question.key if claims.suite else question.name

    asked = {claimed(one): one for one in suite.ask(context) if one.detector}
    if unknown_rows := claims.rows.keys() - asked.keys():
        raise InputError(f"the card claims {min(unknown_rows)!r}, which these detectors do not count")
    some = replace(suite, ask=lambda context: [asked[name] for name in claims.rows])
    sampling = Sampling(claims.steps, claims.guidance_scale)
    variants = [base(concepts), as_variant("edit", edit)]
    outcome = run(context, [some], variants, sampling, Memory(), progress=progress)
    measured = {one.key: one for one in outcome.measured if one.variant == "edit" and one.unit == "share"}
    found = []
    for name, claim in claims.rows.items():
        one = measured[asked[name].key]
        assert one.base
        values = (one.base.value, one.score.value)
        held = all(within(value, share, one.score.n) for value, share in zip(values, claim, strict=True))
        found.append(Claim(asked[name].name, claim, values, held))
    return found


def within(value: float, claim: float, n: int) -> bool:
    """Whether a share lies in the 95 % interval of a claimed share of n pictures."""
    hits = round(claim * n)
    interval = rate([True] * hits + [False] * (n - hits))
    return interval.low - 1e-9 <= value <= interval.high + 1e-9  # the ends of 0 and of 1 are rounded, too
