"""What a publisher files: a siege's record, what was lost, the detector's errors, hashes of everything."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from unsee.evaluate.attacked import ATTACKED, Attacked, Row, weakest
from unsee.evaluate.filed import VERSION, DetectorError, Effort, Filed, Lost, Part, Tried
from unsee.evaluate.gone import gone
from unsee.evaluate.questions import spread
from unsee.evaluate.render import Shot, render
from unsee.evaluate.statistics import Score, paired_rates, rate
from unsee.evaluate.words import article
from unsee.models.names import known_as
from unsee.progress import Progress, no_progress
from unsee.runs.siege import Siege

OTHERS = 100
"""The most other things that are drawn, once each."""


def filed(siege: Siege, found: Attacked, *, batch: int = 32, progress: Progress = no_progress) -> Filed:
    """The report of a siege that has been made. It draws what was not attacked: neighbours and other things."""
    lost, mistaken = _lost(siege, batch, progress)
    controls = [row for row in found.rows if row.column != ATTACKED]
    own = {(row.attack, row.row): row for row in found.rows if row.column == ATTACKED}

    def tried(row: Row) -> Tried:
        same = [one for one in controls if (one.attack, one.row) == (row.attack, row.row)]
        passes = row.search.passes + row.search.with_gradient
        best = {one.column: one.best for one in (row, *same)}
        scores = {one.column: one.score for one in same}
        return Tried(row.axis, row.attack, row.row, row.score, row.confirmed, passes, scores, best)

    def some(*attacks: str) -> tuple[Tried, ...]:
        return tuple(tried(row) for row in own.values() if row.attack in attacks or row.axis in attacks)

    assert found.unattacked
    assert found.undefended
    card = siege.edit.card
    detectors = {one: _hash(one) for one in dict.fromkeys(filter(None, (found.detector, found.second)))}
    return Filed(
        schema=VERSION,
        command=found.command,
        concept=found.concept,
        model=found.model,
        edit={**found.edit, "settings": card.settings, "seed": card.seed},
        detectors={known_as(one): value for one, value in detectors.items()},
        prompts=found.prompts,
        sampling=found.sampling,
        n=found.n,
        seed=found.seed,
        budget={"name": found.budget, "passes": found.passes, "attack seeds": list(found.seeds)},
        versions=found.versions,
        parts=tuple(
            Part(one.of, one.gone, *((s.attack, s.row.row, s.value) if (s := one.strongest) else ("", "", None)))
            for one in gone(found.strongest)
        ),
        unattacked=found.unattacked,
        residual=some("name"),
        effort=tuple(
            Effort(axis, tried(one.row), one.control, one.value, one.half)
            for axis, one in weakest(found.strongest).items()
        ),
        benign=some("benign"),
        quantised=some("rounding"),
        lost=tuple(lost),
        detector_error=DetectorError(_inverse(found.undefended), mistaken),
        rows=tuple(map(tried, own.values())),
        not_tested=found.not_tested,
    )


def _lost(siege: Siege, batch: int, progress: Progress) -> tuple[list[Lost], Score | None]:
    """What else is drawn, before and after; and how often the base's other things pass for the concept."""
    if not siege.things:
        return [], None
    near = [word for word in siege.aims[ATTACKED].others if word in siege.known][:2]
    rest = [word for word in spread(siege.known, OTHERS) if word not in near]
    seeds = range(siege.seed, siege.seed + siege.n)
    rows = {word: [(word, Shot(article(word), seed)) for seed in seeds] for word in near}
    rows["everything else"] = [(word, Shot(article(word), siege.seed)) for word in rest]
    shots = list(dict.fromkeys(shot for some in rows.values() for _, shot in some))
    before = render(siege.model, shots, siege.sampling, batch=batch, progress=progress)
    with siege.edit.applied(siege.model):
        after = render(siege.model, shots, siege.sampling, batch=batch, progress=progress)
    things = siege.things
    found = []
    for what, some in rows.items():
        labels = [word for word, _ in some]

        def hits(drawn: dict[Shot, Image], some: Sequence[tuple[str, Shot]] = some) -> list[bool]:
            seen = things([drawn[shot] for _, shot in some])
            return [label == word for label, word in zip(seen, labels, strict=True)]  # noqa: B023

        if labels:
            one, two = hits(before), hits(after)
            found.append(Lost(what, rate(one), rate(two), paired_rates(one, two)))
    mistaken = [label == siege.label for label in siege.detector([before[shot] for shot in shots])]
    return found, rate(mistaken)


def _inverse(score: Score) -> Score:
    return Score(1 - score.value, 1 - score.high, 1 - score.low, score.n)


def _hash(source: str) -> str:
    """sha256 over the files of a detector's folder, in the order of their names; "" for what is no folder."""
    folder = Path(source.removeprefix("clip:"))
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.suffix in (".safetensors", ".json", ".txt")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
