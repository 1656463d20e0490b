"""The commands on files. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unsee.cli.terminal import (
    Debug,
    Detectors,
    Force,
    ForceBase,
    Judges,
    Trust,
    Variant,
    brief,
    filled,
    given_detectors,
    plain,
)
from unsee.cli.terminal import shell as _command
from unsee.errors import InputError
from unsee.progress import bars, starting
from unsee.spelling import counted

if TYPE_CHECKING:
    from unsee.edits.edit import Edit

app = typer.Typer()

EditFile = Annotated[Path, typer.Argument(metavar="EDIT", help="File of an edit.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="The model: a folder, a hub id (ID@REVISION), or FILE@LAYOUT; +FILE adds a LoRA. Default: the card's."
    ),
]
Type = Annotated[str | None, typer.Option("--dtype", help="Precision: float32, float16 or bfloat16; default float32.")]


@app.command()
def merge(
    edits: Annotated[list[Path], typer.Argument(metavar="EDIT...", help="Files of edits.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight of each edit, in order; default 1. -1 negates.")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Write the edit that turns the edited model back into the base.")
    ] = False,
    model: Model = None,
    variant: Variant = None,
    force_base: ForceBase = False,
    force: Force = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Add edits, each times its weight. One edit alone is scaled, or with --undo reversed.

    With --model SIBLING --force-base the result is an edit of SIBLING, such as a finetune of the edits' model.
    """
    with starting():
        from unsee.edits import algebra
        from unsee.edits.edit import Edit
        from unsee.models.load import open_model

    _free(out, force)
    loaded = [Edit.load(path) for path in edits]
    if force_base and not model:
        raise InputError("--force-base carries edits over to another model: name that model with --model")
    if undo or model:
        name, variant = loaded[0].base(model, variant)
        opened = open_model(name, variant=variant, trust_remote_code=trust_remote_code)
        loaded = [edit.forced(opened) for edit in loaded] if force_base else loaded
        result = algebra.merge(loaded, weight, opened)
        result = algebra.undo(result, opened) if undo else result
    else:
        result = algebra.merge(loaded, weight)
    _said(result.save(out), result)
    if undo:
        verify = _command("verify", out, "--model", "EDITED")
        print(f"next: {verify}, where EDITED is the model that unsee export --to pipeline writes")
    else:
        more = [*(["--model", model] if model else []), *(["--variant", variant] if variant else [])]
        print(f"next: {_command('verify', out, *more)}")


@app.command()
def diff(a: EditFile, b: EditFile, debug: Debug = False) -> None:
    """Compare two edits. Prints their cards, their weights, and the angle between them."""
    from unsee.edits.algebra import difference
    from unsee.edits.edit import Edit

    found = difference(Edit.load(a), Edit.load(b))
    for field, (one, other) in found.fields.items():
        pairs = {field: (one, other)}
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in one | other if one.get(key) != other.get(key)]
            pairs = {f"{field}.{key}": (one.get(key, ""), other.get(key, "")) for key in keys}
        for name, values in pairs.items():
            print(plain(f"{name:<24} {'  |  '.join(brief(value, 60) for value in values)}"))
    print(f"{'weights':<24} {found.only[0]} in the first only, {found.only[1]} in the second only")
    print(f"{'size':<24} {found.sizes[0]:.6g}  |  {found.sizes[1]:.6g}; of their difference {found.sizes[2]:.6g}")
    print(f"{'cosine':<24} {found.cosine:.6f}")


