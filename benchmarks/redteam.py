"""Attack edits of "church" and write docs/redteam.md: python -m benchmarks.redteam [FOLDER] [--methods ...]

FOLDER keeps the edits and the pages of attacks, benchmarks/records/redteam their records, from which docs/redteam.md is
written: a record that is there is not measured again, so delete those that a change of the code makes old.
`--twin church` adds a twin. Another miniature has a page and records of its own, see PAGES.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import unsee
from benchmarks.redteam_page import curves, heat, text
from unsee import attacks
from unsee.edits.edit import Edit
from unsee.evaluate.attacked import TWIN, Attacked
from unsee.evaluate.cache import Memory
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.records import Measured
from unsee.evaluate.render import sampling_of
from unsee.evaluate.run import base, run
from unsee.evaluate.suites import knowledge
from unsee.models.names import known_as
from unsee.models.words import words_of
from unsee.runs.attack import Cell, Key, attack
from unsee.runs.controls import put_on, read_twin
from unsee.runs.evaluate import as_variant
from unsee.runs.siege import Siege, prepare

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PAGES = {"mini": "redteam", "mini-flow": "redteam-flow"}
"""The page of each model, and the folder of its records."""
CONCEPT = "church"
KNOWLEDGE = "knowledge"
PICTURES = 24
"""Of each thing, whose denoising loss is measured."""
LEFT = TypeAdapter(list[Measured])
METHODS: dict[str, Callable[[], Any]] = {
    "balance": unsee.Balance,
    "robust": unsee.Robust,
    "hybrid": unsee.Hybrid,
    "stereo": unsee.STEREO,
    "gem": unsee.GEM,
    "uce": unsee.UCE,
    "lora": unsee.LoRA,
    "esd-x": unsee.ESD,
    "esd-u": lambda: unsee.ESD(select="noncross"),
}
GUARDS: dict[str, Callable[[], Any]] = {
    "sld": lambda: unsee.SLD(CONCEPT),
    "negative prompt": lambda: unsee.NegativePrompt(CONCEPT),
}
"""They change no weight: whoever holds the weights leaves them out. So attacks that need weights are not tried."""


@dataclass(frozen=True)
class Guarded:
    """A guard in the place of an edit."""

    guard: Any
    card: Any

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[None]:
        with self.guard.applied(pipe):
            yield

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.guard).encode()).hexdigest()


def guarded(siege: Siege, name: str) -> Siege | None:
    """A siege of a guard; None if its attack needs weights."""
    if any({"weights", "base"} & one.needs or one.axis in ("pictures", "weights") for one in siege.attacks):
        return None
    return replace(siege, edit=Guarded(GUARDS[name](), replace(siege.edit.card, method=name)))  # type: ignore[arg-type]


def measure(folder: Path, methods: list[str], names: list[str], twin: Path | None, model: str) -> None:
    """Records by method, attack by attack: controls that no edit changes are measured once."""
    records = RECORDS / PAGES[model]
    for one in (folder, records):
        one.mkdir(parents=True, exist_ok=True)
    pipe = unsee.load(model)
    edits = [one for one in METHODS if one in methods]
    for method in edits:
        if not (path := folder / f"{method}.safetensors").is_file():
            METHODS[method]()(pipe, CONCEPT).save(path)
    for name in names:
        measured: dict[Key, Cell] = {}
        before = sorted(records.iterdir())
        for method in methods:
            place = folder / f"{method}-{name}".replace(" ", "-")
            record = records / f"{place.name}.json"
            if record.is_file():
                continue
            file = folder / f"{method if method in METHODS else edits[0]}.safetensors"
            siege: Siege | None = prepare(str(file), names=[name], twin=twin)
            if method in GUARDS and siege:
                siege = guarded(siege, method)
            if siege is None:
                continue
            place.mkdir(exist_ok=True)
            one = attack(siege, place, measured=measured)
            one = replace(one, detector=known_as(one.detector), second=known_as(one.second))
            record.write_text(one.to_json() + "\n", encoding="utf-8")
            print(name, method, round(one.seconds), "s", flush=True)
        if sorted(records.iterdir()) != before:
            publish(model)


def recorded(model: str = "mini") -> dict[str, list[Attacked]]:
    """What was measured, by method: the records that are there."""
    records = RECORDS / PAGES[model]
    places = {name: sorted(records.glob(f"{name.replace(' ', '-')}-*.json")) for name in (*METHODS, *GUARDS)}
    found = {
        name: [Attacked.from_json(one.read_bytes()) for one in some if not one.stem.endswith(f"-{KNOWLEDGE}")]
        for name, some in places.items()
    }
    return {name: some for name, some in found.items() if some}


def known(model: str = "mini") -> dict[str, list[Measured]]:
    """What was measured of what edits, and the twin, still know: the records that are there."""
    places = {name: RECORDS / PAGES[model] / f"{name}-{KNOWLEDGE}.json" for name in (*METHODS, TWIN)}
    found = {name: LEFT.validate_json(place.read_bytes()) for name, place in places.items() if place.is_file()}
    return {name: rows for name, rows in found.items() if rows}  # none where a family's pictures cannot be noised


def know(folder: Path, methods: list[str], twin: Path | None, model: str = "mini") -> dict[str, list[Measured]]:
    """What each edit, and the twin, still knows of the concept without a prompt, from records where they are there.

    A guard has none: it changes what a run follows, not what the denoiser knows.
    """
    names = [*(method for method in methods if method in METHODS), *([TWIN] if twin else [])]
    places = {name: RECORDS / PAGES[model] / f"{name}-{KNOWLEDGE}.json" for name in names}
    if missing := [name for name in names if not places[name].is_file()]:
        pipe, concept = unsee.load(model), unsee.Concept(CONCEPT)

        def variant(name: str) -> Variant:
            if twin and name == TWIN:
                return Variant(TWIN, "edit", TWIN, (concept,), partial(put_on, values=read_twin(twin, pipe)))
            return as_variant(name, Edit.load(folder / f"{name}.safetensors"))

        context = EvalContext(pipe, {}, words_of(pipe), (concept,), PICTURES, 0)
        variants = [base(context.concepts), *map(variant, missing)]
        found = run(context, [knowledge.SUITE], variants, sampling_of(pipe, None, None), Memory()).measured
        for name in missing:
            rows = [row for row in found if row.variant == name and row.unit == "ratio"]
            places[name].write_bytes(LEFT.dump_json(rows, indent=1) + b"\n")
    return known(model)


def publish(model: str) -> None:
    """The page of all records of a model, and its two figures."""
    found, name, docs = recorded(model), PAGES[model], ROOT / "docs"
    (docs / f"{name}.md").write_text(text(found, known(model), model, name))
    (docs / f"{name}-heat.svg").write_text(heat(found))
    (docs / f"{name}-effort.svg").write_text(curves(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--model", choices=PAGES, default="mini")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *GUARDS], default=[*METHODS, *GUARDS])
    parser.add_argument("--attacks", nargs="+", choices=attacks.names(), default=attacks.names())
    parser.add_argument("--twin", type=Path)
    parser.add_argument("--draw", action="store_true", help="the page anew from its records; nothing is measured")
    given = parser.parse_args()
    folder = given.folder or Path("runs") / PAGES[given.model]
    if not given.draw:
        measure(folder, given.methods, given.attacks, given.twin, given.model)
        know(folder, given.methods, given.twin, given.model)
    publish(given.model)


if __name__ == "__main__":
    main()
