"""An evaluation as tables, pictures and one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Figure
from unsee.report.grid import embedded, mosaic, sheets, stacked
from unsee.report.page import ROOM, environment

ROWS = 30
SHOWN = 8
GROUPS = 3
PAIRS = 3
CELLS = (128, 96, 64, 48)
BASE = "base"
NEAR = 6.0
"""Per cent; points of a curve that are nearer than this share a label."""


@dataclass(frozen=True)
class Table:
    """A suite's rows by column: texts.

    gone   of each cell, whether its column means to bring it to zero
    shares of each cell, its share in per cent; None for what is no share
    """

    suite: str
    about: str
    not_measured: str | None
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    gone: tuple[tuple[bool, ...], ...]
    shares: tuple[tuple[float | None, ...], ...]
    notes: tuple[str, ...]


def number(value: float, unit: str) -> str:
    """A value in its unit: shares in per cent."""
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g}"


def cell(one: Measured) -> str:
    """A number with its interval, and in words whether it differs from the base."""
    text = number(one.score.value, one.unit)
    if one.score.low < one.score.high:
        low, high = (number(end, one.unit).removesuffix(" %") for end in (one.score.low, one.score.high))
        text += f" ({low} to {high})"
    if one.difference and not one.difference.differs:
        text += " ≈"
    return text


def tables(evaluation: Evaluation) -> list[Table]:
    """Every suite as a table; of long ones the summary and the rows that lose most, all of them being in scores.csv."""
    return [_table(evaluation, suite.name, suite.about, suite.not_measured) for suite in evaluation.suites]


def _table(evaluation: Evaluation, name: str, about: str, missing: str | None) -> Table:
    found = [one for one in evaluation.measured if one.suite == name]
    columns = [column.name for column in evaluation.columns]
    rows = list(dict.fromkeys(one.row for one in found))
    by = {(one.row, one.column): one for one in found}
    notes = list(_notes(found))
    if len(rows) > ROWS:
        first = columns[1] if len(columns) > 1 else columns[0]
        loss = {row: one.difference.value if (one := by.get((row, first))) and one.difference else 0.0 for row in rows}
        keep = set(rows[:4]) | set(sorted(rows, key=lambda row: loss[row])[: ROWS // 2])
        text = f"{len(keep)} of {len(rows)} rows are shown, those that lose most by {first}; all are in scores.csv"
        notes.append(text)
        others = [row for row in rows[1:] if row in keep]  # rows that lose alike stay in order: a set has none
        rows = [rows[0], *sorted(others, key=lambda row: (rows.index(row) > 3, loss[row]))]
    lines, gone, shares = [], [], []
    for row in rows:
        cells = [by.get((row, column)) for column in columns]
        unit = next(one.unit for one in cells if one)
        n = {one.score.n for one in cells if one}
        lines.append((row, *(cell(one) if one else "" for one in cells), "/".join(map(str, sorted(n))), unit))
        gone.append((False, *(bool(one and one.gone) for one in cells), False, False))
        bars = (100 * one.score.value if one and unit == "share" else None for one in cells)
        shares.append((None, *bars, None, None))
    head = ("", *columns, "n", "unit")
    return Table(name, about, missing, head, tuple(lines), tuple(gone), tuple(shares), tuple(notes))


def _notes(found: Sequence[Measured]) -> Iterator[str]:
    """What is said of rows, with the columns it is said of where columns differ."""
    said: dict[str, dict[str, list[str]]] = {}
    for one in found:
        if one.note:
            said.setdefault(one.row, {}).setdefault(one.note, []).append(one.column)
    for row, notes in said.items():
        for note, columns in notes.items():
            yield f"{row}{', ' + ', '.join(columns) if len(notes) > 1 else ''}: {note}"


def verdict(evaluation: Evaluation) -> list[str]:
    """What happened, a sentence for each column, with its numbers."""
    said = []
    for column in evaluation.columns[1:] or evaluation.columns:
        own = [one for one in evaluation.measured if one.column == column.name and one.unit == "share"]
        gone, stay = (next((one for one in own if one.gone is want), None) for want in (True, False))
        parts = [_sentence(one) for one in (gone, stay) if one]
        if parts:
            said.append(f"{column.name}: " + "; ".join(parts) + ".")
    if said or not evaluation.measured:
        return said or ["Nothing was measured: no suite found what it needs."]
    first = {one.column: one for one in reversed(evaluation.measured)}
    moved = [f"{c.name}: {_sentence(first[c.name])}." for c in evaluation.columns[1:] if c.name in first]
    return [
        "No judge says what the pictures show; how they fit their prompts and how far they move is measured.",
        *moved,
    ]


def idle(evaluation: Evaluation) -> list[str]:
    """What to know of guards whose warm-up is as long as a run: they never act."""
    steps = evaluation.sampling["steps"]
    waits = {column.name: column.settings.get("warmup", 0) for column in evaluation.columns if column.kind == "guard"}
    return [
        f"{name} never acts here: its warm-up is {wait} steps, a run has {steps} (--steps gives it more)."
        for name, wait in waits.items()
        if wait >= steps
    ]


def _sentence(one: Measured) -> str:
    text = f"{one.row} ({one.suite}) {number(one.score.value, one.unit)}"
    if one.base and one.difference:
        text += f", {number(one.base.value, one.unit)} before"
        text += "" if one.difference.differs else ", not distinguishable"
    return f"{text} (n = {one.score.n})"


def contact(
    asked: Mapping[str, Sequence[Question]], galleries: Mapping[str, Mapping[Shot, Image.Image]], cell: int = CELLS[0]
) -> list[Image.Image]:
    """Sheets of a few pictures of every suite, a line for each column, same seeds above each other."""
    groups = [
        (f"{suite}: {question.name}", spread(question.shots, SHOWN))
        for suite, questions in asked.items()
        for question in spread([q for q in questions if not q.reference], GROUPS)
    ]
    return sheets(groups, galleries, cell)


def page(
    evaluation: Evaluation,
    asked: Mapping[str, Sequence[Question]],
    galleries: Mapping[str, Mapping[Shot, Image.Image]],
    figures: Mapping[str, Sequence[Image.Image]],
    remarks: Sequence[str] = (),
) -> str:
    """The HTML of an evaluation, remarks first. All of its texts are escaped: prompts and cards come from anywhere.

    figures  sheets by suite, see figure_sheets
    """
    drawn = [q for questions in asked.values() for q in [q for q in questions if not q.reference][:2]]
    shots = [shot for question in drawn for shot in question.shots[:4]][:8]
    pairs = [
        (column.name, *(embedded(mosaic(shots, galleries[name])) for name in (BASE, column.name)))
        for column in evaluation.columns[1 : 1 + PAIRS]
        if shots
    ]
    return (
        environment()
        .get_template("evaluation.html.j2")
        .render(
            evaluation=evaluation,
            tables=tables(evaluation),
            verdict=[*remarks, *verdict(evaluation), *idle(evaluation)],
            pictures=_fitting(asked, galleries),
            pairs=pairs,
            curves=curves(evaluation),
            figures={suite: [embedded(sheet) for sheet in sheets] for suite, sheets in figures.items()},
        )
    )


def _fitting(
    asked: Mapping[str, Sequence[Question]], galleries: Mapping[str, Mapping[Shot, Image.Image]], room: int = ROOM
) -> dict[str, list[dict[str, Any]]]:
    """Contact sheets of each suite, all of them together within `room` characters by smaller thumbnails."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in CELLS:
        drawn = {suite: contact({suite: questions}, galleries, cell) for suite, questions in asked.items()}
        found = {suite: list(map(embedded, some)) for suite, some in drawn.items()}
        if sum(len(picture["data"]) for some in found.values() for picture in some) <= room:
            break
    return found


