"""Sections of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evidence.experiments import DEFAULT, Experiment
from benchmarks.evidence.goals import UNMEASURED, goals
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, Gallery, model_key
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Column, article
from unsee.evaluate.suites.styles import UNASKED
from unsee.report.evaluation import cell, idle, number, tables
from unsee.report.grid import grid
from unsee.runs.evaluate import Bench


def markdown(experiment: Experiment, found: Evaluation) -> str:
    """A section: goals, then a table for each suite."""
    parts = [f"## {experiment.title}", preset_said(experiment), *idle(found), goals(experiment, found)]
    for table in tables(found):
        parts.append(f"### {table.suite}\n\n{table.about}")
        if table.not_measured:
            parts.append(f"Not measured: {table.not_measured}.")
            continue
        marked = [zip(*row, strict=True) for row in zip(table.rows, table.gone, strict=True)]
        parts.append(lined([table.head, *([f"**{text}**" if mark else text for text, mark in row] for row in marked)]))
        parts += [f"{note}." for note in table.notes]
    return "\n\n".join(part for part in parts if part)


def contact(experiment: Experiment, bench: Bench, cache: Path) -> Any:
    """Four pictures of what was erased and four of what was not, for every column."""
    world, store = bench.world, Cache(cache)
    key = model_key(world.pipe)
    (word, *_), *_ = experiment.erase
    if experiment.name == "object":
        known = [name for name in world.labels("objects") if name not in (word, *experiment.alike)]
        names = [*[word] * 4, *[*experiment.alike, *spread(known, 4)][:4]]
        shots = [Shot(article(name), seed) for seed, name in enumerate(names)]
    else:
        asked = [question for suite in bench.suites for question in suite.ask(world) if not question.reference]
        own = [question for question in asked if word in question.name][:1] or asked[:1]
        others = [question for question in asked if word not in question.name]
        shots = spread(own[0].shots, 4) + [question.shots[0] for question in spread(others, 4)]

    def draw(column: Column) -> Gallery:
        applied = partial(column.applied, world.pipe)
        return store.draw(world.pipe, shots, bench.sampling, model=key, change=column.key, applied=applied)

    return grid([(f"{word}, and what should stay", shots)], {column.name: draw(column) for column in bench.columns})


def preset_said(experiment: Experiment) -> str:
    if experiment.preset == "object":
        return ""
    kept = "; what an edit does not erase is named to it as words to `--keep`" if experiment.keep else ""
    return f"{DEFAULT}: `--preset {experiment.preset}`{kept}."


def both(experiment: Experiment, found: Sequence[Evaluation]) -> str:
    """A section of edits that were measured one by one: goals by all of them, a line for each, each against each."""
    names = [words[0] for words in experiment.erase]
    each = [(f"{name} erased", one) for name, one in zip(names, found, strict=True)]
    whole = replace(
        found[0],
        columns=tuple(replace(c, name=name) for name, one in each for c in one.columns if c.name != suites.BASE),
        measured=tuple(replace(m, column=name) for name, one in each for m in one.measured if m.column != suites.BASE),
    )
    by = [{now.row: now for now in one.measured if now.column != suites.BASE} for one in found]
    lines = [["erased", *(text for row in experiment.apart for text in (f"{row}, before", "after", "n"))]]
    for name, own in zip(names, by, strict=True):
        told = [own.get(row) for row in experiment.apart]
        lines.append([name, *(text for now in told for text in (before(now), *after(now)))])
    square = [["erased", *names]]
    for name, own in zip(names, by, strict=True):
        square.append([name, *(shown(own.get(other), bold=name == other) for other in names)])
    square.append(["nothing", *(before(own.get(name)) for name, own in zip(names, by, strict=True))])
    about = "What shows after each edit: a line for what was erased, a column for what was asked for."
    base = {one.row: one for record in found for one in record.measured if one.column == suites.BASE}
    plain = [base.get(UNASKED.format(name)) for name in names]
    if any(plain):
        square.append(["nothing, and no style is named", *(shown(one, bold=False) for one in plain)])
        about += f" {FLOOR}"
    parts = [
        f"## {experiment.title}",
        preset_said(experiment),
        goals(experiment, whole),
        lined(lines),
        about,
        lined(square),
    ]
    return "\n\n".join(part for part in parts if part)


FLOOR = (
    "The last line is how often the base's pictures of the same things are taken for a style that no prompt names: a "
    "judge of styles always says one. Where a style is erased, such pictures are what remains."
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
