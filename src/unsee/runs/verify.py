"""Measure the claims of an edit's card again: an evaluation of the same suite, on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unsee.edits.card import Card, Claims
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import AnyDetector
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Sampling
from unsee.evaluate.run import base
from unsee.evaluate.statistics import rate
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.models.model import Pipeline
from unsee.runs.config import EvalConfig
from unsee.runs.evaluate import Bench, as_variant

NAME = "edit"


@dataclass(frozen=True)
class Claim:
    """One row of a card: the shares that it claims, before and after, and what was found."""

    claimed: tuple[float, float]
    found: Measured

    @property
    def held(self) -> bool:
        """Whether what is found lies in the claim's own 95 % interval (Wilson's), before and after."""
        assert self.found.base
        values = (self.found.base.value, self.found.score.value)
        return all(within(value, share, self.found.score.n) for value, share in zip(values, self.claimed, strict=True))


def prepare(
    edit: Edit,
    config: EvalConfig,
    pipe: Pipeline,
    detectors: Mapping[str, AnyDetector],
    words: Mapping[str, Any] | None = None,
) -> Bench:
    """The evaluation that an edit's card claims, ready for `evaluate` or `measure`: `held` compares what these find.

    On the machine that made the claims the same numbers come out; elsewhere rounding may turn some pictures.

    config  names the model, the edit's file and the detectors; all else of it follows from the claims
    words   what the model's card says that it knows
    Raises InputError if the edit does not fit `pipe`, claims nothing, or a detector that counted is missing.
    """
    edit.check(pipe)
    card, claims = edit.card, edit.card.claims
    if claims is None or not claims.rows:
        raise InputError("the card claims nothing that could be measured again")
    if missing := claims.detectors.keys() - detectors.keys():
        kind = min(missing)
        raise InputError(
            f"the claims were counted by {claims.detectors[kind]!r}: give that detector as `detectors` {kind}=FOLDER"
        )
    context = EvalContext(pipe, detectors, words or {}, card.concepts, claims.pictures, claims.seed, kept=card.kept)
    suite = suites.find(claims.suite or SUMMARY)
    asked = {_claimed_as(claims, one): one for one in suite.ask(context) if one.detector}
    if unknown_rows := claims.rows.keys() - asked.keys():
        raise InputError(f"the card claims {min(unknown_rows)!r}, which these detectors do not count")
    some = replace(suite, ask=lambda context: [asked[name] for name in claims.rows])
    claimed = {
        "suites": (suite.name,),
        "pictures": claims.pictures,
        "seed": claims.seed,
        "steps": claims.steps,
        "guidance_scale": claims.guidance_scale,
        "call": card.call,
    }
    variants = [base(card.concepts), as_variant(NAME, edit)]
    config = config.model_copy(update=claimed)
    return Bench(config, context, [some], variants, Sampling(claims.steps, claims.guidance_scale))


def held(card: Card, evaluation: Evaluation) -> list[Claim]:
    """Each claim of a card beside what the evaluation of `prepare` found."""
    assert card.claims
    found = {
        _claimed_as(card.claims, one): one for one in evaluation.measured if one.variant == NAME and one.unit == "share"
    }
    return [Claim(claimed, found[name]) for name, claimed in card.claims.rows.items()]


def sentences(claims: Sequence[Claim]) -> list[str]:
    """How many claims hold, then each with what was found: ≈ where edit and base cannot be told apart."""
    said = [f"{sum(claim.held for claim in claims)} of {len(claims)} claims of the card hold, on the same seeds"]
    for claim in claims:
        one = claim.found
        assert one.base
        assert one.difference
        pairs = (claim.claimed, (one.base.value, one.score.value))
        claimed, found = (f"{100 * before:.1f} -> {100 * after:.1f} %" for before, after in pairs)
        what, mark = "holds" if claim.held else "FAILS", "" if one.difference.differs else " ≈"
        said.append(f"{what}  {one.row}: claimed {claimed}, found {found}{mark} (n = {one.score.n})")
    return said


def _claimed_as(claims: Claims, row: Question | Measured) -> str:
    """How claims name a row: by its key; in cards of earlier versions, by its English name."""
    if claims.suite:
        return row.key
    return row.name if isinstance(row, Question) else row.row


def within(value: float, claim: float, n: int) -> bool:
    """Whether a share lies in the 95 % interval of a claimed share of n pictures."""
    hits = round(claim * n)
    interval = rate([True] * hits + [False] * (n - hits))
    return interval.low - 1e-9 <= value <= interval.high + 1e-9  # the ends of 0 and of 1 are rounded, too