@app.command()
def verify(
    edit: EditFile,
    model: Model = None,
    variant: Variant = None,
    detector: Detectors = None,
    judge: Judges = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page and records; default runs/verify-NAME. Replaced if there.")
    ] = None,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Check an edit against its model, and measure the claims of its card again: the same suite, on the same seeds."""
    with starting():
        from unsee.edits.edit import Edit
        from unsee.evaluate.detectors import detectors_of
        from unsee.evaluate.words import choices
        from unsee.models.load import open_model
        from unsee.models.words import words_of
        from unsee.runs.config import EvalConfig
        from unsee.runs.evaluate import evaluate
        from unsee.runs.folder import claimed, edit_name, folder_name
        from unsee.runs.verify import NAME, held, prepare, sentences

    loaded = Edit.load(edit)
    name, variant = loaded.base(model, variant)
    opened = open_model(name, variant=variant, call=loaded.card.call, trust_remote_code=trust_remote_code)
    loaded.check(opened)
    weights = counted(len(loaded.deltas), "weight")
    print(plain(f"{weights}: finite numbers, this model's shapes, made for weights {loaded.card.base_hash[:12]}"))
    if not (claims := loaded.card.claims) or not claims.rows:
        suite = "objects" if "objects" in opened.card.detectors else "pictures"
        more = ["--variant", variant] if variant else []
        print("the card has no claims, so nothing was measured")
        print(f"next: {_command('evaluate', name, '--edit', edit, '--suite', suite, *more)}")
        return
    words, given = words_of(opened), given_detectors(detector, judge)
    among = lambda kind: choices(kind, words, loaded.card.concepts)  # noqa: E731
    detectors = detectors_of(opened, given, claims.detectors, choices=among)
    config = EvalConfig(
        model=name,
        variant=variant,
        edits=(f"{NAME}={edit}",),
        detectors=given,
        trust_remote_code=trust_remote_code,
    )
    bench = prepare(loaded, config, opened, detectors, words)
    folder, warnings = out or Path("runs") / folder_name(["verify", edit_name(edit)]), list[str]()
    command = shlex.join(["unsee", *sys.argv[1:]])
    with claimed(folder, force=True, results=["evaluation.json"]) as start_over, bars() as progress:
        start_over()
        found = evaluate(
            bench,
            folder,
            None,
            command=command,
            remarks=lambda found: sentences(held(loaded.card, found)),
            progress=progress,
            warn=warnings.append,
        )
    every = held(loaded.card, found)
    for sentence in [*sentences(every), *warnings]:
        print(plain(sentence))
    print(plain(f"  {folder / 'index.html'}"))
    print(f"next: {_command('attack', edit, *(['--model', model] if model else []))}")
    if failed := [claim.found.row for claim in every if not claim.held]:
        raise InputError(f"{len(failed)} of {len(every)} claims do not hold, such as {failed[0]!r}")


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="Safetensors of ESD or UCE, a LoRA, or a file with .diff keys.")],
    model: Annotated[
        str, typer.Option(help="The model that it was made for: a folder, a hub id, or FILE@LAYOUT; +FILE adds a LoRA.")
    ],
    out: Annotated[Path, typer.Option(help="File of the edit to write.")],
    concept: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="What the file erases: church, or 'church, castle'.")
    ] = None,
    variant: Variant = None,
    unpickle: Annotated[bool, typer.Option("--unpickle", help="Read a .pt file; only its weights are loaded.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Skip layers of an adapter that the model does not have.")
    ] = False,
    force: Force = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Convert the result of another tool to an edit."""
    import torch

    from unsee.concepts import concepts_of
    from unsee.export.foreign import adopt
    from unsee.models.load import load

    _free(out, force)
    concepts = concepts_of(filled(concept)) if concept else ()
    # In full precision: what a file changes is small beside what a base rounded to 16 bits is off by.
    pipe = load(model, dtype=torch.float32, variant=variant, trust_remote_code=trust_remote_code)
    found = adopt(file, pipe, concepts=concepts, unpickle=unpickle, partial=partial)
    _said(found.save(out), found)
    for what, count in found.card.settings["left_out"].items():
        print(f"left out: {counted(count, 'layer')}: {what}")
    more = ["--variant", variant] if variant else []
    print(f"next: {_command('verify', out, '--model', model, *more)}")


@app.command(name="push")
def push_(
    edit: EditFile,
    repo: Annotated[str | None, typer.Argument(metavar="REPO", help="Repository on the hub: owner/name.")] = None,
    hub: Annotated[str | None, typer.Option("--hub", metavar="REPO", help="Another way to give REPO.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and upload nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default beside the edit.")] = None,
    debug: Debug = False,
) -> None:
    """Upload an edit to the hub, with a model card."""
    from unsee.export.hub import push, repository

    target = repo or hub
    if target is None or (repo and hub):
        raise InputError("name one repository of the hub, such as: unsee push edit.safetensors owner/name")
    folder = repository(edit, target, out or edit.with_name(f"{edit.stem}-hub"))
    for path in sorted(folder.iterdir()):
        print(plain(f"  {path}"))
    if dry_run:
        print(f"nothing was uploaded; next: {_command('push', edit, target)}")
    else:
        print(push(folder, target, private=private))


def _free(out: Path, force: bool) -> None:
    """Raise InputError if a file cannot be written there, before work begins."""
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} should end in .safetensors")
    if out.exists() and not force:
        raise InputError(f"{out} exists already: give another --out, or --force to write over it")
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}")


def _said(path: Path, edit: Edit) -> None:
    """Print the file of an edit, and what it holds."""
    size = path.stat().st_size / 1e6
    print(
        f"{path}: {counted(len(edit.deltas), 'weight')}, {size:.2f} MB, for weights {plain(edit.card.base_hash[:12])}"
    )
