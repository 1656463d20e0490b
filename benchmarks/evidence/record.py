"""The table of all rows, from which a page is written: what was measured stays in it, and is not measured again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from unsee.evaluate.records import Measured
from unsee.evaluate.statistics import Difference, Score
from unsee.models.names import known_as

EDIT, ASKED, SECONDS, REFUSED = "edit", "asked", "seconds", "refused"
"""The suite and the keys of rows that tell of a cell: how many pictures were asked for a row, and how; the seconds of
one core that its edit took, with those on the other miniature as its base; why a method makes none."""
CORE = "seconds of one core"
OWN = ("task", "by", "cell", "day")
PLAIN = [field.name for field in fields(Measured) if field.name not in ("score", "base", "difference")]
SCORE = [field.name for field in fields(Score)]
BASE = [f"base {name}" for name in SCORE]
DIFFERENCE = [f"difference {field.name}" for field in fields(Difference)]
HEAD = [*OWN, *PLAIN, *SCORE, *BASE, *DIFFERENCE]


@dataclass(frozen=True)
class Cell:
    """What erases a task by one method or guard, and what was measured of it.

    key  a hash of all that was asked for; "day" is when it was measured
    """

    task: str
    by: str
    key: str
    day: str
    rows: tuple[Measured, ...]

    def row(self, suite: str, key: str) -> Measured | None:
        return next((one for one in self.rows if (one.suite, one.key) == (suite, key)), None)

    @property
    def pictures(self) -> int:
        """How many were asked for a row."""
        return one.score.n if (one := self.row(EDIT, ASKED)) else 0

    @property
    def refused(self) -> str:
        """Why there is no edit; "" if there is one."""
        return one.note if (one := self.row(EDIT, REFUSED)) else ""


def of(variant: str, measured: Iterable[Measured]) -> list[Measured]:
    """The rows of a variant, with names of detectors and not their places: a table is shown to others."""
    return [replace(one, detector=known_as(one.detector)) for one in measured if one.variant == variant]


def today() -> str:
    """The day of a cell that is measured now."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def score(value: float, n: int = 1) -> Score:
    """A number without an interval."""
    return Score(value, value, value, n)


def written(cells: Iterable[Cell]) -> str:
    """Cells as CSV, a line for each row."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(HEAD)
    for cell in cells:
        for one in cell.rows:
            numbers: list[Any] = []
            for names, some in ((SCORE, one.score), (BASE, one.base), (DIFFERENCE, one.difference)):
                last = [name.split()[-1] for name in names]
                values = [getattr(some, name) for name in last] if some else [""] * len(names)
                numbers += [f"{value:.6g}" if isinstance(value, float) else value for value in values]
            own = [cell.task, cell.by, cell.key, cell.day]
            out.writerow([*own, *(getattr(one, name) for name in PLAIN), *numbers])
    return stream.getvalue()


def read(text: str) -> list[Cell]:
    """Cells of a CSV, in its order."""
    found: dict[tuple[str, ...], list[Measured]] = {}
    for line in csv.DictReader(io.StringIO(text)):
        row = Measured(
            **{name: line.get(name, "") for name in PLAIN},  # type: ignore[arg-type]
            score=_number(Score, [line[name] for name in SCORE]),
            base=_number(Score, [line[name] for name in BASE]) if line[BASE[0]] else None,
            difference=_number(Difference, [line[name] for name in DIFFERENCE]) if line[DIFFERENCE[0]] else None,
        )
        found.setdefault(tuple(line[name] for name in OWN), []).append(row)
    return [Cell(*own, tuple(rows)) for own, rows in found.items()]


def _number(kind: Any, texts: Sequence[str]) -> Any:
    values: list[Any] = [float(text) for text in texts[:3]]
    return kind(*values, int(texts[3]), *(text == "True" for text in texts[4:]))
