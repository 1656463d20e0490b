"""The command line. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unsee import cli_files
from unsee.allowed import PRESETS, SELECTIONS, default, installed
from unsee.cli_evaluate import evaluate, reproduce
from unsee.config import RunConfig
from unsee.errors import Ended, InputError, Unsupported, unknown
from unsee.progress import bars, speaks, starting
from unsee.spelling import counted
from unsee.terminal import (
    Batch,
    Call,
    Debug,
    Force,
    ForceBase,
    Guidance,
    Seed,
    Steps,
    Trust,
    Variant,
    forgiving,
    pairs,
    plain,
    shell,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unsee.api import Plan, Report
    from unsee.card import Card
    from unsee.concepts import Concept

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="unsee help NAME explains a command, a method or a suite, such as: unsee help erase",
)


def _version(wanted: bool) -> None:
    if wanted:
        import unsee

        print(f"unsee {unsee.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _unsee(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take a concept out of a text-to-image diffusion model, with the evidence that it is gone."""
    if context.invoked_subcommand is None:
        print(context.get_help())


DEFAULT = RunConfig.model_fields
Model = Annotated[
    str | None,
    typer.Option(help="mini, a pipeline folder, a hub id (ID@REVISION), or FILE@LAYOUT; +FILE puts a LoRA on top."),
]


@app.command()
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
            help=f"Settings for a kind of concept: {', '.join(PRESETS)}; default object. uce has paper only.",
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
            "--set", metavar="KEY=VALUE", help="Any setting of the method; unsee help esd lists them. May be repeated."
        ),
    ] = None,
    seed: Seed = None,
    pictures: Annotated[
        int | None,
        typer.Option("-n", "--pictures", min=2, help="Pictures for each row of the result; 48, or 8 without a judge."),
    ] = None,
    steps: Steps = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance", help="Guidance scale of the pictures; 1 is none. Of recorded runs: --set guidance_scale=3."
        ),
    ] = None,
    call: Call = None,
    judge: Annotated[
        list[str] | None, typer.Option(metavar="KIND=FOLDER", help="A classifier: objects=, styles=.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML, or the run.json of a run, to start from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default runs/CONCEPT.")] = None,
    force: Force = False,
    resume: Annotated[Path | None, typer.Option(help="Folder of an interrupted run to go on with.")] = None,
    checkpoint: Annotated[float, typer.Option(min=0, help="Seconds between two states that are kept.")] = 60.0,
    batch: Batch = 32,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only load, check, and say what would be done and the memory it takes.")
    ] = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Erase concepts from a model, measure it, and write an edit, pictures and a page."""
    from unsee.config import build, read

    typed = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    others = typed - (with_resume := {"resume", "checkpoint", "batch", "debug"})
    if resume and others:
        beside = ", ".join(f"--{name}" for name in sorted(with_resume - {"resume"}))
        raise InputError(f"--resume goes on with a run as it was started: beside it there are {beside}")
    source = resume / "run.json" if resume else config
    values: dict[str, Any] = read(source) if source else {}
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
    values["judges"] = {**_mapping(values, "judges"), **pairs(judge, "--judge")}
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
    complete = build(values)

    with starting():
        from unsee import api

    names = [concept.erase for concept in complete.concepts]
    names = names if len(names) <= 8 else [*names[:2], f"and {len(names) - 2} more"]
    folder = resume or out or Path("runs") / api.folder_name(names)
    failed: list[str] = []
    with api.claimed(folder, resume=resume is not None, force=force) as start_over:
        plan = api.plan(complete, preset)
        if dry_run:
            _say_plan(plan, folder)
            print(f"{'memory':<8} {api.expected_memory(plan)}")
            print(f"next: {shell(*(word for word in sys.argv[1:] if word != '--dry-run'))}")
            return
        start_over()
        _say_plan(plan, folder)
        command = shlex.join(["unsee", *sys.argv[1:]])
        how: dict[str, Any] = {"every": checkpoint, "batch": batch, "warn": failed.append}
        try:
            with bars() as watch:
                report = api.erase(plan, folder, command=command, watch=watch, **how)
        except KeyboardInterrupt as stop:
            raise Ended(f"stopped; this goes on with it: {shell('erase', '--resume', folder)}", 130) from stop
    _say_report(report, plan)
    if failed:
        raise Ended(f"{'; '.join(failed)}; all else is in {folder}")


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="What to draw.")],
    edit: Annotated[Path, typer.Option(help="An edit's file.")],
    scale: Annotated[float, typer.Option(help="How much of the edit; 0 is the base model.")] = 1.0,
    n: Annotated[int, typer.Option("-n", min=1, help="Pictures of each prompt.")] = 4,
    seed: Seed = 0,
    model: Model = None,
    variant: Variant = None,
    steps: Steps = None,
    guidance: Guidance = None,
    call: Call = None,
    batch: Batch = 32,
    out: Annotated[Path | None, typer.Option(help="Picture to write; default beside the edit.")] = None,
    force_base: ForceBase = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Draw prompts with a model and with its edit, side by side on the same seeds."""
    import math

    with starting():
        from unsee import api
        from unsee.edit import Edit
        from unsee.evaluate.render import Shot, render_pair
        from unsee.pipelines import calling, check_prompts, load
        from unsee.report.grid import paths, sheets

    if not math.isfinite(scale):
        raise InputError(f"--scale is {scale}; it must be a finite number")
    if out and out.suffix.lower() not in (known := (".png", ".jpg", ".jpeg", ".webp")):
        raise InputError(f"--out is {out}; a picture's name ends in {', '.join(known)}")
    loaded = Edit.load(edit)
    variant = variant or (None if model else loaded.card.variant)
    model = model or api.base_of(loaded)
    pipe = load(model, variant=variant, trust_remote_code=trust_remote_code)
    pipe = calling(pipe, **{**loaded.card.call, **pairs(call, "--call")})
    check_prompts(pipe, prompts)
    loaded = loaded.forced(pipe) if force_base else loaded
    sampling = api.sampling_for(model, steps, guidance)
    groups = [(prompt, [Shot(prompt, (seed or 0) + k) for k in range(n)]) for prompt in prompts]
    shots = [shot for _, group in groups for shot in group]
    with loaded.applied(pipe, scale):
        pass  # refuse an edit for another model before anything is drawn
    with bars() as watch:
        base, after = render_pair(pipe, loaded.applied(pipe, scale), shots, sampling, batch=batch, watch=watch)
    label = f"edit x {scale:g}{', forced' if loaded.card.forced_from else ''}"
    out = out or edit.with_name(f"{api.folder_name(prompts)}.png")
    drawn = sheets(groups, {"base": base, label: after})
    files = paths(out, len(drawn))
    try:
        for path, sheet in zip(files, drawn, strict=True):
            sheet.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the picture {out}: {error}") from error
    print(f"{', '.join(map(str, files))}: base above, edited below, same seeds")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="An edit's file.")],
    debug: Debug = False,
) -> None:
    """Show the card of an edit: what was erased, how, from which model."""
    from safetensors import safe_open

    from unsee.card import read_card

    card = read_card(file)
    with safe_open(file, framework="np") as tensors:
        names = list(tensors.keys())
        weights = {name.removesuffix(".up").removesuffix(".down") for name in names}
        size = sum(_product(tensors.get_slice(name).get_shape()) for name in names)
    lines = {
        "erased": _several(card.concepts) or "-",
        **({"strengthened": "; ".join(stronger)} if (stronger := _strengthened(card)) else {}),
        "method": card.method,
        **{f"  {key}": _brief(value) for key, value in _settings(card).items()},
        "base": f"{card.base}, weights {card.base_hash[:12]}" + (f", variant {card.variant}" if card.variant else ""),
        **({"forced": f"made for weights {card.forced_from[:12]}"} if card.forced_from else {}),
        **({"claims": "; ".join(_claims(card))} if card.claims else {}),
        "changes": f"{counted(len(weights), 'weight')}, {counted(size, 'number')}, {file.stat().st_size / 1e6:.1f} MB",
        "seed": card.seed,
        **({"calls": ", ".join(f"{key} {value}" for key, value in card.call.items())} if card.call else {}),
        "made with": ", ".join(f"{library} {version}" for library, version in card.versions.items()),
    }
    for key, value in lines.items():
        print(plain(f"{key:<16} {value}"))


