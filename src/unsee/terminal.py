"""What the commands share: options, KEY=VALUE pairs, and text that a terminal may show."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.errors import InputError

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


def plain(text: str) -> str:
    """Without control characters: a card or a prompt may come from anywhere, and a terminal obeys them."""
    return "".join(character if character.isprintable() else "?" for character in text)


def shell(*words: str | Path) -> str:
    """A command of unsee as it can be typed into a shell."""
    return plain(shlex.join(["unsee", *map(str, words)]))
