"""docs/ablation.md: one church, erased by each part of what the defaults are made of, and by the paper's own loop.

    python -m benchmarks.ablation [-n 100] [--without-paper] [--work runs/ablation] [--out docs/ablation.md]

An edit that is finished under `--work` is not made again; the loop of the paper takes ten minutes of a core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import unsee
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.suites.summary import REST
from unsee.versions import versions

VARIANTS: dict[str, tuple[str, Any]] = {
    "balance": ("the default for names: a closed form with a limit for every known word", unsee.Balance()),
    "uce": ("the closed form of UCE, two weights for all", unsee.UCE()),
    "esd": ("ESD's targets on recorded runs, from the model's own weights", unsee.ESD()),
    "hybrid": ("UCE's closed form, then ESD's targets beside preservation prompts", unsee.Hybrid()),
    "paper": ("the paper's own loop: 1000 updates, each on a run of its own", unsee.ESD(**unsee.ESD.presets["paper"])),
}
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


def cell(one: Measured | None) -> str:
    """A share after, with its interval."""
    if one is None:
        return ""
    low, high = one.score.low, one.score.high
    return f"{100 * one.score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def page(found: Evaluation, seconds: dict[str, float], concept: str, command: str) -> str:
    """The page in Markdown."""
    shares = [one for one in found.measured if one.unit == "share"]

    def row(suite: str, variant: str, **said: str) -> Measured | None:
        own = [one for one in shares if one.suite == suite and one.variant == variant]
        return next((one for one in own if all(getattr(one, key) == value for key, value in said.items())), None)

    columns: dict[str, dict[str, str]] = {
        f"{concept} still seen": {"suite": SUMMARY, "key": f"removed/{concept}"},
        "in every style": {"suite": SUMMARY, "key": f"removed in styles/{concept}"},
        "five nearest texts": {"suite": SUMMARY, "key": f"neighbours/{concept}"},
        ALIKE: {"suite": "neighbours", "key": f"to keep/{ALIKE}"},
        "everything else": {"suite": SUMMARY, "key": REST},
        "styles": {"suite": SUMMARY, "key": "styles"},
    }
    base = {title: row(variant="base", **where) for title, where in columns.items()}
    lines = [
        "# What each part does",
        "",
        f"One concept, {concept!r}, erased from the miniature in {len(seconds)} ways. `{command}` writes this page.",
        "",
        "- A cell is the per cent of pictures in which a detector sees what is asked for, with Wilson's 95 % interval.",
        "- Equal prompts and seeds in every row. n is below each column.",
        "- Seconds are those of one core until the edit exists.",
        "",
        "| | " + " | ".join(columns) + " | seconds |",
        "|---" * (len(columns) + 2) + "|",
        "| base | " + " | ".join(map(cell, base.values())) + " | |",
    ]
    for name, spent in seconds.items():
        cells = [cell(row(variant=name, **where)) for where in columns.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {spent:.0f} |")
    counts = [str(one.score.n) if one else "" for one in base.values()]
    lines += ["| n | " + " | ".join(counts) + " | |", ""]
    lines += [f"- `{name}`: {VARIANTS[name][0]}." for name in seconds]
    lines += ["", f"Made with {', '.join(f'{key} {value}' for key, value in versions().items())}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--without-paper", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=Path("docs/ablation.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    chosen = {name: method for name, (_, method) in VARIANTS.items() if not (options.without_paper and name == "paper")}
    edits = {name: made(name, method, CONCEPT, options.work) for name, method in chosen.items()}
    with unsee.bars() as progress:
        found = unsee.measure(
            "mini", options.work / "evaluation", [SUMMARY, "neighbours"], pictures=options.n, progress=progress,
            concepts=[{"erase": CONCEPT, "keep": [ALIKE]}],
            edits=[f"{name}={path}" for name, (path, _) in edits.items()],
        )  # fmt: skip
    text = page(
        found, {name: seconds for name, (_, seconds) in edits.items()}, CONCEPT, "python -m benchmarks.ablation"
    )
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
