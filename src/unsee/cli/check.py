"""The command `check`. Nothing heavy is imported until it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.terminal import (
    Batch,
    Debug,
    Detectors,
    Guidance,
    Seed,
    Steps,
    Trust,
    Variant,
    filled,
    pairs,
    plain,
)
from unsee.errors import Ended
from unsee.progress import bars, starting

if TYPE_CHECKING:
    from unsee.evaluate.checked import Checked


def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL-or-RUN", help="mini, a pipeline folder, a hub id, or the folder of a run of erase."
        ),
    ],
    absent: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="What must not be drawn. May be repeated.")
    ] = None,
    present: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="What must still be drawn. May be repeated.")
    ] = None,
    at_most: Annotated[
        float, typer.Option(help="Limit for absent words: the 95 % Wilson interval must end at or below it.")
    ] = 0.1,
    at_least: Annotated[
        float, typer.Option(help="Limit for present words: the 95 % Wilson interval must begin at or above it.")
    ] = 0.7,
    edit: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An edit to put on the model. May be repeated.")
    ] = None,
    variant: Variant = None,
    detector: Detectors = None,
    n: Annotated[int, typer.Option("-n", "--pictures", help="Pictures for each word.")] = 48,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    batch: Batch = 32,
    json: Annotated[bool, typer.Option("--json", help="Print the record instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; default runs/check-MODEL.json.")] = None,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Check that a model no longer draws some words, and still draws others. Exit code: 0 yes, 1 no, 2 bad input.

    Each word's plain prompt is drawn -n times. With 48 pictures an absent word may be seen in none of them, and a
    present word must be seen in 40. unsee attack searches for other prompts that bring a word back.
    """
    with starting():
        from unsee.io.atomic import write_whole
        from unsee.runs.check import check as checked
        from unsee.runs.check import rule
        from unsee.runs.folder import folder_name
        from unsee.spelling import listed

    words = {
        name: tuple(word for text in filled(some) for word in listed(text) or [text])
        for name, some in {"absent": absent, "present": present}.items()
    }
    asked = rule(**words, at_most=at_most, at_least=at_least, n=n, seed=seed or 0, steps=steps, guidance_scale=guidance)
    options = {"variant": variant, "trust_remote_code": trust_remote_code}
    with bars() as progress:
        found = checked(
            model,
            asked,
            edits=edit or (),
            detectors=pairs(detector, "--detector"),
            command=shlex.join(["unsee", *sys.argv[1:]]),
            batch=batch,
            progress=progress,
            **{key: value for key, value in options.items() if value},
        )
    file = out or Path("runs") / f"{folder_name(['check', Path(model).name])}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda path: path.write_text(found.to_json(), encoding="utf-8"))
    if json:
        print(found.to_json())
    else:
        say(found)
        print(f"  {file}")
    if not found.passed:
        raise Ended("; ".join(f"{one.word} is not {one.wanted}" for one in found.words if not one.holds))


def say(found: Checked) -> None:
    """Print each word with its interval, its limit, and whether it holds."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("word", "wanted", "prompt", "seen", "95 % interval", "limit", ""):
        table.add_column(head, justify="right" if head in ("seen", "95 % interval", "limit") else "left")
    for one in found.words:
        low, high = 100 * one.score.low, 100 * one.score.high
        limit = f"{'<=' if one.wanted == 'absent' else '>='} {100 * one.limit:g} %"
        seen, interval = f"{100 * one.score.value:.1f} %", f"{low:.1f} to {high:.1f} %"
        cells = (one.word, one.wanted, one.prompt, seen, interval, limit, "holds" if one.holds else "fails")
        table.add_row(*(Text(plain(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"n = {found.n} pictures for each word; {'every word holds' if found.passed else 'not every word holds'}")