def _settings(card: Card) -> dict[str, Any]:
    """A method's settings; of a merge, a line for each edit in it."""
    lines = {}
    for key, value in card.settings.items():
        edits = value if card.method == "merge" and key == "edits" and isinstance(value, list) else []
        if not edits or not all(isinstance(edit, dict) and isinstance(edit.get("concepts"), list) for edit in edits):
            lines[key] = value
            continue
        for k, edit in enumerate(edits):
            names = [str(concept.get("erase")) for concept in edit["concepts"] if isinstance(concept, dict)]
            lines[f"edit {k + 1}"] = f"{edit.get('weight')} x {', '.join(names)}, by {edit.get('method')}"
    return lines


def _strengthened(card: Card) -> list[str]:
    """What a merge subtracts."""
    edits = card.settings.get("edits") if card.method == "merge" else None
    return [
        str(concept.get("erase"))
        for edit in (edits if isinstance(edits, list) else [])
        if isinstance(edit, dict) and isinstance(edit.get("weight"), int | float) and edit["weight"] < 0
        for concept in (edit.get("concepts") or [])
        if isinstance(concept, dict)
    ]


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _claims(card: Card) -> list[str]:
    rows = card.claims.rows if card.claims else {}
    return [f"{row}: {100 * before:.1f} -> {100 * after:.1f} %" for row, (before, after) in rows.items()]


