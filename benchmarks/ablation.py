"""docs/ablation.md: one church, erased by each part of what the defaults are made of, and by the paper's own loop.

    python -m benchmarks.ablation [-n 100] [--by NAME ...] [--work runs/ablation] [--out docs/ablation.md]
    python -m benchmarks.ablation --draw     the page anew, from the table beside it, docs/ablation.csv

An edit that is finished under `--work` is not made again; the loop of the paper takes ten minutes of a core. Of what is
not in `--by`, the table keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import unsee
from benchmarks.evidence.record import CORE, EDIT, SECONDS, Cell, of, read, score, today, written
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.suites.summary import REST

VARIANTS: dict[str, tuple[str, Any]] = {
    "balance": ("the default for names: a closed form with a limit for every known word", unsee.Balance()),
    "uce": ("the closed form of UCE, two weights for all", unsee.UCE()),
    "esd": ("ESD's targets on recorded runs, from the model's own weights", unsee.ESD()),
    "hybrid": ("UCE's closed form, then ESD's targets beside preservation prompts", unsee.Hybrid()),
    "lora": ("hybrid as an adapter, the form in which other tools read it", unsee.LoRA()),
    "oce": ("a rotation of the text features that takes the name out", unsee.OCE()),
    "speed": ("a change in the null space of what must stay", unsee.SPEED()),
    "gem": ("ESD with a hinge that stops by itself", unsee.GEM()),
    "stereo": ("searches for tokens, then one fit against all of them", unsee.STEREO()),
    "robust": ("hybrid in all layers, with attacks between the updates", unsee.Robust()),
    "paper": ("the paper's own loop: 1000 updates, each on a run of its own", unsee.ESD(**unsee.ESD.presets["paper"])),
}
GUARDS = {
    "negative": "a guard, no edit: the name as negative prompt",
    "sld-medium": "a guard, no edit: Safe Latent Diffusion, which waits ten steps; the miniature takes ten",
}
TABLE = Path(__file__).parents[1] / "docs" / "ablation.csv"
CONCEPT, ALIKE = "church", "castle"
"""What is erased; and of all objects the one that looks most like it. The nearest texts do not have it."""


def made(name: str, method: Any, concept: str, work: Path) -> tuple[Path, float]:
    """An edit's file, and the seconds of one core that it took."""
    path, note = work / f"{name}.safetensors", work / f"{name}.json"
    if not note.exists():
        pipe = unsee.load("mini")
        start = time.process_time()
        edit = method(pipe, concept)
        seconds = time.process_time() - start
        edit.save(path)
        note.write_text(json.dumps({"seconds": seconds}))
    return path, float(json.loads(note.read_text())["seconds"])


SUITE = "neighbours"
COLUMNS = {
    f"{CONCEPT} still seen": (SUMMARY, f"removed/{CONCEPT}"),
    "in every style": (SUMMARY, f"removed in styles/{CONCEPT}"),
    "five nearest texts": (SUMMARY, f"neighbours/{CONCEPT}"),
    ALIKE: (SUITE, f"to keep/{ALIKE}"),
    "everything else": (SUMMARY, REST),
    "styles": (SUMMARY, "styles"),
}
"""By heading, the suite and the key of a row."""


def cells(found: Evaluation, seconds: Mapping[str, float]) -> list[Cell]:
    """Shares of the base and of each method, as lines of the table; a method's seconds come first."""
    shares = [one for one in found.measured if (one.suite, one.key) in COLUMNS.values() and one.unit == "share"]
    made = []
    for name in ("base", *seconds, *GUARDS):
        rows = of(name, shares)
        if name in seconds:
            spent = score(seconds[name])
            rows.insert(0, Measured(EDIT, SECONDS, "other", "until the edit exists", name, CORE, spent, None, None))
        made.append(Cell(CONCEPT, name, "", today(), tuple(rows)))
    return made


def cell(one: Measured | None) -> str:
    """A share after, with its interval."""
    if one is None:
        return ""
    low, high = one.score.low, one.score.high
    return f"{100 * one.score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def page(found: Sequence[Cell]) -> str:
    """The page in Markdown."""
    base, *others = found
    lines = [
        "# What each part does",
        "",
        f"One concept, {CONCEPT!r}, erased from the miniature in {len(others)} ways.",
        "`python -m benchmarks.ablation` writes this page and its table, [ablation.csv](ablation.csv).",
        "",
        "- A cell is the per cent of pictures in which a detector sees what is asked for, with Wilson's 95 % interval.",
        "- Equal prompts and seeds in every row. n is below each column.",
        "- Seconds are those of one core until the edit exists.",
        "",
        "| | " + " | ".join(COLUMNS) + " | seconds |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for one in found:
        spent = one.row(EDIT, SECONDS)
        shares = [cell(one.row(*where)) for where in COLUMNS.values()]
        name = "base" if one is base else f"`{one.by}`"
        lines.append(f"| {name} | {' | '.join(shares)} | {f'{spent.score.value:.0f} ' if spent else ''}|")
    counts = [str(row.score.n) if (row := base.row(*where)) else "" for where in COLUMNS.values()]
    lines += ["| n | " + " | ".join(counts) + " | |", ""]
    about = GUARDS | {name: text for name, (text, _) in VARIANTS.items()}
    lines += [f"- `{one.by}`: {about[one.by]}." for one in others]
    lines += ["", f"Measured on {base.day}.", ""]
    return "\n".join(lines)


def read_cells(path: Path = TABLE) -> list[Cell]:
    """The base and each method, as last measured."""
    return read(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--by", nargs="*", choices=[*VARIANTS, *GUARDS], default=[*VARIANTS, *GUARDS], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=TABLE.with_suffix(".md"))
    parser.add_argument("--draw", action="store_true", help="the page anew from its table")
    options = parser.parse_args()
    table = options.out.with_suffix(".csv")
    if not options.draw:
        torch.set_num_threads(1)
        options.work.mkdir(parents=True, exist_ok=True)
        chosen = {name: how for name, (_, how) in VARIANTS.items() if name in options.by}
        kept = {one.by: one for one in read_cells(table)} if table.is_file() else {}
        edits = {name: made(name, method, CONCEPT, options.work) for name, method in chosen.items()}
        with unsee.bars() as progress:
            found = unsee.measure(
                "mini", options.work / "evaluation", [SUMMARY, SUITE], pictures=options.n, progress=progress,
                concepts=[{"erase": CONCEPT, "keep": [ALIKE]}],
                edits=[f"{name}={path}" for name, (path, _) in edits.items()],
                guards=[name for name in GUARDS if name in options.by],
            )  # fmt: skip
        kept |= {
            one.by: one for one in cells(found, {name: seconds for name, (_, seconds) in edits.items()}) if one.rows
        }
        table.write_text(written(kept[name] for name in ("base", *VARIANTS, *GUARDS) if name in kept))
    text = page(read_cells(table))
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
