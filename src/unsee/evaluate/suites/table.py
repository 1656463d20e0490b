"""A suite of the user's own: a CSV with a line for each picture, its prompt, its seed, and what is wanted of it.

The columns go by the names that published prompt sets give them (I2P, UnlearnDiffAtk, COCO 30k, Imagenette).
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unsee.errors import InputError, unknown
from unsee.evaluate.context import EvalContext
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Suite
from unsee.evaluate.suites.implicit import unlabelled
from unsee.spelling import lookup

NAMES = {
    "seed": ("seed", "evaluation_seed", "sd_seed"),
    "guidance": ("guidance", "guidance_scale", "evaluation_guidance", "sd_guidance_scale"),
    "width": ("width", "sd_image_width"),
    "height": ("height", "sd_image_height"),
    "label": ("label", "class", "label_str"),
    "categories": ("categories", "category"),
    "detector": ("detector", "judge"),
}
MOST_SEED = 2**63 - 1
MOST_SIDE = 4096
MOST_GUIDANCE = 100.0


@dataclass(frozen=True)
class Line:
    """One picture. label is "" in a file without that column; categories are empty too unless it has them."""

    shot: Shot
    label: str
    kind: str
    categories: tuple[str, ...]


def from_csv(path: Path) -> Suite:
    """A suite with the file's name. Columns, of which prompt and seed must be there:

        prompt
        seed        a whole number from 0; also evaluation_seed, sd_seed
        label       what a detector should answer, by any name of it; a row for each. Also class, label_str. Without
                    this column a row for each category: the share of pictures in which a detector sees what no prompt
                    need name
        detector    the kind of detector, if it is not "objects"; also judge
        guidance    scale; also guidance_scale, evaluation_guidance, sd_guidance_scale
        width, height   in pixels; also sd_image_width, sd_image_height
        categories  separated by commas

    Raises InputError with the number of the line that is wrong.
    """
    lines = read(path)
    ignored = ", ".join(unread(path))[:300]
    more = f" Columns that are not read: {ignored}." if ignored else ""
    if lines[0].label:
        about = f"Prompts of {path.name}: the share of pictures that show what is wanted.{more}"
        return Suite(path.stem, about, partial(_ask, path, lines), lambda asked, c: c.count(asked))
    rows: dict[str, list[Shot]] = {"all prompts": [line.shot for line in lines]}
    for line in lines:
        for category in line.categories:
            rows.setdefault(category, []).append(line.shot)
    once = {row: list(dict.fromkeys(shots)) for row, shots in rows.items()}  # the same picture twice is one
    return unlabelled(path.stem, f"Prompts of {path.name}, and implicit concepts in their pictures.{more}", once)


def labels(path: Path, kind: str) -> list[str]:
    """The answers of a kind of detector that a file asks for."""
    return list(dict.fromkeys(line.label for line in read(path) if line.label and line.kind == kind))


def read(path: Path) -> list[Line]:
    """The lines of a file. Raises InputError as `from_csv` does."""
    reader, found = _opened(path)
    labelled = found["label"] in (reader.fieldnames or ())
    try:
        lines = [_line(row, found, labelled, f"{path}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} is no CSV: {error}") from error
    if not lines:
        raise InputError(f"{path} holds no prompts below its first line")
    return lines


def unread(path: Path) -> list[str]:
    """The columns of a file that mean nothing here."""
    reader, found = _opened(path)
    return [name for name in reader.fieldnames or () if name and name not in {"prompt", *found.values()}]


def _opened(path: Path) -> tuple[csv.DictReader[str], dict[str, str]]:
    """A reader of a file, and the column for each of NAMES."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts {path}: {error}") from error
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        head = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise InputError(f"{path} is no CSV: {error}") from error
    found = {key: next((name for name in names if name in head), key) for key, names in NAMES.items()}
    for name in ("prompt", found["seed"]):
        if name not in head:
            raise InputError(f"{path} has no column {name!r}; its first line is {','.join(head)[:200]!r}")
    if double := next((name for name in head if name and head.count(name) > 1), None):
        raise InputError(f"{path} has two columns {double[:100]!r}")
    reader.fieldnames = head
    return reader, found


def _line(row: Mapping[str | None, object], found: Mapping[str, str], labelled: bool, where: str) -> Line:
    def cell(name: str) -> str:
        return str(row.get(found.get(name, name)) or "").strip()

    def number(name: str, least: float, most: float, whole: bool) -> float | None:
        text, what = cell(name), "whole number" if whole else "number"
        if not text:
            return None
        try:
            value = float(text) if text.isascii() else math.nan
        except ValueError:
            value = math.nan
        if not least <= value <= most or (whole and value != int(value)):
            raise InputError(f"{where}: the {name} {text[:50]!r} is no {what} from {least:g} to {most:g}")
        return value

    if None in row:
        raise InputError(f"{where}: it has more cells than the first line")
    prompt, seed, label = cell("prompt"), cell("seed"), cell("label")
    if not prompt or (labelled and not label):
        raise InputError(f"{where}: the {'label' if prompt else 'prompt'} is empty")
    if not (seed.isascii() and seed.isdecimal() and len(seed) < 20 and int(seed) <= MOST_SEED):
        raise InputError(f"{where}: the seed {seed[:50]!r} is no whole number from 0 to {MOST_SEED}")
    guidance = number("guidance", 0, MOST_GUIDANCE, False)
    width, height = (number(name, 8, MOST_SIDE, True) for name in ("width", "height"))
    if (width is None) != (height is None):
        raise InputError(f"{where}: width and height go together")
    size = (int(width), int(height)) if width and height else None
    categories = tuple(filter(None, (name.strip() for name in cell("categories").split(","))))
    return Line(Shot(prompt, int(seed), size, guidance), label, cell("detector") or "objects", categories)


def _ask(path: Path, lines: list[Line], context: EvalContext) -> list[Question]:
    rows: dict[tuple[str, str], list[Shot]] = defaultdict(list)
    for line in lines:
        label = line.label if line.label in context.labels(line.kind) else lookup(line.label, context.known)
        if label not in context.labels(line.kind):
            raise unknown(f"label in {path}", line.label, context.labels(line.kind))
        if line.shot not in (row := rows[line.kind, str(label)]):  # the same picture twice is one
            row.append(line.shot)
    return [
        Question(f"{kind}/{label}", label, tuple(shots), kind, (label,) * len(shots))
        for (kind, label), shots in rows.items()
    ]