@app.command(name="help")
def help_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A command, a method or a suite.")] = None,
) -> None:
    """Explain a command, a method with its settings and presets, or a suite."""
    parent: Any = context.parent
    commands = parent.command.commands
    if name is None:
        print(parent.get_help())
    elif name in commands:
        print(commands[name].make_context(name, [], parent, resilient_parsing=True).get_help())
    elif name in installed("methods"):
        _explain(name)
    elif name in installed("suites"):
        from unsee.evaluate import suites

        print(f"{name}: {suites.find(name).about}\nunsee evaluate MODEL-or-RUN --suite {name}")
    else:
        raise unknown("name", name, [*commands, *installed("methods"), *installed("suites")])


def _explain(name: str) -> None:
    """Print a method's documentation, its settings with their defaults, and its presets."""
    import inspect
    from dataclasses import MISSING, fields

    from unsee import methods

    method = methods.find(name)
    print(f"{name}: {inspect.getdoc(method)}\n\nDefaults, of which --set KEY=VALUE changes any:")
    for one in fields(method):
        print(plain(f"  {one.name:<16} {'' if one.default is MISSING else _brief(one.default)}"))
    print("Presets, --preset NAME:")
    for preset, settings in method.presets.items():
        print(plain(f"  {preset:<16} {', '.join(f'{key} {_brief(value)}' for key, value in settings.items())}"))


app.command()(evaluate)
app.command()(reproduce)


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
    from unsee import pipelines

    config, (trained, of) = plan.config, plan.trained
    shown = {k: "auto" if v is None else v for k, v in config.settings.items() if not isinstance(v, list | tuple)}
    lines = {
        "erase": _several(config.concepts),
        "model": f"{pipelines.name(plan.pipe)}, {type(plan.pipe).__name__} on {plan.pipe.device}"
        + (f", variant {config.variant}" if config.variant else ""),
        "method": f"{config.method}: " + ", ".join(f"{key} {value}" for key, value in shown.items()),
        "changes": f"{trained:,} of {of:,} parameters ({100 * trained / of:.1f} %)",
        "pictures": f"{config.pictures} a row, {config.steps} steps, guidance scale {config.guidance_scale:g}",
        "seed": config.seed,
        **({"calls": ", ".join(f"{key} {value}" for key, value in config.call.items())} if config.call else {}),
        **({"without": " and ".join(plan.left_out) + ", which would change pictures"} if plan.left_out else {}),
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

    from unsee.report.page import HEADER, cells, notes

    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, head in enumerate(HEADER):
        table.add_column(head, justify="right" if k else "left", max_width=None if k else 44)
    for row in report.rows:
        table.add_row(*(Text(plain(cell)) for cell in cells(row)), style="bold" if row.question.gone else "")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(table)
    for note in notes(report.rows):
        print(plain(note))
    if not plan.judges:
        few = f"no judge was given, so nothing was counted, and {plan.config.pictures} pictures a row were drawn"
        print(f"{few}: --judge objects=FOLDER names an image classifier, -n 48 draws more")
    seconds, peak = report.record["seconds"], report.record["peak_memory_bytes"]
    print("\n" + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()), end="")
    print(f", peak memory {peak / 1e9:.2f} GB" if peak else "")
    for name in ("index.html", "before-after.png", "edit.safetensors", "run.json"):
        if (report.folder / name).is_file():
            print(f"  {report.folder / name}")
    print(f"next: {_next(report, plan)}")


def _next(report: Report, plan: Plan) -> str:
    """The command that draws with the edit, as it can be typed."""
    from unsee.api import EDIT
    from unsee.evaluate.suites import article

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


def _product(shape: list[int]) -> int:
    import math

    return math.prod(shape)


app.add_typer(cli_files.app)

# typer raises the errors of its own copy of click, whose base class it does not name publicly.
_UsageError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line: exit code 2 and one line for bad input, 130 after Ctrl-C."""
    # Loading bars and advice of the libraries would drown what a run says of itself.
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    # Idle threads that spin for long slow two busy processes on a few cores tenfold; those that sleep at once slow one
    # process by a third. A short spin does neither.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    for stream in (sys.stdout, sys.stderr):
        forgiving(stream)
    if not speaks():
        sys.stdout = io.StringIO()
    if "--debug" in sys.argv:
        app()
    message = ""
    try:
        code = app(standalone_mode=False) or 0
    except InputError as error:
        message, code = str(error), 2
        if isinstance(error, Unsupported) and not isinstance(error.__cause__, InputError | None):
            message += " (--debug shows where)"
    except Ended as error:
        message, code = str(error), error.code
    except _UsageError as error:
        message, code = error.format_message(), 2
    except (FloatingPointError, OSError) as error:  # a loss that explodes, a disk that is full
        message, code = str(error), 1
    except (MemoryError, RuntimeError) as error:
        from unsee.memory import OutOfMemory, advice, out_of_memory

        if not out_of_memory(error):
            raise
        message, code = str(error) if isinstance(error, OutOfMemory) else advice(error), 1
    if code == 130 and not message:  # typer's own answer to Ctrl-C
        message = "stopped; files that were finished stay where they are"
    if message:
        print(f"unsee: {plain(message)}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
