"""The commands that measure. Nothing heavy is imported until one runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.allowed import GUARDS, installed
from unsee.cli.flags import typed
from unsee.cli.say import say_forecast
from unsee.cli.terminal import (
    Batch,
    Cache,
    Debug,
    Detectors,
    DryRun,
    Force,
    ForceBase,
    Guidance,
    Judges,
    Seed,
    Steps,
    Trust,
    Variant,
    cache_folder,
    filled,
    given_detectors,
    note_renamed,
    pairs,
    plain,
    shell,
    split,
)
from unsee.errors import Ended, InputError, unknown
from unsee.progress import bars, starting

if TYPE_CHECKING:
    from unsee.evaluate.records import Evaluation

Words = Annotated[
    list[str] | None, typer.Option(metavar="WORDS", help="What is erased; default: what the edits' cards name.")
]


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL-or-RUN", help="mini, a pipeline folder, a hub id, or the folder of a run of erase."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings to start from: a YAML file, or the evaluation.json of an evaluation.")
    ] = None,
    variant: Variant = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help=f"What to measure: {', '.join(installed('suites'))}. unsee help NAME explains one. May be repeated.",
            autocompletion=lambda: installed("suites"),
        ),
    ] = None,
    edit: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="An edit to measure. May be repeated."),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help=f"A guard to measure: {', '.join(GUARDS)}. May be repeated.",
            autocompletion=lambda: list(GUARDS),
        ),
    ] = None,
    concept: Words = None,
    csv: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Your own prompts: columns prompt, seed, label.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Other names of the concept, for the suite paraphrase.")
    ] = None,
    detector: Detectors = None,
    judge: Judges = None,
    words: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML or JSON of what the model draws: objects, styles, ...")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Your own pictures, for the suites fidelity and memorised."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--pictures", help="Pictures for each row of what is erased; default 48.")
    ] = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    call: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Another option of the pipeline's calls. May be repeated."),
    ] = None,
    batch: Batch = 32,
    cache: Cache = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default runs/evaluation-MODEL.")] = None,
    force: Force = False,
    force_base: ForceBase = False,
    dry_run: DryRun = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Measure a model, edits and guards. All are measured on the same prompts and seeds."""
    with starting():
        from unsee.io.settings_file import read
        from unsee.models.words import read_words
        from unsee.runs import evaluate as evaluation
        from unsee.runs.config import EvalConfig, build, renamed
        from unsee.runs.folder import RECORD, claimed, folder_name

    values = renamed(read(config)) if config else {}
    if wrong := next((key for key in values if key not in EvalConfig.model_fields), None):
        raise unknown("setting", str(wrong), EvalConfig.model_fields)
    given = {
        "model": model,
        "variant": variant,
        "suites": split(suite),
        "edits": edit,
        "guards": split(guard),
        "concepts": filled(concept),
        "tables": [str(path) for path in csv or ()],
        "names": split(name),
        "words": read_words(words) if words else None,
        "folder": str(pictures) if pictures else None,
        "force_base": force_base or None,
        "pictures": n,
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance,
        "trust_remote_code": trust_remote_code or None,
    }
    values |= {key: value for key, value in given.items() if value not in (None, [])}
    for key, more in (("detectors", given_detectors(detector, judge)), ("call", pairs(call, "--call"))):
        values[key] = {**(values.get(key) or {}), **more}
    if not values.get("model"):
        raise InputError("name a model, or the folder of a run, such as: unsee evaluate runs/church --suite summary")
    complete = build(values, EvalConfig)
    folder = out or Path("runs") / folder_name(["evaluation", Path(complete.model).name])
    failed: list[str] = []
    with claimed(folder, force=force, results=["evaluation.json"]) as start_over:
        bench = evaluation.prepare(complete)
        if dry_run:
            from unsee.runs.forecast import of_evaluate

            say_forecast(of_evaluate(bench, folder, cache_folder(cache), batch))
            return
        start_over()
        command = shlex.join(["unsee", *sys.argv[1:]])
        with _again(), bars() as progress:
            found = evaluation.evaluate(
                bench, folder, cache_folder(cache), command=command, batch=batch, progress=progress, warn=failed.append
            )
    if json:
        print(dumps(loads(found.to_json()), indent=1))  # in ASCII: it loses nothing to a terminal's encoding
    else:
        say(found)
        print()
        for file in evaluation.FILES:
            if (folder / file).is_file():
                print(f"  {folder / file}")
    _whole(failed, folder)
    if all(suite.not_measured for suite in found.suites):
        why = "; ".join(f"{one.name}: {typed(one.not_measured or '')}" for one in found.suites)
        raise Ended(f"nothing was measured: {why}; to repeat it, add --force")
    if bench.config.edits and not json:
        place = evaluation.named_file(bench.config.edits[0])[1]
        run = (Path(complete.model) / RECORD).is_file()
        print(f"next: {shell('attack', *([complete.model] if run else [place, '--model', complete.model]))}")


