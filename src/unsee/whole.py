"""Files are written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, which takes that place only when it is complete."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)
