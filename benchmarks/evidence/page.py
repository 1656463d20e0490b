"""Sections of docs/evidence.md."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evidence.experiments import DEFAULT, Experiment
from benchmarks.evidence.goals import UNMEASURED, Result, table
from unsee.evaluate.cache import Cache, Gallery, model_key
from unsee.evaluate.context import BASE, Variant
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation, Measured, scores_csv
from unsee.evaluate.render import Shot
from unsee.evaluate.suites.styles import PLAIN
from unsee.evaluate.words import article
from unsee.report.grid import grid
from unsee.report.page import known_as
from unsee.report.tables import cell, idle, number, tables
from unsee.runs.evaluate import Bench


def markdown(experiment: Experiment, found: Evaluation, goals: Sequence[Result]) -> str:
    """A section: goals, then a table for each suite, folded."""
    parts = [f"## {experiment.title}", preset_said(experiment), *idle(found), table(goals)]
    for one in tables(found):
        parts.append(f"<details markdown><summary>{one.suite}: {html.escape(one.about)}</summary>")
        if one.not_measured:
            parts += [f"Not measured: {one.not_measured}.", "</details>"]
            continue
        marked = [zip(*row, strict=True) for row in zip(one.rows, one.removed, strict=True)]
        parts.append(lined([one.head, *([f"**{text}**" if mark else text for text, mark in row] for row in marked)]))
        parts += [*(f"{note}." for note in one.notes), "</details>"]
    return "\n\n".join(part for part in parts if part)


def every_row(found: Sequence[tuple[str, Evaluation]]) -> str:
    """All rows of all experiments as CSV: scores_csv with the experiment first, and detectors by name, not by place."""
    lines: list[list[str]] = []
    for name, one in found:
        named = [replace(row, detector=known_as(row.detector)) for row in one.measured]
        head, *rows = csv.reader(io.StringIO(scores_csv(named)))
        lines += [] if lines else [["experiment", *head]]
        lines += [[name, *row] for row in rows]
    csv.writer(stream := io.StringIO(), lineterminator="\n").writerows(lines)
    return stream.getvalue()


def contact(experiment: Experiment, bench: Bench, cache: Path) -> Any:
    """Four pictures of what was erased and four of what was not, for every column."""
    context, store = bench.context, Cache(cache)
    key = model_key(context.pipe)
    (word, *_), *_ = experiment.erase
    if experiment.name == "object":
        known = [name for name in context.labels("objects") if name not in (word, *experiment.alike)]
        names = [*[word] * 4, *[*experiment.alike, *spread(known, 4)][:4]]
        shots = [Shot(article(name), seed) for seed, name in enumerate(names)]
    else:
        asked = [question for suite in bench.suites for question in suite.ask(context) if not question.reference]
        own = [question for question in asked if word in question.key][:1] or asked[:1]
        others = [question for question in asked if word not in question.key]
        shots = spread(own[0].shots, 4) + [question.shots[0] for question in spread(others, 4)]

    def draw(variant: Variant) -> Gallery:
        applied = partial(variant.applied, context.pipe)
        return store.draw(context.pipe, shots, bench.sampling, model=key, change=variant.key, applied=applied)

    return grid([(f"{word}, and what should stay", shots)], {one.name: draw(one) for one in bench.variants})


def preset_said(experiment: Experiment) -> str:
    if experiment.preset == "object":
        return ""
    kept = ", with `--keep` for everything that is not erased" if experiment.keep else ""
    return f"{DEFAULT}: `--preset {experiment.preset}`{kept}."


def together(experiment: Experiment, found: Sequence[Evaluation]) -> Evaluation:
    """Edits that were measured one by one, each called by what it erases, as one evaluation."""
    each = [(f"{words[0]} erased", one) for words, one in zip(experiment.erase, found, strict=True)]
    return replace(
        found[0],
        variants=tuple(replace(v, name=name) for name, one in each for v in one.variants if v.name != BASE),
        measured=tuple(replace(m, variant=name) for name, one in each for m in one.measured if m.variant != BASE),
    )


def both(experiment: Experiment, found: Sequence[Evaluation], goals: Sequence[Result]) -> str:
    """A section of edits that were measured one by one: goals by all of them, a line for each, each against each."""
    names = [words[0] for words in experiment.erase]
    by = [{now.key: now for now in one.measured if now.variant != BASE} for one in found]
    titles = {now.key: now.row for own in by for now in own.values()}
    shown_rows = [titles.get(key, key) for key in experiment.apart]
    lines = [["erased", *(text for row in shown_rows for text in (f"{row}, before", "after", "n"))]]
    for name, own in zip(names, by, strict=True):
        picked = [own.get(key) for key in experiment.apart]
        lines.append([name, *(text for now in picked for text in (before(now), *after(now)))])
    square = [["erased", *names]]
    for name, own in zip(names, by, strict=True):
        square.append([name, *(shown(own.get(experiment.square + other), bold=name == other) for other in names)])
    square.append(
        ["nothing", *(before(own.get(experiment.square + name)) for name, own in zip(names, by, strict=True))]
    )
    about = "The share recognised after each edit. Row: what was erased. Column: what the prompt names."
    base = {one.key: one for record in found for one in record.measured if one.variant == BASE}
    plain = [base.get(PLAIN + name) for name in names]
    if any(plain):
        square.append(["nothing, and no style is named", *(shown(one, bold=False) for one in plain)])
        about += f" {FLOOR}"
    parts = [
        f"## {experiment.title}",
        preset_said(experiment),
        table(goals),
        lined(lines),
        about,
        lined(square),
    ]
    return "\n\n".join(part for part in parts if part)


FLOOR = (
    "The last line is the base model with prompts that name no style: the share taken for each style, as the detector "
    "always names one. Where a style is erased, this share is what remains."
)


def before(one: Measured | None) -> str:
    return number(one.base.value, one.unit) if one and one.base else ""


def after(one: Measured | None) -> tuple[str, str]:
    return (cell(one), str(one.score.n)) if one else (UNMEASURED, "")


def shown(one: Measured | None, *, bold: bool) -> str:
    text = number(one.score.value, one.unit) if one else ""
    return f"**{text}**" if bold and text else text


def lined(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its head first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])
