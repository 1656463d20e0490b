"""What the commands share: options, KEY=VALUE pairs, and text that a terminal may show."""

from __future__ import annotations

import codecs
import io
import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import typer

from unsee.errors import InputError
from unsee.spelling import listed

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, show_default=False, help="Random seed; default 0.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Sampler steps of the pictures; default: those of the model's card, or 50.")
]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale of the pictures, 1 is none; default: that of the model's card, or 7.5."),
]
Variant = Annotated[
    str | None,
    typer.Option(help="Variant of the model's files, such as fp16; default: no variant, or the only one."),
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Allow code that comes with the model to run.")]
Call = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Another option of the pipeline's calls. May be repeated.")
]
Detectors = Annotated[
    list[str] | None,
    typer.Option(
        "--detector",
        metavar="KIND=DETECTOR",
        help="What recognises things in pictures: a classifier (folder, hub id), clip:FOLDER, nudenet:mace@0.6, lpips. "
        "Kinds: objects, styles, clip, distance, or a name of your own. May be repeated.",
    ),
]
Judges = Annotated[list[str] | None, typer.Option("--judge", hidden=True)]
Cache = Annotated[
    Path | None,
    typer.Option(envvar="UNSEE_CACHE", help="Folder where drawn pictures are kept; default: the user's cache."),
]
Batch = Annotated[int, typer.Option(min=1, help="Pictures drawn at once; fewer where memory is short.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Load and check, print the run's passes, time, memory and files, and stop."),
]
ForceBase = Annotated[
    bool, typer.Option("--force-base", help="Use the edit on a model that it was not made for; the outputs say so.")
]


def split(texts: list[str] | None) -> list[str]:
    """The words of texts that each list some, see spelling.listed."""
    return [word for text in filled(texts) for word in listed(text)]


def filled(texts: list[str] | None) -> list[str]:
    """Texts, with the lines of a file in place of "@FILE". Raises InputError for a file that cannot be read."""
    found = []
    for text in texts or ():
        if text.startswith("@"):
            try:
                text = ", ".join(Path(text[1:]).expanduser().read_text(encoding="utf-8-sig").splitlines())
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"cannot read words from {text[1:]}: {error}") from error
        elif text.endswith((".txt", ".csv")) and Path(text).is_file():
            raise InputError(f"{text} is a file: write @{text} to read its words, one on each line")
        found.append(text)
    return found


def pairs(texts: list[str] | None, option: str) -> dict[str, Any]:
    """key=value texts; a value is read as YAML reads it."""
    from unsee.io.settings_file import parse

    found: dict[str, Any] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{option} takes KEY=VALUE, got {text!r}")
        found[key.strip()] = parse(value, f"{option} {key}")
    return found


def note_renamed(old: str, new: str) -> None:
    """Say that a flag of an earlier version has another name."""
    print(f"note: {old} is now called {new}; the next version drops the old name", file=sys.stderr)


def given_detectors(detector: list[str] | None, judge: list[str] | None) -> dict[str, Any]:
    """Detectors by kind; --judge is what the option was called in earlier versions."""
    if judge:
        note_renamed("--judge", "--detector")
    return {**pairs(judge, "--judge"), **pairs(detector, "--detector")}


def cache_folder(given: Path | None) -> Path:
    """The folder of pictures."""
    from platformdirs import user_cache_path

    return given or user_cache_path("unsee") / "pictures"


SIMILAR = {"\u2248": "~", "\u2026": "...", "\u2013": "-", "\u2019": "'", "\u00d7": "x"}
"""Almost equal, an ellipsis, a dash, an apostrophe, times."""


def forgiving(stream: Any) -> None:
    """Let a stream write what its encoding lacks as what is most like it, "≈" as "~" and "â" as "a", or else as "?"."""
    codecs.register_error("unsee", _alike)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="unsee")


def _alike(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    wrong = error.object[error.start : error.end]
    base = (unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() for letter in wrong)
    return "".join(SIMILAR.get(letter) or like or "?" for letter, like in zip(wrong, base, strict=True)), error.end


def plain(text: str) -> str:
    """Without control characters: a card or a prompt may come from anywhere, and a terminal obeys them."""
    return "".join(character if character.isprintable() else "?" for character in text)


def brief(value: object, most: int = 160) -> str:
    """A value as text of at most so many characters."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shell(*words: str | Path) -> str:
    """A command of unsee as it can be typed into a shell."""
    return plain(shlex.join(["unsee", *map(str, words)]))


def seconds(text: str | None) -> float | None:
    """ "90", "90s", "1.5m" or "2h" in seconds."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError as error:
        raise InputError(f"--budget {text!r} is no time: write 90s, 5m or 1h") from error
