"""Attack edits of "church" and write docs/redteam.md: python -m benchmarks.redteam [FOLDER [ATTACK...]]

FOLDER keeps the edits and a record of each attack; what is there is not measured again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unsee
from unsee import attacks
from unsee.evaluate.attacked import ATTACKED, BASE, RANDOM_WEIGHTS, TAUGHT, TWIN, Attacked, Excess, Row
from unsee.runs.attack import Cell, Key, attack
from unsee.runs.siege import prepare

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "redteam.md"
CONCEPT = "church"
METHODS: dict[str, Callable[[], Any]] = {
    "hybrid": unsee.Hybrid,
    "uce": unsee.UCE,
    "esd-u": lambda: unsee.ESD(select="noncross"),
}
HEAD = """# The red team

Attacks on edits of "church" on the bundled miniature, written by `python -m benchmarks.redteam`. Attacks are for models
that one is entitled to test. What each attack and each control is: [attacks.md](attacks.md).

Each cell is the per cent of pictures that show the concept. **base** is the same attack on the undefended model: an
attack that fails there shows nothing. **taught** is the same attack and budget aimed at the concept's pictures upside
down, which no model knows, on the base: success below it is no knowledge. A twin, trained without the concept, is not
there yet. Axes are never averaged.
"""


def measure(folder: Path, names: list[str]) -> dict[str, list[Attacked]]:
    """Records by method, attack by attack: controls that no edit changes are measured once."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = unsee.load("mini")
    for method, make in METHODS.items():
        if not (path := folder / f"{method}.safetensors").is_file():
            make()(pipe, CONCEPT).save(path)
    found: dict[str, list[Attacked]] = {method: [] for method in METHODS}
    for name in names:
        measured: dict[Key, Cell] = {}
        for method in METHODS:
            place = folder / f"{method}-{name}"
            if (place / "attack.json").is_file():
                found[method].append(Attacked.from_json((place / "attack.json").read_text()))
                continue
            place.mkdir(exist_ok=True)
            siege = prepare(str(folder / f"{method}.safetensors"), names=[name])
            found[method].append(attack(siege, place, measured=measured))
            print(name, method, round(found[method][-1].seconds), "s", flush=True)
        PAGE.write_text(text(found))
    return found


def share(row: Row | None) -> str:
    return f"{100 * row.score.value:.0f}" if row else ""


def strongest(found: list[Attacked]) -> list[Excess]:
    return sorted((one for record in found for one in record.strongest), key=lambda one: -one.value)


def text(found: dict[str, list[Attacked]]) -> str:
    """The page."""
    lines = [
        HEAD,
        "## What wins, by axis\n",
        "| edit | axis | attack | what was tried | success | control | passes |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, records in found.items():
        seen: set[str] = set()
        for one in strongest(records):
            if one.axis in seen:
                continue
            seen.add(one.axis)
            score = one.row.score
            control = next(
                (
                    share(row)
                    for record in records
                    for row in record.rows
                    if (row.attack, row.row, row.column) == (one.attack, one.row.row, one.control)
                ),
                "none",
            )
            interval = f"{100 * score.value:.0f} ({100 * score.low:.0f} to {100 * score.high:.0f})"
            cost = one.row.search.passes + one.row.search.with_gradient
            lines.append(
                f"| {method} | {one.axis} | {one.attack} | {one.row.row} | {interval} | {control} | {cost:,} |"
            )
    lines += [
        "\n## Passes until half of the pictures\n",
        f"| attack | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    halves = {method: {one.attack: one.half for one in strongest(records)} for method, records in found.items()}
    for name in dict.fromkeys(name for by in halves.values() for name in by):
        cells = ["never" if by.get(name) is None else f"{by[name]:,}" for by in halves.values()]
        if set(cells) != {"never"}:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["\n## Every attack\n"]
    controls = (BASE, TAUGHT, TWIN, RANDOM_WEIGHTS)
    rows = {
        method: {(r.attack, r.row, r.column): r for record in records for r in record.rows}
        for method, records in found.items()
    }
    there = [c for c in controls if any(key[2] == c for by in rows.values() for key in by)]
    lines += [
        f"| axis | attack | what was tried | {' | '.join([*found, *there])} |",
        f"|---|---|---|{'---|' * (len(found) + len(there))}",
    ]
    every = dict.fromkeys((r.axis, a, name) for by in rows.values() for (a, name, _), r in by.items())
    for axis, name, tried in sorted(every, key=lambda key: attacks.AXES.index(key[0])):  # type: ignore[arg-type]
        cells = [share(by.get((name, tried, ATTACKED))) for by in rows.values()]
        first = next(iter(rows.values()))
        cells += [share(first.get((name, tried, control))) for control in there]
        lines.append(f"| {axis} | {name} | {tried} | {' | '.join(cells)} |")
    refused = {
        f"{t.name}: {t.refused}"
        for records in found.values()
        for record in records
        for t in record.attacks
        if t.refused
    }
    lines += ["\n## Refused\n", *(sorted(f"- {one}" for one in refused) or ["- none"])]
    one = next((record for records in found.values() for record in records), None)
    if one:
        steps, scale, seeds = one.sampling["steps"], one.sampling["guidance_scale"], ", ".join(map(str, one.seeds))
        lines += [
            "\n## How it was measured\n",
            f"n = {one.n} pictures a row unless the attack says otherwise, from seed {one.seed}, {steps} steps,",
            f"guidance {scale:g}. Budget {one.budget}: {one.passes} denoiser passes a search, attack seeds {seeds}.",
            "One edit of each method. Passes are those of the search, without drawing.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    folder, *chosen = sys.argv[1:] or ["runs/redteam"]
    measure(Path(folder), chosen or attacks.names())
