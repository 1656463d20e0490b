"""Pictures from files."""

from __future__ import annotations

from PIL import Image

from unsee.errors import InputError


def read_picture(path: str) -> Image.Image:
    """A picture from a file, in RGB. Raises InputError if there is none."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the picture {path}: {error}") from error
