"""The command `erase`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.cli.allowed import PRESETS, SELECTIONS, default, installed
from unsee.cli.terminal import (
    Batch,
    Cache,
    Call,
    Debug,
    Detectors,
    Force,
    Judges,
    Seed,
    Steps,
    Trust,
    Variant,
    cache_folder,
    given_detectors,
    pairs,
    plain,
    shell,
    split,
)
from unsee.errors import Ended, InputError, unknown
from unsee.progress import bars, starting
from unsee.runs.config import RENAMED, RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unsee.concepts import Concept
    from unsee.runs.erase import Plan, Report

DEFAULT = RunConfig.model_fields
Model = Annotated[
    str | None,
    typer.Option(help="mini, a pipeline folder, a hub id (ID@REVISION), or FILE@LAYOUT; +FILE puts a LoRA on top."),
]


def erase(
    context: typer.Context,
    concepts: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONCEPT...", help="What must go: church castle, or 'church, castle', or @FILE."),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Erase it from this only: 'hat' from 'cowboy'.")] = None,
    anchor: Annotated[str | None, typer.Option(help="What takes its place.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="What must stay, beside neutral prompts: 'castle, house'.")
    ] = None,
    synonym: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Other names of the concept: 'chapel, churches'.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="The memorised picture that it names.")] = None,
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the model on the hub.")] = None,
    variant: Variant = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How to erase: {', '.join(installed('methods'))}; default {DEFAULT['method'].default}.",
            autocompletion=lambda: installed("methods"),
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Settings for a kind of concept: {', '.join(PRESETS)}; default object. paper: esd, uce; leco: lora.",
            autocompletion=lambda: list(PRESETS),
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help=f"Which weights change: {', '.join(SELECTIONS)}, or a pattern of their names; "
            f"default {default('select')}.",
            autocompletion=lambda: list(SELECTIONS),
        ),
    ] = None,
    eta: Annotated[float | None, typer.Option(help=f"How far to steer away; default {default('eta')}.")] = None,
    updates: Annotated[
        int | None, typer.Option(help="Updates of the weights; default 12 or 140, by their start.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default by each layer's width.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for the updates, such as 60s or 5m; default no limit.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of the method; unsee help hybrid lists them. May be repeated.",
        ),
    ] = None,
    seed: Seed = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "-n", "--pictures", min=2, help="Pictures for each row of the result; default 48, 8 without a detector."
        ),
    ] = None,
    steps: Steps = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance", help="Guidance scale of the pictures; 1 is none. Of recorded runs: --set guidance_scale=3."
        ),
    ] = None,
    call: Call = None,
    detector: Detectors = None,
    judge: Judges = None,
    config: Annotated[Path | None, typer.Option(help="YAML, or the run.json of a run, to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default runs/CONCEPT.")] = None,
    force: Force = False,
    resume: Annotated[Path | None, typer.Option(help="Folder of an interrupted run to go on with.")] = None,
    checkpoint: Annotated[float, typer.Option(min=0, help="Seconds between two states that are kept.")] = 60.0,
    batch: Batch = 32,
    cache: Cache = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only load, check, and say what would be done and the memory it takes.")
    ] = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Erase concepts from a model, measure it, and write an edit, pictures and a page."""
    from unsee.io.settings_file import read
    from unsee.runs.config import build, renamed

    typed = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    others = typed - (with_resume := {"resume", "checkpoint", "batch", "cache", "debug"})
    if resume and others:
        beside = ", ".join(f"--{name}" for name in sorted(with_resume - {"resume"}))
        raise InputError(f"--resume goes on with a run as it was started: beside it there are {beside}")
    source = resume / "run.json" if resume else config
    values: dict[str, Any] = renamed(read(source)) if source else {}
    if settings and (one := next((word for word in concepts or () if re.match(r"[a-z_]+=", word)), None)):
        raise InputError(f"{one!r} is no concept but a setting; each needs a --set of its own: --set {one}")
    if wrong := next((key for key in values if key not in DEFAULT), None):
        raise unknown("setting", str(wrong), DEFAULT)
    if concepts:
        values["concepts"] = _concepts(concepts, from_, anchor, keep, synonym, image)
    elif from_ or anchor or keep or synonym or image or not values.get("concepts"):
        raise InputError("name what to erase, such as: unsee erase church")
    direct = {"select": select, "eta": eta, "updates": updates, "lr": lr, "budget": _seconds(budget)}
    by_set = pairs(settings, "--set")
    options = set(context.params) - {*direct, "steps", "guidance_scale", "batch"}
    if wrong := next((key for key in by_set if key in options), None):
        raise InputError(f"{wrong!r} is no setting of a method: give it as --{wrong} {by_set[wrong]}")
    chosen = {**by_set, **{key: value for key, value in direct.items() if value is not None}}
    values["settings"] = {**_mapping(values, "settings"), **chosen}
    values["call"] = {**_mapping(values, "call"), **pairs(call, "--call")}
    values["detectors"] = {**_mapping(values, "detectors"), **given_detectors(detector, judge)}
    given = {
        "model": model,
        "revision": revision,
        "variant": variant,
        "method": method,
        "seed": seed,
        "pictures": pictures,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "trust_remote_code": trust_remote_code or None,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    if preset == "paper" and "method" not in values:
        values["method"] = "esd"
    complete = build(values)
    for old in sorted(RENAMED.keys() & chosen.keys() - complete.settings.keys()):
        print(f"note     the setting {old} is now called {RENAMED[old]}", file=sys.stderr)

    with starting():
        from unsee.runs import erase as runs
        from unsee.runs.folder import claimed, folder_name

    names = [concept.erase for concept in complete.concepts]
    names = names if len(names) <= 8 else [*names[:2], f"and {len(names) - 2} more"]
    folder = resume or out or Path("runs") / folder_name(names)
    failed: list[str] = []
    with claimed(folder, resume=resume is not None, force=force) as start_over:
        plan = runs.plan(complete, preset)
        if dry_run:
            _say_plan(plan, folder)
            print(f"{'memory':<8} {runs.expected_memory(plan)}")
            print(f"next: {shell(*(word for word in sys.argv[1:] if word != '--dry-run'))}")
            return
        start_over()
        _say_plan(plan, folder)
        command = shlex.join(["unsee", *sys.argv[1:]])
        how: dict[str, Any] = {"every": checkpoint, "batch": batch, "warn": failed.append}
        try:
            with bars() as watch:
                report = runs.erase(plan, folder, cache_folder(cache), command=command, watch=watch, **how)
        except KeyboardInterrupt as stop:
            raise Ended(f"stopped; this goes on with it: {shell('erase', '--resume', folder)}", 130) from stop
    _say_report(report, plan)
    if failed:
        raise Ended(f"{'; '.join(failed)}; all else is in {folder}")


def _concepts(
    words: list[str],
    from_: str | None,
    anchor: str | None,
    keep: list[str] | None,
    synonyms: list[str] | None,
    image: Path | None,
) -> list[dict[str, Any]]:
    words = split(words) or words  # nothing in a list is an empty concept, of which Concept says so
    if (synonyms or image) and len(words) > 1:
        raise InputError("--synonym and --image are of one concept; erase several concepts with a --config file")
    common = {"from_": from_, "anchor": anchor, "keep": split(keep)}
    one = {"synonyms": split(synonyms), "image": str(image) if image else None}
    return [{"erase": word, **one, **common} for word in words]


def _seconds(text: str | None) -> float | None:
    """ "90", "90s", "1.5m" or "2h" in seconds."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError as error:
        raise InputError(f"--budget {text!r} is no time: write 90s, 5m or 1h") from error


def _mapping(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key) or {}
    if not isinstance(found, dict):
        raise InputError(f"{key} should map names to values, got {found!r}")
    return found


def _say_plan(plan: Plan, folder: Path) -> None:
    from unsee.models.borrow import left_out
    from unsee.models.model import kind

    config, (trained, of) = plan.config, plan.trained
    shown = {k: "auto" if v is None else v for k, v in config.settings.items() if not isinstance(v, list | tuple)}
    lines = {
        "erase": _several(config.concepts),
        "model": f"{plan.model.name}, {kind(plan.model).__name__} on {plan.model.device}"
        + (f", variant {config.variant}" if config.variant else ""),
        "method": f"{config.method}: " + ", ".join(f"{key} {value}" for key, value in shown.items()),
        "changes": f"{trained:,} of {of:,} parameters ({100 * trained / of:.1f} %)",
        "pictures": f"{config.pictures} a row, {config.steps} steps, guidance scale {config.guidance_scale:g}",
        "seed": config.seed,
        **({"calls": ", ".join(f"{key} {value}" for key, value in config.call.items())} if config.call else {}),
        **({"without": " and ".join(gone) + ", which would change pictures"} if (gone := left_out(plan.model)) else {}),
        "writes": f"{folder}/",
    }
    for key, value in lines.items():
        print(f"{key:<8} {plain(str(value))}")
    for note in plan.notes:
        print(f"{'note':<8} {plain(note)}")


def _say_report(report: Report, plan: Plan) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unsee.report.before_after import HEADER, cells, notes

    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, head in enumerate(HEADER):
        table.add_column(head, justify="right" if k else "left", max_width=None if k else 44)
    for row in report.rows:
        table.add_row(*(Text(plain(cell)) for cell in cells(row)), style="bold" if row.removed else "")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(table)
    print("difference in per cent of pictures, ≈ if chance explains it; picture change in grey levels of 255")
    for note in notes(report.rows):
        print(plain(note))
    if not plan.detectors:
        few = f"no detector was given, so nothing was counted, and {plan.config.pictures} pictures a row were drawn"
        print(f"{few}: --detector objects=FOLDER names an image classifier, -n 48 draws more")
    seconds, peak = report.record["seconds"], report.record["peak_memory_bytes"]
    print("\n" + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()), end="")
    print(f", peak memory {peak / 1e9:.2f} GB" if peak else "")
    for name in ("index.html", "before-after.png", "edit.safetensors", "run.json"):
        if (report.folder / name).is_file():
            print(f"  {report.folder / name}")
    print(f"next: {_next(report, plan)}")


def _next(report: Report, plan: Plan) -> str:
    """The command that draws with the edit, as it can be typed."""
    from unsee.evaluate.words import article
    from unsee.runs.folder import EDIT

    config, base = plan.config, report.edit.card.base
    word = config.concepts[0].from_ or config.concepts[0].erase
    way = next((way for way in config.settings.get("templates", ()) if way != "{}"), "{}")
    prompt = way.replace("a {}", article(word)) if "a {}" in way else way.format(word)
    named = config.model == "mini" or base.startswith(f"{config.model}@")  # a hub id, at the commit of the run
    words = ["generate", prompt, "--edit", report.folder / EDIT, *([] if named else ["--model", config.model])]
    words += ["--variant", config.variant] if config.variant else []
    return shell(*words, *(["--trust-remote-code"] if config.trust_remote_code else []))


def _several(concepts: Sequence[Concept], most: int = 8) -> str:
    """Some concepts in a line: of many the first ones, and how many more there are."""
    more = f"; and {len(concepts) - most} more" if len(concepts) > most else ""
    return "; ".join(map(_describe, concepts[:most])) + more


def _describe(concept: Concept) -> str:
    text = concept.erase
    for key, word in (("from", concept.from_), ("anchor", concept.anchor)):
        text += f", {key} {word}" if word else ""
    for key, words in (("also", concept.synonyms), ("keep", concept.keep)):
        text += f", {key} {' / '.join(words)}" if words else ""
    return text
