"""What an evaluation found, as plain records: one schema for the page, for JSON and for CSV.

`Evaluation` is what `unsee evaluate --json` prints and evaluation.json holds; `schema()` describes it as JSON Schema.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from unsee.errors import InputError
from unsee.evaluate.statistics import Difference, Score

VERSION = 1


@dataclass(frozen=True)
class Measured:
    """One number: a row of a suite for one column.

    column      "base", or the name of an edit or guard
    unit        "share" of pictures (0 to 1), "cosine", "probability" (0 to 1), "grey levels" of 255, "distance",
                "parts a picture", or "contribution" of attention
    gone        whether this column means to bring it to zero
    score       the number, with n and its 95 % interval
    base        the base model's on the same prompts and seeds; None in the base's own column
    difference  score minus base, picture by picture; None in the base's own column
    judge       where the judge was loaded from; "" if none was needed
    note        what a reader should know of this number
    """

    suite: str
    row: str
    column: str
    unit: str
    gone: bool
    score: Score
    base: Score | None
    difference: Difference | None
    judge: str = ""
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a judge said of one picture.

    wanted  the answer if the model drew what the prompt says
    found   the judge's
    """

    suite: str
    row: str
    column: str
    prompt: str
    seed: int
    wanted: str
    found: str


@dataclass(frozen=True)
class ColumnRecord:
    """Who was measured: "base", or an edit or guard with how it was made."""

    name: str
    kind: str
    concepts: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class SuiteRecord:
    """What was asked for.

    not_measured  why there are no numbers; None if there are
    """

    name: str
    about: str
    not_measured: str | None


@dataclass(frozen=True)
class Evaluation:
    """All that an evaluation found.

    schema      the version of this layout
    command     that makes it again
    model       name, and hash over all weights
    sampling    steps and guidance_scale of the pictures, `call`, other options of the pipeline's calls, and `left_out`,
                checkers of the model without which they were drawn, where there are any
    n, seed     pictures for each row, and the first one's seed
    judges      by kind, where they were loaded from
    """

    schema: int
    command: str
    model: dict[str, str]
    sampling: dict[str, Any]
    n: int
    seed: int
    judges: dict[str, str]
    versions: dict[str, str]
    device: str
    seconds: dict[str, float]
    columns: tuple[ColumnRecord, ...]
    suites: tuple[SuiteRecord, ...]
    measured: tuple[Measured, ...]
    answers: tuple[Answer, ...]

    def to_json(self) -> str:
        return TypeAdapter(Evaluation).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluation:
        found = TypeAdapter(cls).validate_json(text)
        if found.schema != VERSION:
            raise InputError(f"an evaluation of layout {found.schema}: this version of unsee reads {VERSION}")
        return found


def schema() -> dict[str, Any]:
    """The layout of an Evaluation as JSON Schema."""
    return TypeAdapter(Evaluation).json_schema()


def scores_csv(measured: Sequence[Measured]) -> str:
    """One line for each number."""
    head = [
        "suite",
        "row",
        "column",
        "unit",
        "gone",
        "value",
        "low",
        "high",
        "n",
        "base",
        "difference",
        "difference low",
    ]
    head += ["difference high", "differs", "judge", "note"]
    lines = []
    for one in measured:
        change = one.difference
        lines.append(
            [one.suite, one.row, one.column, one.unit, one.gone, *asdict(one.score).values()]
            + [one.base.value if one.base else ""]
            + ([change.value, change.low, change.high, change.differs] if change else [""] * 4)
            + [one.judge, one.note]
        )
    return _csv(head, lines)


def answers_csv(answers: Sequence[Answer]) -> str:
    """One line for each picture that a judge looked at."""
    head = ["suite", "row", "column", "prompt", "seed", "wanted", "found"]
    return _csv(head, [list(asdict(answer).values()) for answer in answers])


def _csv(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([head, *lines])
    return stream.getvalue()
