"""Pictures for a page: one for each prompt, models above each other, with words that a page can wrap and colour.

A sheet (grid.py) is for a file: its words and its paper are pixels. A page sets the words itself, so that they fit a
phone and a dark window, and no sheet can be too large for its format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unsee.evaluate.render import Shot
from unsee.report.grid import CELL, embedded, fitted

CELLS = (128, 96, 64, 48)
ROOM = 4_000_000
"""Sides of pictures in pixels, and characters that they may take: a page stays below five megabytes."""


@dataclass(frozen=True)
class Strip:
    """Pictures under one title.

    models  in their order from above
    cards   prompts, each with its embedded picture
    """

    title: str
    models: tuple[str, ...]
    cards: tuple[tuple[str, dict[str, Any]], ...]


def strips(
    groups: Sequence[tuple[str, Sequence[Shot]]], models: Mapping[str, Mapping[Shot, Image.Image]], cell: int = CELL
) -> list[Strip]:
    """For each group of shots a strip; of each shot the pictures of all models above each other, same seed.

    cell  longer side of a picture in pixels
    """
    return [
        Strip(title, tuple(models), tuple((shot.prompt, embedded(_stacked(shot, models, cell))) for shot in shots))
        for title, shots in groups
    ]


def fitting(
    groups: Mapping[str, Sequence[tuple[str, Sequence[Shot]]]],
    models: Mapping[str, Mapping[Shot, Image.Image]],
    room: int = ROOM,
) -> dict[str, list[Strip]]:
    """Strips of several lists of groups, all of them together within `room` characters by smaller pictures."""
    found: dict[str, list[Strip]] = {}
    for cell in CELLS:
        found = {key: strips(some, models, cell) for key, some in groups.items()}
        if sum(map(size, found.values())) <= room:
            break
    return found


def size(found: Sequence[Strip]) -> int:
    """Characters that the pictures take."""
    return sum(len(picture["data"]) for strip in found for _, picture in strip.cards)


def _stacked(shot: Shot, models: Mapping[str, Mapping[Shot, Image.Image]], cell: int) -> Image.Image:
    parts = [fitted(pictures[shot], cell) for pictures in models.values() if shot in pictures]
    whole = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)))
    for k, part in enumerate(parts):
        whole.paste(part, (0, sum(before.height for before in parts[:k])))
    return whole
