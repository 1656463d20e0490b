"""The results of an evaluation as plain records: one schema for the page, for JSON and for CSV.

`Evaluation` is what `unsee evaluate --json` prints and evaluation.json holds; `schema()` describes it as JSON Schema.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from unsee.errors import InputError
from unsee.evaluate.statistics import Difference, Score
from unsee.models.names import known_as

VERSION = 2

Role = Literal["removed", "neighbour", "kept", "style", "other"]
"""What a row is about, for one variant:

removed    what the variant means to remove
neighbour  what must stay and is most like it, or was named to be kept
style      other styles, which must stay
kept       all else that must stay
other      what must neither go nor stay: references, the noise of a measure
"""
STAYS: tuple[Role, ...] = ("neighbour", "style", "kept")
DISTANCES = ("grey levels", "distance")
"""Units of what grows where something is removed."""


@dataclass(frozen=True)
class Measured:
    """One number: a row of a suite for one variant.

    key         names the row in its suite; it stays when the English of `row` changes
    role        what the row is about
    variant     "base", or the name of an edit or guard
    unit        "share" of pictures (0 to 1), "cosine", "probability" (0 to 1), "grey levels" of 255, "distance",
                "parts a picture", "contribution" of attention, "squared error" of the denoiser, or "ratio" to the base
    score       the number, with n and its 95 % interval
    base        the base model's on the same prompts and seeds; None for the base itself
    difference  score minus base, picture by picture; None for the base itself
    detector    where the detector was loaded from; "" if none was needed
    note        what a reader should know of this number
    name        what the row is about, where `row` says more; "" where `row` is that, and in earlier records
    """

    suite: str
    key: str
    role: Role
    row: str
    variant: str
    unit: str
    score: Score
    base: Score | None
    difference: Difference | None
    detector: str = ""
    note: str = ""
    name: str = ""

    @property
    def expect_removed(self) -> bool:
        """Whether this variant means to bring the number to zero."""
        return self.role == "removed" and self.base is not None and self.unit not in DISTANCES


@dataclass(frozen=True)
class Answer:
    """What a detector answered for one picture.

    wanted  the answer if the model drew what the prompt says
    found   the detector's
    """

    suite: str
    key: str
    row: str
    variant: str
    prompt: str
    seed: int
    wanted: str
    found: str


@dataclass(frozen=True)
class VariantRecord:
    """What was measured: "base", or an edit or guard with its settings.

    curve  of an edit's fit: (updates done, error where the concept is asked for, and where something else is)
    """

    name: str
    kind: str
    concepts: tuple[str, ...]
    settings: dict[str, Any]
    curve: tuple[tuple[float, float, float], ...] = ()


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
    command     that was typed
    config      every setting after defaults: `unsee evaluate --config` repeats the evaluation from it
    model       name, and hash over all weights
    sampling    steps and guidance_scale of the pictures, `call`, other options of the pipeline's calls, and `left_out`,
                checkers of the model without which they were drawn, where there are any
    n, seed     pictures for each row, and the first one's seed
    detectors   by kind, where they were loaded from
    """

    schema: int
    command: str
    config: dict[str, Any]
    model: dict[str, str]
    sampling: dict[str, Any]
    n: int
    seed: int
    detectors: dict[str, str]
    versions: dict[str, str]
    device: str
    seconds: dict[str, float]
    variants: tuple[VariantRecord, ...]
    suites: tuple[SuiteRecord, ...]
    measured: tuple[Measured, ...]
    answers: tuple[Answer, ...]

    def to_json(self) -> str:
        return TypeAdapter(Evaluation).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Evaluation:
        found = TypeAdapter(cls).validate_json(text)
        if found.schema != VERSION:
            raise InputError(f"the evaluation has layout {found.schema}; this version of unsee reads layout {VERSION}")
        return found


def schema() -> dict[str, Any]:
    """The layout of an Evaluation as JSON Schema."""
    return TypeAdapter(Evaluation).json_schema()


def scores_csv(measured: Sequence[Measured]) -> str:
    """One line for each number. Of a detector's folder it has the name: a table is shown to others."""
    head = ["suite", "key", "role", "row", "variant", "unit", "value", "low", "high", "n", "base"]
    head += ["difference", "difference low", "difference high", "differs", "detector", "note"]
    lines = []
    for one in measured:
        change = one.difference
        lines.append(
            [one.suite, one.key, one.role, one.row, one.variant, one.unit, *asdict(one.score).values()]
            + [one.base.value if one.base else ""]
            + ([change.value, change.low, change.high, change.differs] if change else [""] * 4)
            + [known_as(one.detector), one.note]
        )
    return _csv(head, lines)


def answers_csv(answers: Sequence[Answer]) -> str:
    """One line for each picture that a detector looked at."""
    head = ["suite", "key", "row", "variant", "prompt", "seed", "wanted", "found"]
    return _csv(head, [list(asdict(answer).values()) for answer in answers])


def _csv(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([head, *lines])
    return stream.getvalue()
