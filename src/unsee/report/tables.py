"""An evaluation as tables and sentences: texts, made of its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unsee.evaluate.records import Evaluation, Measured

ROWS = 30


@dataclass(frozen=True)
class Table:
    """A suite's rows by variant: texts.

    removed  of each cell, whether its variant means to bring it to zero
    shares of each cell, its share in per cent; None for what is no share
    """

    suite: str
    about: str
    not_measured: str | None
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    removed: tuple[tuple[bool, ...], ...]
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
    variants = [variant.name for variant in evaluation.variants]
    rows = list(dict.fromkeys(one.key for one in found))
    names = {one.key: one.row for one in reversed(found)}
    by = {(one.key, one.variant): one for one in found}
    notes = list(_notes(found))
    if len(rows) > ROWS:
        first = variants[1] if len(variants) > 1 else variants[0]
        loss = {row: _loss(by.get((row, first))) for row in rows}
        keep = set(rows[:4]) | set(sorted(rows, key=lambda row: loss[row])[: ROWS // 2])
        text = f"{len(keep)} of {len(rows)} rows are shown: those that lose most by {first}; all are in scores.csv"
        notes.append(text)
        others = [row for row in rows[1:] if row in keep]  # rows that lose alike stay in order: a set has none
        rows = [rows[0], *sorted(others, key=lambda row: (rows.index(row) > 3, loss[row]))]
    lines, removed, shares = [], [], []
    for row in rows:
        cells = [by.get((row, variant)) for variant in variants]
        unit = next(one.unit for one in cells if one)
        n = {one.score.n for one in cells if one}
        lines.append((names[row], *(cell(one) if one else "" for one in cells), "/".join(map(str, sorted(n))), unit))
        removed.append((False, *(bool(one and one.expect_removed) for one in cells), False, False))
        bars = (100 * one.score.value if one and unit == "share" else None for one in cells)
        shares.append((None, *bars, None, None))
    head = ("", *variants, "n", "unit")
    return Table(name, about, missing, head, tuple(lines), tuple(removed), tuple(shares), tuple(notes))


def _loss(one: Measured | None) -> float:
    """How little a row is as it should be, least first: what is still seen of what must go, what other rows lose."""
    if one is None or one.difference is None:
        return 0.0
    return -one.score.value if one.expect_removed and one.unit == "share" else one.difference.value


def _notes(found: Sequence[Measured]) -> Iterator[str]:
    """The notes on rows, with the variants that they are about where these differ."""
    noted: dict[str, dict[str, list[str]]] = {}
    for one in found:
        if one.note:
            noted.setdefault(one.row, {}).setdefault(one.note, []).append(one.variant)
    for row, notes in noted.items():
        for note, variants in notes.items():
            yield f"{row}{', ' + ', '.join(variants) if len(notes) > 1 else ''}: {note}"


def verdict(evaluation: Evaluation) -> list[str]:
    """What happened, a sentence for each variant, with its numbers."""
    sentences = []
    for variant in evaluation.variants[1:] or evaluation.variants:
        own = [one for one in evaluation.measured if one.variant == variant.name and one.unit == "share"]
        removed = next((one for one in own if one.expect_removed), None)
        stays = next((one for one in own if not one.expect_removed and one.role != "other"), None)
        parts = [_sentence(one) for one in (removed, stays) if one]
        if parts:
            sentences.append(f"{variant.name}: " + "; ".join(parts) + ".")
    if sentences or not evaluation.measured:
        return sentences or ["Nothing was measured: no suite found what it needs."]
    first = {one.variant: one for one in reversed(evaluation.measured)}
    changed = [f"{v.name}: {_sentence(first[v.name])}." for v in evaluation.variants[1:] if v.name in first]
    return [
        "No detector was given, so only the fit to the prompts and the picture change are measured.",
        *changed,
    ]


def idle(evaluation: Evaluation) -> list[str]:
    """What to know of guards whose warm-up is as long as a run: they never act."""
    steps = evaluation.sampling["steps"]
    waits = {one.name: one.settings.get("warmup", 0) for one in evaluation.variants if one.kind == "guard"}
    return [
        f"{name} never acts here: its warm-up is {wait} steps, and a run has {steps}. --steps gives a run more."
        for name, wait in waits.items()
        if wait >= steps
    ]


def _sentence(one: Measured) -> str:
    text = f"{one.row} ({one.suite}) {number(one.score.value, one.unit)}"
    if one.base and one.difference:
        text += f", {number(one.base.value, one.unit)} before"
        text += "" if one.difference.differs else ", not distinguishable"
    return f"{text} (n = {one.score.n})"
