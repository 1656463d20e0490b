"""The command `erase`."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee.cli.allowed import PRESETS, SELECTIONS, default, installed, known_method
from unsee.cli.say import say_forecast, say_plan, say_report
from unsee.cli.terminal import (
    Batch,
    Cache,
    Call,
    Debug,
    Detectors,
    DryRun,
    Force,
    Judges,
    Seed,
    Steps,
    Trust,
    Variant,
    cache_folder,
    given_detectors,
    note_renamed,
    pairs,
    seconds,
    shell,
    split,
)
from unsee.edits.earlier import RENAMED
from unsee.errors import Ended, InputError, unknown
from unsee.progress import bars, starting
from unsee.runs.config import RunConfig

if TYPE_CHECKING:
    from unsee.concepts import Concept

DEFAULT = RunConfig.model_fields
Model = Annotated[
    str | None,
    typer.Option(
        help="mini (the default), a pipeline folder, a hub id (ID@REVISION), or FILE@LAYOUT; +FILE adds a LoRA."
    ),
]


def erase(
    context: typer.Context,
    concepts: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONCEPT...", help="What to erase: church castle, or 'church, castle', or @FILE."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--concepts", help="File: a concept on each line, or CSV (erase, anchor, keep, synonyms, from)."),
    ] = None,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="WORD", help="Erase only from this: 'hat' from 'cowboy'.")
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="What the model draws in place of the concept; default: nothing named."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="What must stay: 'castle, house'. May be repeated.")
    ] = None,
    keep_file: Annotated[Path | None, typer.Option(help="What must stay, a word on each line of a file.")] = None,
    synonym: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Other names of the concept, erased too: 'chapel, churches'."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="File of the memorised image whose title is the concept.")] = None,
    model: Model = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit or branch of the model on the hub; default: the newest.")
    ] = None,
    variant: Variant = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Method: {', '.join(installed('methods'))}; default balance for names (uce for up "
            "to ten in FLUX, SD 3 and the like), hybrid for all else. unsee help NAME explains one.",
            autocompletion=lambda: installed("methods"),
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Settings by kind of concept: {', '.join(PRESETS)}; default object, or style for "
            "names that the model's card lists as styles. paper: esd, gem, oce, speed, stereo, uce; leco: lora.",
            autocompletion=lambda: list(PRESETS),
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help=f"Weights that change: {', '.join(SELECTIONS)}, or a pattern of their names; "
            f"default {default('select')}.",
            autocompletion=lambda: list(SELECTIONS),
        ),
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help=f"How far to steer away from the concept; default {default('eta')}.")
    ] = None,
    updates: Annotated[
        int | None,
        typer.Option(help="Number of updates; default 12 (hybrid, lora; 140 without a closed form), 60 (esd)."),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default: each update moves a layer's output by a fixed share.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time limit for the updates, such as 60s or 5m; default none.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another setting of the method; unsee help METHOD lists them. May be repeated.",
        ),
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Choose the scale that removes and keeps most.")] = False,
    seed: Seed = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            "-n", "--pictures", min=2, help="Pictures for each row of the result; default 48, or 8 without a detector."
        ),
    ] = None,
    steps: Steps = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            help="Guidance scale of the pictures, 1 is none; default: that of the model's card, or 7.5. "
            "For recorded runs: --set record_guidance=3.",
        ),
    ] = None,
    call: Call = None,
    detector: Detectors = None,
    judge: Judges = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings to start from: a YAML file, or the run.json of a run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default runs/CONCEPT.")] = None,
    force: Force = False,
    resume: Annotated[Path | None, typer.Option(help="Folder of an interrupted run to continue.")] = None,
    save_every: Annotated[
        float, typer.Option(min=0, help="Seconds between two saved states, from which --resume continues.")
    ] = 60.0,
    checkpoint: Annotated[float | None, typer.Option("--checkpoint", min=0, hidden=True)] = None,
    batch: Batch = 32,
    cache: Cache = None,
    dry_run: DryRun = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Erase concepts from a model. Writes the edit, and measures it: numbers, pictures, an HTML page."""
    from unsee.io.settings_file import read
    from unsee.runs.config import build, renamed

    typed = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    others = typed - (with_resume := {"resume", "save_every", "checkpoint", "batch", "cache", "debug"})
    if resume and others:
        beside = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(with_resume - {"resume", "checkpoint"}))
        raise InputError(f"--resume keeps the settings of its run: it takes only {beside}")
    if checkpoint is not None:
        note_renamed("--checkpoint", "--save-every")
        save_every = checkpoint
    source = resume / "run.json" if resume else config
    values: dict[str, Any] = renamed(read(source)) if source else {}
    if settings and (one := next((word for word in concepts or () if re.match(r"[a-z_]+=", word)), None)):
        raise InputError(f"{one!r} is a setting, not a concept: each setting needs its own --set, as in --set {one}")
    if wrong := next((key for key in values if key not in DEFAULT), None):
        raise unknown("setting", str(wrong), DEFAULT)
    if concepts or file:
        place, part = _once("--anchor", anchor), _once("--from", from_)
        stay = [*split(keep), *_words(keep_file)]
        values["concepts"] = _concepts(concepts or [], file, part, place, stay, synonym, image)
    elif from_ or anchor or keep or keep_file or synonym or image or not values.get("concepts"):
        raise InputError("name what to erase, such as: unsee erase church")
    direct = {"select": select, "eta": eta, "updates": updates, "lr": lr, "budget": seconds(budget)}
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
        "method": known_method(method),
        "auto": auto or None,
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
        say_plan(plan, folder)
        if dry_run:
            from unsee.runs.forecast import of_erase

            say_forecast(of_erase(plan, folder, cache_folder(cache), batch))
            return
        start_over()
        command = shlex.join(["unsee", *sys.argv[1:]])
        how: dict[str, Any] = {"every": save_every, "batch": batch, "warn": failed.append}
        try:
            with bars() as progress:
                report = runs.erase(plan, folder, cache_folder(cache), command=command, progress=progress, **how)
        except KeyboardInterrupt as stop:
            raise Ended(f"stopped; to continue: {shell('erase', '--resume', folder)}", 130) from stop
    say_report(report, plan)
    if failed:
        raise Ended(f"{'; '.join(failed)}; everything else is in {folder}")


