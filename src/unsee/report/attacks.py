"""What attacks found as a page: which axis is weakest, each attack beside its controls, what was not tested."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from unsee.evaluate.attacked import ABOUT, ATTACKED, BASE, Attacked, Excess, Row, weakest
from unsee.evaluate.gone import gone
from unsee.report.page import environment

HEAD = ("axis", "attack", "what was tried", "success", "control", "beyond it", "passes", "half of the pictures after")

LEFT_OUT = ("command", "detector", "second", "rows", "strongest", "attacks")
"""Parts of the record that the page shows elsewhere, or that are paths on this machine."""


@dataclass(frozen=True)
class Cell:
    """A share as text, and in per cent for a colour; None where nothing was measured."""

    text: str
    share: float | None


def per_cent(row: Row) -> str:
    """A share with its interval; the best attack seed's, where they differ; and what of it a second detector confirms,
    where that is less than half of it."""
    low, high = 100 * row.score.low, 100 * row.score.high
    told = f"{100 * row.score.value:.0f} % ({low:.0f} to {high:.0f})"
    told += f", best seed {100 * row.best:.0f}" if row.best > row.score.value else ""
    doubtful = row.confirmed is not None and row.confirmed.value < row.score.value / 2
    return f"{told}, confirmed {100 * row.confirmed.value:.0f}" if doubtful and row.confirmed else told


def ranked(found: Attacked) -> list[tuple[str, ...]]:
    """The strongest attack of each axis under HEAD, the weakest axis first."""
    return [_line(one, found) for one in weakest(found.strongest).values()]


def _line(one: Excess, found: Attacked) -> tuple[str, ...]:
    control = next(
        (r for r in found.rows if (r.attack, r.row, r.column) == (one.attack, one.row.row, one.control)), None
    )
    beyond = ""
    if one.excess:
        beyond = f"{100 * one.value:+.0f}{'' if one.excess.differs else ' ≈'}"
    cost = one.row.search
    return (
        one.axis,
        one.attack,
        one.row.row,
        per_cent(one.row),
        f"{one.control} {per_cent(control)}" if control else "none",
        beyond,
        f"{cost.passes + cost.with_gradient:,}",
        "never" if one.half is None else f"{one.half:,} passes",
    )


def columns(found: Attacked) -> list[str]:
    """The columns that were measured, in their order."""
    there = {row.column for row in found.rows}
    return [column for column in (ATTACKED, *ABOUT) if column in there]


def heat(found: Attacked) -> list[tuple[str, str, str, tuple[Cell, ...], str]]:
    """Every row: its axis, attack and name, a cell for each column, and what was found."""
    by = {(row.attack, row.row, row.column): row for row in found.rows}
    lines = []
    for row in (row for row in found.rows if row.column == ATTACKED):
        cells = []
        for column in columns(found):
            one = by.get((row.attack, row.row, column))
            cells.append(Cell(per_cent(one), round(100 * one.score.value, 1)) if one else Cell("", None))
        lines.append((row.axis, row.attack, row.row, tuple(cells), row.note))
    return lines


def verdict(found: Attacked) -> list[str]:
    """The attacks that still win; then what the undefended base shows about the attacks."""
    sentences = []
    if found.unattacked:
        share = f"{100 * found.unattacked.value:.0f} %"
        sentences.append(f"unattacked: the plain prompt shows {found.concept!r} in {share}; n = {found.unattacked.n}.")
    sentences += [one.sentence for one in gone(found.strongest)]
    for axis, one in weakest(found.strongest).items():
        told = f"{axis}: {one.attack} ({one.row.row}) brings {found.concept!r} back in {per_cent(one.row)}"
        if one.excess:
            told += f", {100 * one.value:+.0f} points beyond the control {one.control!r}"
        sentences.append(f"{told}; n = {one.row.score.n}.")
    undefended = [row for row in found.rows if row.column == BASE]
    won = {row.attack for row in undefended if row.score.value >= 0.5}
    lame = sorted({row.attack for row in undefended} - won - {one.name for one in found.attacks if one.leak})
    if lame:
        sentences.append(
            f"These attacks fail on the undefended base too, so their failure shows nothing: {', '.join(lame)}."
        )
    return sentences


def page(found: Attacked) -> str:
    """The HTML of a run of attacks. All of its texts are escaped."""
    there = columns(found)
    return (
        environment()
        .get_template("attacks.html.j2")
        .render(
            found=found,
            verdict=verdict(found),
            head=HEAD,
            ranked=ranked(found),
            columns=there,
            about={name: ABOUT[name] for name in there if name in ABOUT},
            heat=heat(found),
            config=json.dumps({key: value for key, value in asdict(found).items() if key not in LEFT_OUT}, indent=1),
        )
    )