@contextmanager
def _again() -> Iterator[None]:
    """Within the context Ctrl-C says how to continue."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Ended("stopped; the same command continues it: drawn pictures are kept", 130) from stop


def _whole(failed: list[str], folder: Path) -> None:
    """Say what could not be made, and exit with 1."""
    if failed:
        raise Ended(f"{'; '.join(failed)}; everything else is in {folder}")


def reproduce(
    experiment: Annotated[str, typer.Argument(help="objects (Table 2), styles (Sec. 5.1) or nudity (Fig. 7).")],
    model: Annotated[str, typer.Option(help="A hub id or folder.")] = "CompVis/stable-diffusion-v1-4",
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="Pictures for each class (default 500) or artist (default 40).")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only this class or artist. May be repeated.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting that replaces the paper's. May be repeated."),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help="A classifier of ImageNet's classes; for styles a CLIP model; for nudity nudenet:PROTOCOL."),
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", hidden=True)] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prompts of I2P (i2p_benchmark.csv), for nudity.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Sampler steps of the pictures.")] = 50,
    guidance: Annotated[float, typer.Option(help="Guidance scale of the pictures, 1 is none.")] = 7.5,
    cache: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default runs/reproduce-EXPERIMENT.")] = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Repeat an experiment of the ESD paper. Prints its figures next to the measured ones. Takes hours on a GPU."""
    with starting():
        from unsee.runs.folder import claimed, folder_name
        from unsee.runs.reproduce import Experiment
        from unsee.runs.reproduce import reproduce as run

    if judge:
        note_renamed("--judge", "--detector")
    folder = out or Path("runs") / folder_name(["reproduce", experiment])
    failed: list[str] = []
    with claimed(folder, force=force, results=["evaluation.json"]), _again(), bars() as progress:
        found = run(
            Experiment(
                experiment,
                model,
                only or (),
                pairs(settings, "--set"),
                detector or judge,
                csv,
                n,
                steps,
                guidance,
            ),
            folder,
            cache_folder(cache),
            command=shlex.join(["unsee", *sys.argv[1:]]),
            progress=progress,
            warn=failed.append,
        )
    paper, here = found.units
    print(f"{'':<32} {'claimed, ' + paper:>26} {'measured, ' + here:>26}      n")
    for line in found.lines:
        texts = [f"{pair[0]:.3g} -> {pair[1]:.3g}" if pair else "" for pair in (line.claimed, line.measured)]
        print(f"{line.what:<32} {texts[0]:>26} {texts[1]:>26} {line.n:>6}")
    for warning in found.warnings:
        print(warning)
    print(f"  {folder / 'index.html'}")
    _whole(failed, folder)


def say(found: Evaluation) -> None:
    """Print an evaluation's tables and verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unsee.report.tables import idle, tables, verdict

    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables(found):
        console.print(Text(f"\n{table.suite}", style="bold").append(plain(f"  {table.about}"), style="not bold dim"))
        if table.not_measured:
            console.print(Text(plain(f"not measured: {typed(table.not_measured)}")))
            continue
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for k, head in enumerate(table.head):
            shown.add_column(plain(head), justify="right" if k else "left", max_width=None if k else 40)
        for row, removed in zip(table.rows, table.removed, strict=True):
            shown.add_row(*(Text(plain(text), style="bold" if mark else "") for text, mark in zip(row, removed)))
        console.print(shown)
        for note in table.notes:
            console.print(Text(plain(typed(note))))
    print()
    for sentence in verdict(found) + idle(found):
        print(plain(sentence))
    if found.measured:
        print("≈ not distinguishable from the base on the same prompts and seeds")