def _words(file: Path | None) -> list[str]:
    """The words of --keep-file."""
    from unsee.concepts import read_keep

    return read_keep(file) if file else []


def _concepts(
    words: list[str],
    file: Path | None,
    from_: str | None,
    anchor: str | None,
    keep: list[str],
    synonyms: list[str] | None,
    image: Path | None,
) -> list[Concept]:
    """What must go: words, "@FILE" and --concepts, with the options that are for each of them."""
    from unsee.concepts import Concept, read_concepts

    files = [Path(word[1:]).expanduser() for word in words if word.startswith("@")] + ([file] if file else [])
    plain = [word for word in words if not word.startswith("@")]
    plain = split(plain) or plain  # nothing in a list is an empty concept, of which Concept says so
    found = [*map(Concept, plain), *(concept for path in files for concept in read_concepts(path))]
    if (synonyms or image) and len(found) > 1:
        columns = "a --concepts file gives each concept its synonyms, a --config file its image too"
        raise InputError(f"--synonym and --image belong to one concept: {columns}")
    own: dict[str, Any] = {}
    if len(found) == 1:
        own = {"synonyms": (*found[0].synonyms, *split(synonyms)), "image": str(image) if image else None}
    return [
        replace(
            concept,
            from_=concept.from_ or from_,
            anchor=concept.anchor or anchor,
            keep=tuple(dict.fromkeys([*concept.keep, *keep])),
            **own,
        )
        for concept in found
    ]


def _once(option: str, words: list[str] | None) -> str | None:
    """The word of an option that is for all concepts alike."""
    if words and len(words) > 1:
        file = "a file of --concepts can give each concept its own"
        raise InputError(f"{option} is given {len(words)} times, but holds for all concepts: {file}")
    return words[0] if words else None


def _mapping(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key) or {}
    if not isinstance(found, dict):
        raise InputError(f"{key} should map names to values, got {found!r}")
    return found