def figure_sheets(figures: Sequence[Figure]) -> dict[str, list[Image.Image]]:
    """The pictures that suites made, as sheets for each."""
    made: dict[str, dict[str, dict[str, dict[Shot, Image.Image]]]] = {}
    for one in figures:
        made.setdefault(one.suite, {}).setdefault(one.row, {}).setdefault(one.column, {})[one.shot] = one.picture
    found = {}
    for suite, rows in made.items():
        parts = []
        for row, columns in rows.items():
            shots = list(next(iter(columns.values())))
            parts += sheets([(row, spread(shots, SHOWN))], columns, CELLS[1])
        found[suite] = stacked(parts)
    return found


@dataclass(frozen=True)
class Curve:
    """For one suite, each column as a point: what of the erased is left, and what of the rest, in per cent.

    spots  places with the numbers of the columns that are there, or so near that they would cover each other
    names  of the columns, in the order of their numbers from 1
    """

    suite: str
    gone: str
    stay: str
    spots: tuple[tuple[str, float, float], ...]
    names: tuple[str, ...]


def curves(evaluation: Evaluation) -> list[Curve]:
    """Erased against kept, for suites that have both as shares; the first row of each kind."""
    found = []
    for suite in evaluation.suites:
        rows = [one for one in evaluation.measured if one.suite == suite.name and one.unit == "share"]
        gone = next((one.row for one in rows if one.gone), None)
        stay = next((one.row for one in rows if not any(o.gone for o in rows if o.row == one.row)), None)
        by = {(one.row, one.column): 100 * one.score.value for one in rows}
        names = [c.name for c in evaluation.columns if (gone, c.name) in by and (stay, c.name) in by]
        if gone and stay and len(names) > 1:
            spots = _spots([(by[gone, name], by[stay, name]) for name in names])
            found.append(Curve(suite.name, gone, stay, spots, tuple(names)))
    return found


def _spots(points: Sequence[tuple[float, float]]) -> tuple[tuple[str, float, float], ...]:
    """Points by number; those that lie within NEAR of another's spot are told at that."""
    spots: dict[tuple[float, float], list[int]] = {}
    for k, (x, y) in enumerate(points, start=1):
        near = next((at for at in spots if abs(at[0] - x) < NEAR and abs(at[1] - y) < NEAR), (x, y))
        spots.setdefault(near, []).append(k)
    return tuple((", ".join(map(str, numbers)), x, y) for (x, y), numbers in spots.items())
