"""Attack edits of "church" and write docs/redteam.md: python -m benchmarks.redteam [FOLDER] [--methods ...]

FOLDER keeps the edits and the pages of attacks, benchmarks/records/redteam their records, from which docs/redteam.md is
written: a record that is there is not measured again, so delete those that a change of the code makes old.
`--twin church` adds a twin.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import unsee
from benchmarks.redteam_page import curves, heat, text
from unsee import attacks
from unsee.evaluate.attacked import Attacked
from unsee.report.page import known_as
from unsee.runs.attack import Cell, Key, attack
from unsee.runs.siege import Siege, prepare

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "redteam.md"
RECORDS = ROOT / "benchmarks" / "records" / "redteam"
CONCEPT = "church"
METHODS: dict[str, Callable[[], Any]] = {
    "balance": unsee.Balance,
    "robust": unsee.Robust,
    "hybrid": unsee.Hybrid,
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


def measure(folder: Path, methods: list[str], names: list[str], twin: Path | None) -> dict[str, list[Attacked]]:
    """Records by method, attack by attack: controls that no edit changes are measured once."""
    for one in (folder, RECORDS):
        one.mkdir(parents=True, exist_ok=True)
    pipe = unsee.load("mini")
    edits = [one for one in METHODS if one in methods]
    for method in edits:
        if not (path := folder / f"{method}.safetensors").is_file():
            METHODS[method]()(pipe, CONCEPT).save(path)
    found: dict[str, list[Attacked]] = {method: [] for method in methods}
    for name in names:
        measured: dict[Key, Cell] = {}
        for method in methods:
            place = folder / f"{method}-{name}".replace(" ", "-")
            record = RECORDS / f"{place.name}.json"
            if record.is_file():
                found[method].append(Attacked.from_json(record.read_bytes()))
                continue
            file = folder / f"{method if method in METHODS else edits[0]}.safetensors"
            siege: Siege | None = prepare(str(file), names=[name], twin=twin)
            if method in GUARDS and siege:
                siege = guarded(siege, method)
            if siege is None:
                continue
            place.mkdir(exist_ok=True)
            one = attack(siege, place, measured=measured)
            found[method].append(replace(one, detector=known_as(one.detector), second=known_as(one.second)))
            record.write_text(found[method][-1].to_json() + "\n", encoding="utf-8")
            print(name, method, round(found[method][-1].seconds), "s", flush=True)
        write(found)
    return found


def write(found: dict[str, list[Attacked]]) -> None:
    """The page and its two figures."""
    PAGE.write_text(text(found))
    (PAGE.parent / "redteam-heat.svg").write_text(heat(found))
    (PAGE.parent / "redteam-effort.svg").write_text(curves(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/redteam"))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *GUARDS], default=[*METHODS, *GUARDS])
    parser.add_argument("--attacks", nargs="+", choices=attacks.names(), default=attacks.names())
    parser.add_argument("--twin", type=Path)
    given = parser.parse_args()
    measure(given.folder, given.methods, given.attacks, given.twin)


if __name__ == "__main__":
    main()
