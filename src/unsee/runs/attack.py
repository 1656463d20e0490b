"""Attack an edited model and its controls with one budget, and count what comes back: what `unsee attack` does.

Attacks are for models that you are entitled to test.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unsee import attacks
from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found, named
from unsee.errors import InputError
from unsee.evaluate.attacked import (
    ATTACKED,
    BASE,
    NEIGHBOUR,
    OTHER,
    RANDOM_WEIGHTS,
    TAUGHT,
    TWIN,
    VERSION,
    Attacked,
    Cost,
    Row,
    Tried,
)
from unsee.evaluate.detectors import NUDITY
from unsee.evaluate.statistics import rate
from unsee.io.atomic import write_whole
from unsee.models.denoisers import denoiser
from unsee.models.model import model_name, said_options
from unsee.models.weights import own_parameters, temporary_values
from unsee.progress import Progress, no_progress
from unsee.report.attacks import page
from unsee.report.filed import section
from unsee.runs.aims import UNKNOWN, Aim, Album, drawn, turned
from unsee.runs.controls import Passes, excess, put_on, random_weights
from unsee.runs.filing import filed
from unsee.runs.siege import BUDGETS, Siege
from unsee.versions import versions

RECORD = "attack.json"
FILES = ("index.html", RECORD)
FILED = ("report.md", "report.json")
"""What a publisher files: a section for a model card, and the same as JSON."""
NOTICE = "Attacks are for models that you are entitled to test."

Put = Callable[[], AbstractContextManager[None]]


def columns(siege: Siege, attack: Attack) -> dict[str, tuple[Put, Aim]]:
    """The models that an attack is tried on: how each is put in place, and what the attack is aimed at."""
    pipe, aim = siege.model, siege.aims[ATTACKED]
    edited: Put = partial(siege.edit.applied, pipe)
    found: dict[str, tuple[Put, Aim]] = {ATTACKED: (edited, aim), BASE: (nullcontext, aim)}
    if siege.twin:
        found[TWIN] = (partial(put_on, pipe, siege.twin), aim)
    if attack.taught:
        found[TAUGHT] = (nullcontext, replace(aim, word=UNKNOWN, names={}, turned=True))
    if attack.axis == "pictures":
        found[RANDOM_WEIGHTS] = (lambda: put_on(pipe, random_weights(pipe, siege.seed)), aim)
    if siege.budget == "full" and attack.taught:
        found |= {name: (edited, siege.aims[name]) for name in (NEIGHBOUR, OTHER) if name in siege.aims}
    return found


Key = tuple[str, str, str]
"""An attack, a row and a column."""
SHARED = (BASE, TAUGHT, TWIN, RANDOM_WEIGHTS)
"""Columns that do not depend on the edit."""


@dataclass
class Cell:
    """One row of one column, over attack seeds."""

    axis: str
    hits: list[list[bool]] = field(default_factory=list)
    confirmed: list[bool] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def every(self) -> list[bool]:
        """Whether each picture shows the concept, of all seeds."""
        return [one for some in self.hits for one in some]

    def row(self, key: Key) -> Row:
        """Its record under an attack, what was tried, and a column."""
        attack, row, column = key
        cost = Cost(
            sum(one.passes for one in self.costs),
            sum(one.with_gradient for one in self.costs),
            round(sum(one.seconds for one in self.costs), 2),
        )
        best = max(sum(some) / len(some) for some in self.hits)
        confirmed, notes = rate(self.confirmed) if self.confirmed else None, "; ".join(dict.fromkeys(self.notes))
        return Row(attack, self.axis, row, column, rate(self.every), best, cost, notes, confirmed)


def besiege(
    siege: Siege,
    *,
    command: str = "",
    batch: int = 32,
    measured: dict[Key, Cell] | None = None,
    progress: Progress = no_progress,
) -> Attacked:
    """Try every attack on every column, and count. Nothing is written.

    measured  SHARED columns of an earlier siege of the same model and settings, and where this one leaves its own

    An attack that a pipeline cannot take is recorded with the reason, and stops no other.
    """
    start = time.perf_counter()
    passes, tries = BUDGETS[siege.budget]
    seeds = tuple(range(siege.seed, siege.seed + tries))
    measured = {} if measured is None else measured
    field_ = _Field(siege, Album(siege.model, siege.sampling, batch), batch)
    cells = field_.cells
    tried: list[Tried] = []
    full = siege.budget == "full"
    jobs = sum(len(columns(siege, attack)) * tries * attack.rows[full] for attack in siege.attacks)
    done = 0
    progress("attack", 0, jobs)
    aim = siege.aims[ATTACKED]
    plain = Found("", (named(aim.template, aim.word),))
    undefended, _ = field_.counted(plain, aim)
    with siege.edit.applied(siege.model):
        unattacked, _ = field_.counted(plain, aim)
    for attack in siege.attacks:
        refused = None
        for column, (put, aim) in columns(siege, attack).items():
            old = {key: cell for key, cell in measured.items() if (key[0], key[2]) == (attack.name, column)}
            cells |= old
            for seed in () if old else seeds:
                most = attack.rows[full]

                def counted(row: int, before: int = done, most: int = most) -> None:
                    progress("attack", before + min(row, most), jobs)

                try:
                    field_.run(attack, column, put, aim, seed, counted)
                except InputError as error:
                    refused = refused or str(error)
                counted(most)
                done += most
        tried.append(Tried(attack.name, attack.axis, tuple(sorted(attack.needs)), attack.about, refused, attack.leak))
    measured |= {key: cell for key, cell in cells.items() if key[2] in SHARED}
    rows = tuple(cell.row(key) for key, cell in cells.items())
    hits = {key: cell.every for key, cell in cells.items()}
    others = [name for name in attacks.names() if name not in {one.name for one in siege.attacks}]
    absent = [f"the attacks {', '.join(others)}"] if others else []
    absent += [f"the attack {one.name}: {one.refused}" for one in tried if one.refused]
    absent += [] if siege.twin else ["a twin, trained without the concept"]
    edit = siege.edit
    rest = [one.erase for one in edit.card.concepts if one.erase != siege.aims[ATTACKED].word]
    absent += [f"other concepts of the edit: {', '.join(rest)}"] if rest else []
    return Attacked(
        schema=VERSION,
        command=command,
        concept=siege.label,
        model={"name": model_name(siege.model), "hash": edit.card.base_hash},
        edit={"method": edit.card.method, "hash": edit.fingerprint()},
        sampling={**asdict(siege.sampling), "call": said_options(siege.model)},
        n=siege.n,
        seed=siege.seed,
        seeds=seeds,
        budget=siege.budget,
        passes=passes,
        detector=siege.detector.source,
        versions=versions(),
        device=str(siege.model.device),
        seconds=round(time.perf_counter() - start, 1),
        attacks=tuple(tried),
        rows=rows,
        strongest=tuple(excess(rows, hits)),
        not_tested=tuple(absent),
        unattacked=rate(unattacked),
        second=siege.second.source if siege.second else "",
        undefended=rate(undefended),
        prompts=digest(field_.prompts),
    )


@dataclass(frozen=True)
class _Field:
    """Where attacks run: the siege, the base's pictures, and what has been counted."""

    siege: Siege
    album: Album
    batch: int
    cells: dict[Key, Cell] = field(default_factory=dict)
    prompts: set[str] = field(default_factory=set)

    def run(self, attack: Attack, column: str, put: Put, aim: Aim, seed: int, counted: Callable[[int], None]) -> None:
        """One attack with one seed on one column; what comes of it goes into the cells.

        counted  is called with the number of rows that the attack has so far
        """
        siege, pipe = self.siege, self.siege.model
        net = own_parameters(denoiser(pipe)[1])
        before = {name: one.data for name, one in net.items()}
        with put(), Passes(pipe) as passes:
            changed = [name for name, one in net.items() if one.data_ptr() != before[name].data_ptr()]

            def base() -> AbstractContextManager[None]:
                return temporary_values({name: net[name] for name in changed}, {name: before[name] for name in changed})

            def pictures(prompt: str, k: int) -> list[Image]:
                real = prompt.replace(UNKNOWN, siege.aims[ATTACKED].word) if aim.turned else prompt
                with passes.aside():
                    return self.album.draw(real, k, base, aim.turned)

            context = AttackContext(
                pipe=pipe,
                word=aim.word,
                template=aim.template,
                names=aim.names,
                others=aim.others,
                seed=seed,
                passes=BUDGETS[siege.budget][0],
                n=siege.n,
                steps=siege.sampling.steps,
                guidance_scale=siege.sampling.guidance_scale,
                draw=pictures,
                base=base,
                start=passes.start,
                thorough=siege.budget == "full",
            )
            for row, found in enumerate(attack(context), 1):
                cost = passes.now()
                with passes.aside():
                    hits, confirmed = self.counted(found, aim)
                cell = self.cells.setdefault((attack.name, found.row, column), Cell(attack.axis))
                cell.hits.append(hits)
                cell.confirmed += confirmed
                cell.costs.append(cost)
                cell.notes += [found.note] if found.note and siege.label != NUDITY else []  # explicit prompts stay out
                counted(row)

    def counted(self, found: Found, aim: Aim) -> tuple[list[bool], list[bool]]:
        """Whether each picture of a finding shows the concept, and whether a second detector agrees."""
        siege = self.siege
        self.prompts.update(found.prompts)
        shown = drawn(siege.model, found, siege.sampling, siege.seed, siege.n, self.batch)
        shown = [turned(one) for one in shown] if aim.turned else shown
        hits = [label == siege.label for label in siege.detector(shown)]
        if not siege.second:
            return hits, []
        return hits, [hit and label == siege.label for hit, label in zip(hits, siege.second(shown), strict=True)]


def digest(prompts: Iterable[str]) -> dict[str, Any]:
    """How many distinct prompts, and the sha256 of their sorted list, one a line."""
    distinct = sorted(set(prompts))
    return {"count": len(distinct), "sha256": hashlib.sha256("\n".join(distinct).encode()).hexdigest()}


def attack(
    siege: Siege,
    folder: Path,
    *,
    command: str = "",
    batch: int = 32,
    measured: dict[Key, Cell] | None = None,
    report: bool = False,
    progress: Progress = no_progress,
) -> Attacked:
    """Try every attack, and write FILES into `folder`, each whole or not at all; with `report` FILED too."""
    found = besiege(siege, command=command, batch=batch, measured=measured, progress=progress)

    def keep(name: str, text: str) -> None:
        write_whole(folder / name, lambda path: path.write_text(text, encoding="utf-8"))

    keep(RECORD, found.to_json())
    keep("index.html", page(found))
    if report:
        own = filed(siege, found, batch=batch, progress=progress)
        keep("report.json", own.to_json())
        keep("report.md", section(own))
    return found
