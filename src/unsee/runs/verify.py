"""Measure the claims of an edit's card again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unsee.denoising.record import Watch, quiet
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate.detectors import Judge
from unsee.evaluate.questions import answer, questions
from unsee.evaluate.render import Sampling, render_pair
from unsee.evaluate.statistics import rate
from unsee.models.model import Pipeline


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
    judges: Mapping[str, Judge],
    *,
    words: Mapping[str, Any] | None = None,
    watch: Watch = quiet,
) -> list[Claim]:
    """Check that an edit is of the model `pipe`, and measure the claims of its card again, on their own seeds.

    On the machine that made a claim the same numbers come out; elsewhere rounding may turn some pictures. A claim holds
    if what is found lies in the claim's own 95 % interval, before and after.

    words  what the model's card says that it knows, as in `questions`
    Raises InputError if the edit does not fit, or a judge that counted is missing.
    """
    edit.check(pipe)
    claims = edit.card.claims
    if claims is None:
        return []
    if missing := claims.judges.keys() - judges.keys():
        kind = min(missing)
        raise InputError(
            f"the claims were counted by a judge of {kind}, {claims.judges[kind]!r}: `judges` names it, {kind}=FOLDER"
        )
    options: dict[str, Any] = {"n": claims.pictures, "seed": claims.seed, "kept": edit.card.kept, "words": words}
    every = questions(pipe, edit.card.concepts, judges, **options)
    asked = [question for question in every if question.name in claims.rows and question.judge]
    if unknown_rows := claims.rows.keys() - {question.name for question in asked}:
        raise InputError(f"the card claims {min(unknown_rows)!r}, which these judges have no question for")
    shots = list(dict.fromkeys(shot for question in asked for shot in question.shots))
    sampling = Sampling(claims.steps, claims.guidance_scale)
    before, after = render_pair(pipe, edit.applied(pipe), shots, sampling, watch=watch)
    found = []
    for question in asked:
        row = answer(question, before, after, judges)
        assert row.before
        assert row.after
        values, claimed = (row.before.value, row.after.value), claims.rows[question.name]
        n = row.after.n
        held = all(_within(value, claim, n) for value, claim in zip(values, claimed, strict=True))
        found.append(Claim(question.name, claimed, values, held))
    return found


def _within(value: float, claim: float, n: int) -> bool:
    """Whether a share lies in the 95 % interval of a claimed share of n pictures."""
    hits = round(claim * n)
    interval = rate([True] * hits + [False] * (n - hits))
    return interval.low - 1e-9 <= value <= interval.high + 1e-9  # the ends of 0 and of 1 are rounded, too
