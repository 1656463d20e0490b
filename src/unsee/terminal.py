"""What the commands share: options, KEY=VALUE pairs, progress bars, and text that a terminal may show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.errors import InputError

if TYPE_CHECKING:
    from unsee.recorder import Watch

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampler steps of the pictures.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale of the pictures.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Call = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Another option of the pipeline's calls; may be repeated.")
]
Batch = Annotated[int, typer.Option(min=1, help="Pictures drawn at once; fewer where memory does not hold them.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
ForceBase = Annotated[bool, typer.Option("--force-base", help="Use it on other weights; outputs tell of it.")]


def pairs(texts: list[str] | None, option: str) -> dict[str, Any]:
    """key=value texts; a value is read as YAML reads it."""
    from unsee.config import parse

    found: dict[str, Any] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{option} takes KEY=VALUE, got {text!r}")
        found[key.strip()] = parse(value, f"{option} {key}")
    return found


@contextmanager
def bars() -> Iterator[Watch]:
    """Progress bars with the time that is left, one for each stage; on stderr, so that results can be piped."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("passed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True, quiet=not speaks()))
    tasks: dict[str, Any] = {}

    def watch(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            progress.start()
            tasks[stage] = progress.add_task(stage, total=total)
        progress.update(tasks[stage], completed=done, total=total)

    try:
        yield watch
    finally:
        if tasks:
            progress.stop()


def speaks() -> bool:
    """Whether this is the one of many processes that prints."""
    return os.environ.get("RANK", "0") == "0"


def plain(text: str) -> str:
    """Without control characters: a card or a prompt may come from anywhere, and a terminal obeys them."""
    return "".join(character if character.isprintable() else "?" for character in text)
