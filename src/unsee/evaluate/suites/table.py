"""A suite of the user's own: a CSV with a line for each picture, its prompt, seed and the label a judge should give."""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

from unsee.errors import InputError, unknown
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Suite, World, count

SEED = ("seed", "evaluation_seed")
"""The column may have the name that published prompt sets give it."""

Line = tuple[str, int, str, str]


def from_csv(path: Path) -> Suite:
    """A suite with the file's name and a row for each label.

    Columns: prompt; seed (or evaluation_seed), a whole number from 0; label, of a judge; and, if it is not "objects",
    the kind of judge. Raises InputError with the number of the line that is wrong.
    """
    lines = _read(path)
    return Suite(path.stem, f"Prompts of {path.name}.", partial(_ask, path, lines), partial(count, path.stem))


def _read(path: Path) -> list[Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts {path}: {error}") from error
    reader = csv.DictReader(text.splitlines())
    head = [name.strip() for name in reader.fieldnames or ()]
    seed = next((name for name in SEED if name in head), "seed")
    for name in ("prompt", seed, "label"):
        if name not in head:
            raise InputError(f"{path} has no column {name!r}; its first line is {','.join(head)!r}")
    reader.fieldnames = head
    lines = []
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        prompt, number, label = ((row[name] or "").strip() for name in ("prompt", seed, "label"))
        if not prompt or not label:
            raise InputError(f"{where}: the {'label' if prompt else 'prompt'} is empty")
        if not (number.isascii() and number.isdecimal()):
            raise InputError(f"{where}: the seed {number!r} is no whole number from 0")
        lines.append((prompt, int(number), label, (row.get("judge") or "objects").strip()))
    if not lines:
        raise InputError(f"{path} holds no prompts below its first line")
    return lines


def _ask(path: Path, lines: list[Line], world: World) -> list[Question]:
    rows: dict[tuple[str, str], list[Shot]] = defaultdict(list)
    for prompt, seed, label, kind in lines:
        if label not in world.labels(kind):
            raise unknown(f"label in {path}", label, world.labels(kind))
        rows[kind, label].append(Shot(prompt, seed))
    return [Question(label, False, tuple(shots), kind, (label,) * len(shots)) for (kind, label), shots in rows.items()]
