"""Pictures of models above each other, on the same prompts and seeds."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from unsee.evaluate.observations import Figure
from unsee.evaluate.questions import Question, spread
from unsee.evaluate.render import Shot

COLUMNS, ROWS, GROUPS = 8, 30, 3
"""The most that is shown: prompts of a row, rows of a suite that is alone, rows of one among others."""
ACROSS = 24
TALLEST = 8000
"""The most pictures in a line of a sheet, and pixels of its height: WebP holds 16383, and viewers dislike more."""
LONGEST = 600
"""Characters of a title."""
CELL = 128
MARGIN = 12
LABEL = 92
INK, PALE, PAPER = "#1b1b1f", "#6b6b76", "#ffffff"


Pictures = Mapping[str, Mapping[Shot, Image.Image]]
"""By model, in the order in which they stand above each other."""


def shown(asked: Mapping[str, Sequence[Question]]) -> dict[str, list[tuple[str, list[Shot]]]]:
    """What is shown of each suite: of one alone every row, of several a few rows each, up to eight prompts a row."""
    found = {}
    for suite, questions in asked.items():
        rows = spread([one for one in questions if not one.reference], GROUPS if len(asked) > 1 else ROWS)
        found[suite] = [(one.name, some(one.shots)) for one in rows]
    return found


def contact(asked: Mapping[str, Sequence[Question]], galleries: Pictures, cell: int = CELL) -> list[Image.Image]:
    """Sheets of a few pictures of every suite, a line for each variant, same seeds above each other."""
    groups = [
        (f"{suite}: {name}" if len(asked) > 1 else name, shots)
        for suite, rows in shown(asked).items()
        for name, shots in rows
    ]
    return sheets(groups, galleries, cell)


Rows = dict[str, dict[str, dict[Shot, Image.Image]]]
"""The pictures of a suite's figures, by row and variant."""


def by_suite(figures: Sequence[Figure]) -> dict[str, Rows]:
    made: dict[str, Rows] = {}
    for one in figures:
        made.setdefault(one.suite, {}).setdefault(one.row, {}).setdefault(one.variant, {})[one.shot] = one.picture
    return made


def figure_sheets(figures: Sequence[Figure], cell: int = 96) -> dict[str, list[Image.Image]]:
    """The pictures that suites made, as sheets for each."""
    return {
        suite: stacked(
            [
                sheet
                for row, variants in rows.items()
                for sheet in sheets([(row, spread(list(next(iter(variants.values()))), COLUMNS))], variants, cell)
            ]
        )
        for suite, rows in by_suite(figures).items()
    }


def sheets(
    groups: Sequence[tuple[str, Sequence[Shot]]], models: Mapping[str, Mapping[Shot, Image.Image]], cell: int = CELL
) -> list[Image.Image]:
    """What `grid` draws, in as many pictures as it takes for none to be larger than ACROSS and TALLEST allow."""
    pieces = [(name, shots[k : k + ACROSS]) for name, shots in groups for k in range(0, len(shots), ACROSS)]
    most = (TALLEST - _height(0, cell)) // _height(1, cell, 0)
    found = []
    for start in range(0, len(models), most):
        some = dict(list(models.items())[start : start + most])
        each = (TALLEST - MARGIN) // _height(len(some), cell)
        found += [grid(pieces[k : k + each], some, cell) for k in range(0, len(pieces), each)]
    return found


def _height(lines: int, cell: int, rest: int = 30 + 20 + MARGIN) -> int:
    """Pixels of a group with so many lines of pictures, at most."""
    return rest + lines * (cell + MARGIN // 2)


def paths(path: Path, count: int) -> list[Path]:
    """The files of so many sheets: NAME.png, NAME-2.png and so on."""
    return [path.with_stem(f"{path.stem}-{k + 1}") if k else path for k in range(count)]


def stacked(parts: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures below each other, in as many as it takes for none to be taller than TALLEST."""
    pages: list[list[Image.Image]] = []
    for part in parts:
        if not pages or sum(one.height for one in (*pages[-1], part)) > TALLEST:
            pages.append([])
        pages[-1].append(part)
    found = []
    for page in pages:
        sheet = Image.new("RGB", (max(part.width for part in page), sum(part.height for part in page)), PAPER)
        for k, part in enumerate(page):
            sheet.paste(part, (0, sum(before.height for before in page[:k])))
        found.append(sheet)
    return found


def grid(
    groups: Sequence[tuple[str, Sequence[Shot]]], models: Mapping[str, Mapping[Shot, Image.Image]], cell: int = CELL
) -> Image.Image:
    """For each group of shots a title, the prompts, and one line of pictures for each model; same seeds in a column.

    cell  longer side of a picture in pixels
    """
    title, small = ImageFont.load_default(20), ImageFont.load_default(13)
    groups = [(name if len(name) <= LONGEST else f"{name[:LONGEST]}…", shots) for name, shots in groups]
    step = cell + MARGIN // 2
    first = next(iter(models.values()))
    tall = [max(fitted(first[shot], cell).height for shot in shots) for _, shots in groups]
    height = MARGIN + sum(30 + 20 + len(models) * (line + MARGIN // 2) + MARGIN for line in tall)
    columns = max(len(shots) for _, shots in groups)
    widest = max([LABEL + columns * step, *(MARGIN + round(title.getlength(name)) for name, _ in groups)])
    sheet = Image.new("RGB", (widest + MARGIN, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for (name, shots), line in zip(groups, tall, strict=True):
        draw.text((MARGIN, y), name, INK, title)
        y += 30
        for k, shot in enumerate(shots):
            draw.text((LABEL + k * step, y), _fit(shot.prompt, cell, small), PALE, small)
        y += 20
        for model, pictures in models.items():
            draw.text((MARGIN, y + line // 2 - 8), model, INK, small)
            for k, shot in enumerate(shots):
                sheet.paste(fitted(pictures[shot], cell), (LABEL + k * step, y))
            y += line + MARGIN // 2
        y += MARGIN
    return sheet


def mosaic(shots: Sequence[Shot], pictures: Mapping[Shot, Image.Image], cell: int = CELL) -> Image.Image:
    """Pictures without words, four a line."""
    lines = -(-len(shots) // 4)
    sheet = Image.new("RGB", (cell * min(4, len(shots)), cell * lines), PAPER)
    for k, shot in enumerate(shots):
        sheet.paste(fitted(pictures[shot], cell), (cell * (k % 4), cell * (k // 4)))
    return sheet


def embedded(picture: Image.Image, quality: int = 80) -> dict[str, Any]:
    """A picture for a template: its size, and its WebP as base64."""
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=quality)
    return {"data": base64.b64encode(stream.getvalue()).decode(), "width": picture.width, "height": picture.height}


def some(shots: Sequence[Shot]) -> list[Shot]:
    """Up to eight shots, with different prompts first, evenly spaced over all."""
    different = list({shot.prompt: shot for shot in reversed(shots)}.values())[::-1]
    rest = [shot for shot in shots if shot not in different]
    return (spread(different, COLUMNS) + rest)[:COLUMNS]


def fitted(picture: Image.Image, cell: int) -> Image.Image:
    """A picture whose longer side is `cell` pixels."""
    scale = cell / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _fit(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while font.getlength(text) > width and len(text) > 2:
        text = text[:-2].rstrip() + "…"
    return text
