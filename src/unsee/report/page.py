"""An evaluation, and the run that made an edit, as one HTML file: it opens from disk and needs no server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unsee.evaluate.context import BASE
from unsee.evaluate.observations import Figure
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.records import Evaluation
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.models.names import known_as
from unsee.report import before_after
from unsee.report.grid import Pictures, by_suite, embedded, mosaic, shown
from unsee.report.plots import fits, scales, trade_off
from unsee.report.strips import CELLS, fitting, strips
from unsee.report.tables import idle, tables, verdict
from unsee.report.tradeoff import beside_base
from unsee.report.tradeoff import by_suite as trade_offs

SHOWN = 8
VARIANTS = 3
"""Variants that have a picture to slide over the base model's, and a curve of their fit."""


def environment() -> Environment:
    """The templates of this package. All texts are escaped: prompts and cards come from anywhere."""
    made = Environment(
        loader=PackageLoader("unsee.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters["known_as"] = known_as
    made.filters["whole"] = _whole
    return made


def _whole(text: str) -> str:
    """A share, its interval and its n, of which no line ends in the middle: "25.0 % (15 to 39), n 48"."""
    return re.sub(
        r" (%|to \d)|(?<=, n) |(?<=confirmed) |(?<=seed) ", lambda found: found[0].replace(" ", "\u00a0"), text
    )


def page(
    evaluation: Evaluation,
    asked: Mapping[str, Sequence[Question]],
    galleries: Pictures,
    figures: Sequence[Figure] = (),
    remarks: Sequence[str] = (),
    made: Mapping[str, Any] | None = None,
) -> str:
    """The HTML of an evaluation, remarks first. All of its texts are escaped: prompts and cards come from anywhere.

    asked, galleries  the questions of each suite, and the pictures of each variant
    figures           pictures that suites made
    made              the record of the run that made its only edit (run.json)
    """
    rows = before_after.of_one_edit(evaluation)
    sentences = [before_after.verdict(rows), *before_after.of_what(rows)] if rows else verdict(evaluation)
    others = evaluation.variants[1 : 1 + VARIANTS]
    title = f"Erased: {before_after.brief(others[0].concepts)}" if made else f"Measured: {evaluation.model['name']}"
    drawn = [one for questions in asked.values() for one in _ends([q for q in questions if not q.reference])]
    shots = [shot for question in drawn for shot in spread(question.shots, SHOWN // 2)][:SHOWN]
    pairs = [
        (variant.name, *(embedded(mosaic(shots, galleries[name])) for name in (BASE, variant.name)))
        for variant in others
        if shots
    ]
    beside = beside_base(rows)
    curves = {one.name: (one.curve, one.settings.get("updates", 0)) for one in others if one.curve}
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            evaluation=evaluation,
            verdict=[*remarks, *sentences, *idle(evaluation)],
            summary=SUMMARY,
            header=before_after.HEADER,
            rows=[{"removed": row.removed, "cells": before_after.cells(row)} for row in rows],
            notes=[*((*made["notes"], *made["preserved"]) if made else ()), *before_after.notes(rows)],
            tables=tables(evaluation),
            pairs=pairs,
            pictures=fitting(shown(asked), galleries),
            figures={
                suite: [
                    strip
                    for row, variants in found.items()
                    for strip in strips([(row, spread(list(next(iter(variants.values()))), SHOWN))], variants, CELLS[1])
                ]
                for suite, found in by_suite(figures).items()
            },
            beside=trade_off(beside, "erased, still seen", "everything else") if beside else "",
            curves={suite: trade_off(marks, removed, kept) for suite, removed, kept, marks in trade_offs(evaluation)},
            fits=fits(curves) if curves else "",
            tradeoff=scales(**made["tradeoff"]) if made and made["tradeoff"]["points"] else "",
            made=made,
            config=json.dumps((made or {}).get("config", evaluation.config), indent=1),
        )
    )


def _ends(questions: Sequence[Question]) -> list[Question]:
    """The first question and the last: what is erased, and what is to stay."""
    return [*questions[:1], *questions[1:][-1:]]
