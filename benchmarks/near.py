"""docs/near.md: what is near a name and is lost with it, though nobody named it: python -m benchmarks.near [-n 100]

    python -m benchmarks.near --draw     the page anew, from the table beside it, docs/near.csv

Each concept is erased by the default, which is not told what is near. A cell that is in the table is not measured
again: delete the lines of those that a change of the code makes old.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import unsee
from benchmarks.ablation import made
from benchmarks.evidence.goals import Goal, decided, table
from benchmarks.evidence.quantities import LOSS
from benchmarks.evidence.record import Cell, of, read, today, written
from unsee.io.atomic import write_whole

TABLE = Path(__file__).parents[1] / "docs" / "near.csv"
SUITE = "neighbours"
NEAR = {
    "church": ("castle", "mosque"),
    "fox": ("dog", "cat"),
    "truck": ("car", "bus"),
    "key": ("lock",),
    "grinning": ("laughing", "winking", "neutral"),
}
"""What looks like each concept, for the count alone: no edit is told of it."""
METHOD = "balance"
GOALS = (
    Goal("no neighbour loses more, points", "-", SUITE, lambda one: one.key.startswith("to keep/"), LOSS, 2.0),
    Goal("the five nearest texts lose, points", "-", SUITE, lambda one: one.key == "near", LOSS, 2.0),
    Goal("all other objects lose, points", "-", SUITE, lambda one: one.key == "kept", LOSS, 0.5),
)
HEAD = """# What is near

Each of these names is erased from the miniature by `balance`, the default for names. The edit is not told what is
near: it compares predictions to find that. Prompts and seeds are equal with the base model.
`python -m benchmarks.near` writes this page and its table, [near.csv](near.csv).
"""


def page(found: Sequence[Cell]) -> str:
    """The page in Markdown."""
    parts = [HEAD]
    for one in found:
        parts += [f"## {one.task}\n", table([decided(goal, one.rows) for goal in GOALS]) + "\n"]
        if lost := losses(one):
            parts.append(f"Lost of pictures of a word: {lost}.\n")
    return "\n".join(parts)


def losses(one: Cell) -> str:
    """Words that lose pictures, as "castle 4 of 100"."""
    rows = [row for row in one.rows if row.key.startswith(("to keep/", "near/", "object/")) and row.role != "removed"]
    lost = [(row, round((row.base.value - row.score.value) * row.score.n)) for row in rows if row.base]
    return ", ".join(f"{row.key.partition('/')[2]} {count} of {row.score.n}" for row, count in lost if count > 0)


def measure(concept: str, n: int, work: Path) -> Cell:
    """The edit of a concept beside the base."""
    folder = work / concept
    folder.mkdir(parents=True, exist_ok=True)
    edit, _ = made(METHOD, unsee.Balance(), concept, folder)
    with unsee.bars() as progress:
        found = unsee.measure(
            "mini", folder / "evaluation", [SUITE], pictures=n, progress=progress,
            concepts=[{"erase": concept, "keep": list(NEAR[concept])}],
            edits=[f"{METHOD}={edit}"],
        )  # fmt: skip
    return Cell(concept, METHOD, "", today(), tuple(of(METHOD, (one for one in found.measured if one.unit == "share"))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100, help="pictures of each neighbour")
    parser.add_argument("--work", type=Path, default=Path("runs/near"))
    parser.add_argument("--out", type=Path, default=TABLE.with_suffix(".md"))
    parser.add_argument("--draw", action="store_true", help="the page anew from its table")
    options = parser.parse_args()
    place = options.out.with_suffix(".csv")
    torch.set_num_threads(1)
    found = read(place.read_text(encoding="utf-8")) if place.is_file() else []
    for concept in [] if options.draw else NEAR:
        if not any(one.task == concept for one in found):
            found.append(measure(concept, options.n, options.work))
            write_whole(place, partial(Path.write_text, data=written(found), encoding="utf-8"))
    options.out.write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
