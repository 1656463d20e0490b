"""What is removed against what is kept: of an edit beside its base, and of each scale of an edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unsee.edits.card import Card
from unsee.evaluate.records import STAYS, Evaluation
from unsee.evaluate.suites.summary import REST
from unsee.report.before_after import Line
from unsee.report.plots import Mark, mark


def beside_base(rows: Sequence[Line]) -> list[Mark]:
    """The base and an edit, by the first row of what is erased and by everything else; none if one is not counted."""
    gone = next((row.share for row in rows if row.removed and row.share), None)
    kept = next((row.share for row in rows if row.key == REST), None)
    if gone is None or kept is None or gone.base is None or kept.base is None:
        return []
    return [mark("base", "base", gone.base, kept.base), mark("edit", "edit", gone.score, kept.score)]


def by_suite(evaluation: Evaluation) -> Iterator[tuple[str, str, str, list[Mark]]]:
    """Suites that have what is removed and what is kept as shares: the names of both rows, and a mark a variant.

    Of several rows the first of each counts.
    """
    for suite in evaluation.suites:
        rows = [one for one in evaluation.measured if one.suite == suite.name and one.unit == "share"]
        removed = next((one for one in rows if one.expect_removed), None)
        gone = {one.key for one in rows if one.role == "removed"}
        kept = next((one for one in rows if one.role in STAYS and one.key not in gone), None)
        if removed is None or kept is None:
            continue
        by = {(one.key, one.variant): one.score for one in rows}
        names = [v.name for v in evaluation.variants if {(removed.key, v.name), (kept.key, v.name)} <= by.keys()]
        marks = [mark(name, name, by[removed.key, name], by[kept.key, name]) for name in names]
        if len(marks) > 1:
            yield suite.name, removed.row, kept.row, marks


def scale_taken(card: Card) -> list[str]:
    """A sentence with the scale that was taken, and with 1 beside it; none where no scale was chosen."""
    shares = {
        scale: f"removes {100 * removed:.0f} % and keeps {100 * kept:.0f} %" for scale, removed, kept in card.tradeoff
    }
    if not shares:
        return []
    beside = f"; scale 1 {shares[1.0]}" if card.scale != 1.0 and 1.0 in shares else ""
    return [f"auto: scale {card.scale:g} {shares[card.scale]} of what the words add to recorded predictions{beside}"]
