"""A folder of the user's own pictures: what each is called, and what it shows."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from unsee.errors import InputError
from unsee.io.images import read_picture
from unsee.spelling import counted

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
TABLE = "metadata.csv"
TEXTS = ("text", "prompt", "caption", "title")


@dataclass(frozen=True)
class Album:
    """A folder's pictures, by title.

    folder    where they are
    titles    in the order of the files' names
    captions  whether the titles were written for them in metadata.csv, not made of the files' names
    """

    folder: str
    files: tuple[Path, ...]
    titles: tuple[str, ...]
    captions: bool

    def pictures(self, size: tuple[int, int] | None = None) -> list[Image.Image]:
        """All of them in RGB; `size` in pixels, cut to its shape from the middle first."""
        found = [read_picture(str(file)) for file in self.files]
        return found if size is None else [ImageOps.fit(one, size) for one in found]


def read_folder(folder: Path) -> Album:
    """The pictures in a folder, with the texts of its metadata.csv (file_name, text), or else of their names.

    "starry-night.png" is called "starry night". Raises InputError if there are none, a text is missing, or two pictures
    have one title.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of pictures {folder}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if len(files) < 2:
        raise InputError(
            f"{folder} holds {counted(len(files), 'picture')}; at least 2 are needed, of {', '.join(ENDINGS)}"
        )
    table = folder / TABLE
    if not table.is_file():
        titles = [" ".join(path.stem.replace("_", " ").replace("-", " ").split()) for path in files]
        return Album(str(folder), tuple(files), tuple(titles), False)
    said = _texts(table)
    for path in files:
        if path.name not in said:
            raise InputError(f"{table} has no line for {path.name}")
    return Album(str(folder), tuple(files), tuple(said[path.name] for path in files), True)


def _texts(table: Path) -> dict[str, str]:
    try:
        reader = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        head = [name.strip() for name in reader.fieldnames or ()]
        text = next((name for name in TEXTS if name in head), None)
        if "file_name" not in head or text is None:
            raise InputError(
                f"{table} needs the columns file_name and text; its first line is {','.join(head)[:200]!r}"
            )
        reader.fieldnames = head
        return {row["file_name"].strip(): row[text].strip() for row in reader if row["file_name"] and row[text]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {table}: {error}") from error
