"""A run as one HTML file: opens from disk, asks nothing of any server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL.Image import Image

from unsee.evaluate.questions import EVERYTHING_ELSE, Row, spread
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score
from unsee.report.grid import embedded, mosaic

MISSING = "not measured"
ROOM = 4_000_000
"""Characters that a page's pictures may take: it stays below some five megabytes."""


def environment() -> Environment:
    """The templates of this package. All texts are escaped: prompts and cards come from anywhere."""
    made = Environment(
        loader=PackageLoader("unsee.report", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    made.filters["known_as"] = known_as
    return made


def known_as(source: str) -> str:
    """A folder's own name, a hub id whole: a page is shown to others, whom places on this machine do not concern."""
    return Path(source).name if Path(source).is_absolute() else source


def page(
    rows: Sequence[Row],
    sheets: Mapping[str, Image],
    record: Mapping[str, Any],
    before: Mapping[Shot, Image],
    after: Mapping[Shot, Image],
) -> str:
    """The HTML of a run: its sheets by file name, and a few pictures before and after to slide between.

    Where there are many sheets, the first of them are shown, and the others named.
    """
    shots = [shot for row in (rows[0], rows[-1]) for shot in spread(row.question.shots, 4)]
    shown: list[dict[str, Any]] = []
    for sheet in sheets.values():
        if sum(len(one["data"]) for one in shown) > ROOM:
            break
        shown.append(embedded(sheet))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=", ".join(concept["erase"] for concept in record["config"]["concepts"]),
            header=HEADER,
            table=[{"gone": row.question.gone, "cells": cells(row)} for row in rows],
            verdict=verdict(rows),
            pictures=shown,
            more=list(sheets)[len(shown) :],
            pair=(embedded(mosaic(shots, before)), embedded(mosaic(shots, after))),
            record=record,
            settings=record["config"]["settings"],
            panels=panels(record["curve"], record["config"]["settings"].get("updates", 0)),
            config=json.dumps(record["config"], indent=1),
        )
    )


@dataclass(frozen=True)
class Panel:
    """One line of a fit's curve, drawn 260 wide and 120 high.

    top    the error at the upper edge
    last   the error at the end
    points "x,y x,y ..." from the upper left
    stop   where the fit ended before all of its updates; None if it made them all
    """

    name: str
    top: float
    last: float
    points: str
    stop: float | None


def panels(curve: Sequence[tuple[float, float, float]], updates: int) -> list[Panel]:
    """Errors on held-out runs, where the concept is asked for and where something else is, each to its own scale."""
    found = []
    for k, name in ((1, "asked for the concept"), (2, "asked for what must stay")) if curve else ():
        top = max(point[k] for point in curve) or 1.0
        places = [(260 * point[0] / max(updates, 1), 120 * (1 - point[k] / top)) for point in curve]
        stop = places[-1][0] if curve[-1][0] < updates else None
        found.append(Panel(name, top, curve[-1][k], " ".join(f"{x:.1f},{y:.1f}" for x, y in places), stop))
    return found


HEADER = ("", "before", "after", "n", "95 % interval after", "picture change")


def cells(row: Row) -> tuple[str, ...]:
    """A row of the result as texts, under HEADER: rates in per cent, picture change in grey levels of 255."""
    name = row.question.name
    change = f"{row.changed.value:.1f}"
    if row.before is None or row.after is None:
        return name, MISSING, MISSING, str(row.changed.n), "", change
    return (
        name,
        f"{100 * row.before.value:.1f} %",
        f"{100 * row.after.value:.1f} %",
        str(row.after.n),
        interval(row.after),
        change,
    )


def interval(score: Score) -> str:
    return f"{100 * score.low:.1f} to {100 * score.high:.1f} %"


def verdict(rows: Sequence[Row]) -> str:
    """What happened, in one sentence with its numbers."""
    parts = [
        f"{row.question.name}: {100 * row.before.value:.0f} % before, {100 * row.after.value:.0f} % after"
        for row in rows
        if row.before and row.after and (row.question.gone or row.question.name == EVERYTHING_ELSE)
    ]
    return "; ".join(parts) + "." if parts else "No judge was given, so nothing was counted: look at the pictures."
