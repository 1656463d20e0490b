"""The command `sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.flags import typed
from unsee.cli.terminal import Cache, Debug, cache_folder, plain, shell
from unsee.errors import Ended
from unsee.progress import bars, starting
from unsee.spelling import counted

if TYPE_CHECKING:
    from unsee.report.sweep import Failed, Result


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="Models, concepts, methods, settings and seeds.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Cells at once; default: one for each GPU. More than 1 needs ray."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of a ray cluster, whose machines share the folder.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each cell, such as 0.5; default 1 where there are any.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default runs/SWEEP.")] = None,
    cache: Cache = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, say which are finished, and stop.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Erase, evaluate and attack a grid of models, concepts, methods and seeds. Finished cells are skipped."""
    with starting():
        from unsee.io.settings_file import read
        from unsee.report.sweep import words
        from unsee.runs.config import SweepConfig, build
        from unsee.runs.folder import folder_name
        from unsee.runs.grid import cells, said
        from unsee.runs.sweep import FILES, Workers, finished
        from unsee.runs.sweep import sweep as run

    config = build(read(file), SweepConfig)
    folder = out or Path("runs") / folder_name([file.stem])
    if dry_run:
        grid = cells(config)
        for cell in grid:
            print(plain(f"{'finished' if finished(folder, cell) else 'to do':<9} {words(said(cell))}"))
        print(f"{counted(len(grid), 'cell')}; next: {shell(*(word for word in sys.argv[1:] if word != '--dry-run'))}")
        return
    try:
        with bars() as progress:
            found, failed = run(
                config,
                folder,
                cache_folder(cache),
                workers=Workers(workers, address, gpus),
                title=f"Sweep: {file.stem}",
                command=shell(*sys.argv[1:]),
                progress=progress,
            )
    except KeyboardInterrupt as stop:
        raise Ended("stopped; the same command continues it: finished cells are kept", 130) from stop
    say(found, failed)
    for name in FILES:
        if (folder / name).is_file():
            print(f"  {folder / name}")
    if failed:
        raise Ended(f"{len(failed)} of {counted(len(found) + len(failed), 'cell')} failed; to try them again: "
                    f"{shell(*sys.argv[1:])}")  # fmt: skip


def say(found: list[Result], failed: list[Failed]) -> None:
    """Print the table, what failed, and the verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unsee.report.sweep import HEAD, cells, verdict, words

    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, head in enumerate(HEAD):
        table.add_column(head, justify="right" if k else "left", max_width=None if k else 48)
    for one in found:
        table.add_row(*(Text(plain(text)) for text in cells(one)))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    for lost in failed:
        print(plain(f"failed: {words(lost.said)}: {typed(lost.reason)}"))
    print(plain(verdict(found, failed)))
