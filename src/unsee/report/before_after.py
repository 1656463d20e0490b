"""The suite "summary" of one edit: each row before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from unsee.evaluate.measures import CHANGE
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.suites.many import is_whole, kind_of
from unsee.evaluate.suites.summary import NAME, REST

MISSING = "not measured"
SHOWN, FEW = 10, 3
"""How many rows of single concepts a terminal shows, and how many rows have a note each."""
HEADER = ("", "before", "after", "n", "95 % interval after", "difference", "picture change")


@dataclass(frozen=True)
class Line:
    """A row of the summary.

    share   of pictures that show what the prompt asks for; None if no detector counts it
    change  of its pictures
    """

    share: Measured | None
    change: Measured

    @property
    def key(self) -> str:
        return self.change.key.removesuffix(CHANGE)

    @property
    def name(self) -> str:
        return self.share.row if self.share else self.change.name or self.change.row

    @property
    def removed(self) -> bool:
        return self.change.role == "removed"

    @property
    def note(self) -> str:
        return (self.share or self.change).note

    @property
    def shares(self) -> tuple[float, float] | None:
        """Before and after."""
        return (self.share.base.value, self.share.score.value) if self.share and self.share.base else None


def lines(measured: Sequence[Measured], edit: str) -> list[Line]:
    """The rows of the summary for one edit."""
    own = {one.key: one for one in measured if one.suite == NAME and one.variant == edit}
    return [Line(own.get(key.removesuffix(CHANGE)), one) for key, one in own.items() if key.endswith(CHANGE)]


def of_one_edit(evaluation: Evaluation) -> list[Line]:
    """The rows of the summary, if it compares the base with one other variant alone."""
    return lines(evaluation.measured, evaluation.variants[1].name) if len(evaluation.variants) == 2 else []


def cells(line: Line) -> tuple[str, ...]:
    """A row as texts, under HEADER: rates and their difference in per cent, picture change in grey levels of 255.

    Of the difference, ≈ says that chance explains it.
    """
    change, share = f"{line.change.score.value:.1f}", line.share
    if share is None or share.base is None or share.difference is None:
        return line.name, MISSING, MISSING, str(line.change.score.n), "", "", change
    return (
        line.name,
        f"{100 * share.base.value:.1f} %",
        f"{100 * share.score.value:.1f} %",
        str(share.score.n),
        f"{100 * share.score.low:.1f} to {100 * share.score.high:.1f} %",
        f"{100 * share.difference.value:+.1f}{'' if share.difference.differs else ' ≈'}",
        change,
    )


def brief(words: Sequence[str], most: int = 8) -> str:
    """Some words in a line: of many the first ones, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def cut(rows: Sequence[Line], most: int = SHOWN) -> list[Line | str]:
    """Rows for a terminal: of many single concepts, and of many neighbours, the first and how many more there are."""
    found: list[Line | str] = []
    for kind, group in groupby(rows, key=lambda row: kind_of(row.key)):
        some = list(group)
        found += some[:most] if kind else some
        if kind and len(some) > most:
            more = len(some) - most
            found.append(f"... {more} more {'is' if more == 1 else 'are'} in the page")
    return found


def verdict(rows: Sequence[Line]) -> str:
    """What happened, in one sentence with its numbers; of many concepts those together, and which are most seen."""
    many = any(is_whole(row.key) for row in rows)
    single = [row for row in rows if row.removed and kind_of(row.key) and many]
    parts = [
        f"{row.name}: {100 * row.shares[0]:.0f} % before, {100 * row.shares[1]:.0f} % after"
        for row in rows
        if row.shares and (row.removed or row.key == REST) and row not in single
    ]
    if seen := [f"{row.name} {100 * row.shares[1]:.0f} %" for row in single if row.shares and row.shares[1]]:
        parts.append(f"most seen after: {brief(seen, 5)}")
    return "; ".join(parts) + "." if parts else "Nothing that is erased was counted: look at the pictures."


def of_what(rows: Sequence[Line]) -> list[str]:
    """What was not tested where prompts alone were counted; nothing where none were."""
    if not any(row.removed and row.shares for row in rows):
        return []
    return ["Only prompts that name it were counted. unsee attack tests other text, pictures and weights."]


def notes(rows: Sequence[Line]) -> list[str]:
    """What to know of rows that no detector counts: why, and whether their pictures change more than others do."""
    others = [row.change.score.value for row in rows if not row.removed]
    found = [f"{row.name}: {row.note}" for row in rows if row.note]
    if len(none := [row.name for row in rows if row.removed and row.shares and row.shares[0] == 0]) > FEW:
        found.append(f"{brief(none)}: the base model draws none, so these rows cannot show that they are gone")
        rows = [row for row in rows if row.name not in none]
    for row in rows:
        if row.removed and row.shares and row.shares[0] == 0:
            found.append(f"{row.name}: the base model draws none, so this row cannot show that it is gone")
        if row.shares or not row.removed or not others:
            continue
        own, rest = row.change.score.value, sum(others) / len(others)
        text = f"{row.name}: not counted; its pictures change by {own:.1f} grey levels, others by {rest:.1f}"
        found.append(text + (": no more than others, so nothing seems to be erased" if own <= rest else ""))
    return list(dict.fromkeys(found))
