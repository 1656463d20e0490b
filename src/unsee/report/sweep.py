"""A sweep as one table and a plot of what is removed against what is kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unsee.evaluate.attacked import Attacked
from unsee.evaluate.records import Evaluation
from unsee.evaluate.statistics import Score, rate
from unsee.evaluate.suites.many import ONE, is_whole
from unsee.evaluate.suites.summary import REST
from unsee.models.names import known_as
from unsee.report.attacks import per_cent as attacked_share
from unsee.report.before_after import Line, brief, of_one_edit
from unsee.report.page import environment
from unsee.report.plots import Mark, mark, trade_off
from unsee.spelling import counted

HEAD = ("cell", "still seen", "neighbours", "everything else", "picture change", "erase, s", "strongest attack")


@dataclass(frozen=True)
class Share:
    """A share of pictures before an edit and after it."""

    before: Score
    after: Score


@dataclass(frozen=True)
class Result:
    """A finished cell.

    name            of its folder
    said            model, concepts, method, settings, seed: see runs.grid.said
    erased          pictures of what is erased that still show it; None if no detector counts it
    neighbours, rest  pictures of what is most like it, and of everything else, that show what they should
    change          of pictures of everything else, in grey levels of 255
    attack          the attack that brings most back, with its share and its control's
    seconds         by stage
    """

    name: str
    said: dict[str, Any]
    erased: Share | None
    neighbours: Share | None
    rest: Share | None
    change: float
    attack: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Failed:
    """A cell that failed.

    reason  one line
    """

    name: str
    said: dict[str, Any]
    reason: str


def result(name: str, said: dict[str, Any], found: Evaluation, attacks: Attacked | None, seconds: Any) -> Result:
    """A cell from its records: the suite "summary", and attacks if there were any."""
    rows = of_one_edit(found)
    counted = [row for row in rows if row.removed and row.shares]
    whole = [row for row in counted if is_whole(row.key)] or [row for row in counted if row.key.startswith(ONE)]
    rest = [row for row in rows if row.key == REST]
    stays = rest or [row for row in rows if not row.removed]
    change = sum(row.change.score.value for row in stays) / len(stays) if stays else 0.0
    near = [row for row in rows if row.change.role == "neighbour"]
    near = [row for row in near if is_whole(row.key)] or near
    strongest = ""
    if attacks and attacks.strongest:
        best = attacks.strongest[0]
        strongest = f"{best.attack} {attacked_share(best.row)}"
        strongest += f", {100 * best.value:+.0f} beyond {best.control}" if best.excess else ", no control"
    return Result(name, said, _pooled(whole or counted), _pooled(near), _pooled(rest), change, strongest, dict(seconds))


def _pooled(rows: Sequence[Line]) -> Share | None:
    """Rows together: their pictures are counted as one row's, with Wilson's interval."""
    shares = [row.share for row in rows if row.share and row.share.base]
    if not shares:
        return None
    return Share(_sum([one.base for one in shares if one.base]), _sum([one.score for one in shares]))


def _sum(scores: Sequence[Score]) -> Score:
    n = sum(one.n for one in scores)
    hits = sum(round(one.value * one.n) for one in scores)
    return rate([True] * hits + [False] * (n - hits))


def words(said: dict[str, Any]) -> str:
    """A cell in words: what differs between the cells of a grid."""
    settings = ", ".join(f"{key} {value}" for key, value in said["settings"].items())
    parts = [brief(said["concepts"], 3), said["method"] + (f" ({settings})" if settings else "")]
    return f"{'; '.join(parts)}; seed {said['seed']}; {known_as(said['model'])}"


def cells(one: Result) -> tuple[str, ...]:
    """A cell as texts under HEAD: shares in per cent, before -> after (95 % interval after), n."""
    shares = (_text(share) for share in (one.erased, one.neighbours, one.rest))
    return (words(one.said), *shares, f"{one.change:.1f}", f"{one.seconds.get('erase', 0.0):.1f}", one.attack)


def _text(share: Share | None) -> str:
    if share is None:
        return "not measured"
    after = share.after
    interval = f"({100 * after.low:.0f} to {100 * after.high:.0f})"
    return f"{100 * share.before.value:.0f} -> {100 * after.value:.1f} % {interval}, n {after.n}"


def table_csv(found: Sequence[Result]) -> str:
    """One line for each cell, with every number that its row rests on."""
    shares = ("erased", "neighbours", "rest")
    head = ["cell", "model", "concepts", "method", "settings", "seed"]
    head += [f"{share} {part}" for share in shares for part in ("before", "after", "low", "high", "n")]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*head, "picture change", "strongest attack", "seconds erase"])
    for one in found:
        numbers: list[Any] = []
        for share in (getattr(one, name) for name in shares):
            after = share and share.after
            numbers += [share.before.value, after.value, after.low, after.high, after.n] if share else [""] * 5
        said = one.said
        concepts = ", ".join(said["concepts"])
        settings = ", ".join(f"{key}={value}" for key, value in said["settings"].items())
        line = [one.name, said["model"], concepts, said["method"], settings, said["seed"], *numbers]
        writer.writerow([*line, one.change, one.attack, one.seconds.get("erase", "")])
    return stream.getvalue()


def marks(found: Sequence[Result]) -> list[Mark]:
    """The cells that have both shares; those of one method look alike."""
    return [
        mark(words(one.said), one.said["method"], one.erased.after, one.rest.after)
        for one in found
        if one.erased and one.rest
    ]


def verdict(found: Sequence[Result], failed: Sequence[Failed]) -> str:
    """The result of a sweep, in a sentence."""
    count = f"{len(found)} of {counted(len(found) + len(failed), 'cell')} {'is' if len(found) == 1 else 'are'} finished"
    unseen = sum(one.erased is None for one in found)
    return count + (f"; in {unseen} no detector counts what is erased." if unseen else ".")


def plot(found: Sequence[Result], *, alone: bool = True) -> str:
    """The trade-off plot, by default as a file of its own."""
    return trade_off(marks(found), "erased concept, still seen", "everything else", alone=alone)


def page(title: str, found: Sequence[Result], failed: Sequence[Failed], config: str, command: str) -> str:
    """The HTML of a sweep. All of its texts are escaped."""
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            title=title,
            verdict=verdict(found, failed),
            head=HEAD,
            rows=[(one.name, cells(one)) for one in found],
            failed=[(one.name, words(one.said), one.reason) for one in failed],
            plot=plot(found, alone=False),
            config=config,
            command=command,
        )
    )
