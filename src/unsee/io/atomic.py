"""Files are written whole or not at all. A file that cannot be made stops no other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unsee.errors import InputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, which takes that place only when it is complete.

    Raises InputError if it cannot be written: no space, no permission.
    """
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


Warn = Callable[[str], object]
"""Gets a line for each thing that could not be made."""


def warned(line: str) -> None:
    """The Warn of a library: Python's own warning."""
    warnings.warn(line, stacklevel=2)


@contextmanager
def attempted(what: str, warn: Warn) -> Iterator[None]:
    """Within the context `what` is made, such as a picture of a result. If that fails `warn` gets a line."""
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be made: {' '.join(str(error).split())[:300] or type(error).__name__}")
