"""The command that attacks. Nothing heavy is imported until it runs."""

from __future__ import annotations

import shlex
import sys
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.allowed import installed
from unsee.cli.say import say_forecast
from unsee.cli.terminal import (
    Batch,
    Debug,
    Detectors,
    DryRun,
    Force,
    Guidance,
    Seed,
    Steps,
    Trust,
    Variant,
    pairs,
    plain,
    shell,
    split,
)
from unsee.errors import Ended
from unsee.progress import bars, starting

if TYPE_CHECKING:
    from unsee.evaluate.attacked import Attacked


def attack(
    place: Annotated[str, typer.Argument(metavar="RUN-or-EDIT", help="The folder of a run of erase, or an edit.")],
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAMES",
            help=f"Which attacks; default all: {', '.join(installed('attacks'))}. May be repeated.",
            autocompletion=lambda: installed("attacks"),
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="small: 240 denoiser passes a search, 1 attack seed. full: 1,200 passes, 3 seeds.")
    ] = "small",
    twin: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A model trained without the concept, as a control; or its name in the folder twins."
        ),
    ] = None,
    concept: Annotated[str | None, typer.Option(help="What to bring back; default: what the edit erases.")] = None,
    model: Annotated[str | None, typer.Option(help="The edit's model; default: the one that its card names.")] = None,
    variant: Variant = None,
    detector: Detectors = None,
    n: Annotated[int, typer.Option("-n", "--pictures", min=2, help="Pictures for each row.")] = 24,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    batch: Batch = 32,
    report: Annotated[
        bool,
        typer.Option("--report", help="Also write a publisher's report: report.md for a model card, and report.json."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print attack.json instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default runs/attack-EDIT.")] = None,
    force: Force = False,
    dry_run: DryRun = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Try to bring an erased concept back, and compare with controls. For models that you are entitled to test."""
    with starting():
        from unsee.runs import attack as attacking
        from unsee.runs.folder import claimed, edit_name, folder_name
        from unsee.runs.siege import prepare

    folder = out or Path("runs") / folder_name(["attack", edit_name(Path(place))])
    with claimed(folder, force=force, results=[attacking.RECORD]) as start_over:
        siege = prepare(
            place,
            names=split(name),
            concept=concept,
            model=model,
            twin=twin,
            detectors=pairs(detector, "--detector"),
            variant=variant,
            n=n,
            seed=seed,
            steps=steps,
            guidance_scale=guidance,
            budget=budget,
            trust_remote_code=trust_remote_code,
        )
        if dry_run:
            from unsee.runs.forecast import of_attack

            say_forecast(of_attack(siege, folder, batch))
            return
        start_over()
        with bars() as progress:
            found = attacking.attack(
                siege,
                folder,
                command=shlex.join(["unsee", *sys.argv[1:]]),
                batch=batch,
                report=report,
                progress=progress,
            )
    if json:
        print(dumps(loads(found.to_json()), indent=1))
    else:
        say(found)
        for file in (*attacking.FILES, *(attacking.FILED if report else ())):
            print(f"  {folder / file}")
    if not found.rows:
        why = "; ".join(f"{one.name}: {one.refused}" for one in found.attacks)
        raise Ended(f"nothing was attacked: {why}; to repeat it, add --force")
    if not json:
        own = [place] if Path(place).is_dir() else [model or siege.edit.card.base, "--edit", place]
        check = shell("check", *own, "--absent", found.concept)
        print(f"next: {check}, whose exit code says whether it is gone by name")


def say(found: Attacked) -> None:
    """Print the attacks beside their controls, and which axis is weakest."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unsee.report.attacks import columns, heat, verdict
    from unsee.runs.attack import NOTICE

    console, shown = Console(width=None if sys.stdout.isatty() else 160), columns(found)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, head in enumerate(("axis", "attack", "", *shown)):
        table.add_column(head, justify="right" if k > 2 else "left", max_width=44)
    for axis, name, row, cells, _ in heat(found):
        table.add_row(*(Text(plain(text)) for text in (axis, name, row, *(cell.text for cell in cells))))
    console.print(NOTICE)
    console.print(table)
    print()
    for sentence in verdict(found):
        print(plain(sentence))
    for one in found.not_tested:
        print(plain(f"not tested: {one}"))
