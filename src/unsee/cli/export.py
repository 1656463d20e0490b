"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.allowed import DTYPES, EXPORTS
from unsee.cli.files import EditFile, Model, Type
from unsee.cli.terminal import (
    Debug,
    Force,
    ForceBase,
    Trust,
    Variant,
    plain,
)
from unsee.errors import unknown
from unsee.progress import starting
from unsee.spelling import counted


def export(
    edit: EditFile,
    to: Annotated[
        str,
        typer.Option(
            help="Format: diffusers-lora; kohya-lora (A1111, ComfyUI); comfy (ComfyUI, full rank); pipeline (a whole "
            "model); delta (the changed weights).",
            autocompletion=lambda: list(EXPORTS),
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File or folder to write; default beside the edit.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of a LoRA; default: what --energy needs.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Share of each matrix's squares that a LoRA keeps, 0 to 1; default 0.99.")
    ] = None,
    dtype: Type = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference of pixels allowed, 0 to 1; default 1/255.")
    ] = None,
    model: Model = None,
    variant: Variant = None,
    force_base: ForceBase = False,
    force: Force = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Write an edit as a file for another tool. It is read back with that tool's code, and pictures are compared."""
    for option, value, known in (("format", to, EXPORTS), ("dtype", dtype or "float32", DTYPES)):
        if value not in known:
            raise unknown(option, value, known)
    with starting():
        import torch

        from unsee.edits.edit import Edit
        from unsee.export.formats import FORMATS
        from unsee.models.denoisers import denoiser
        from unsee.models.load import open_model
        from unsee.models.names import source
        from unsee.runs.export import TOLERANCE, Precision, export

    number = getattr(torch, dtype) if dtype else None
    loaded = Edit.load(edit)
    # Differences are compared in full precision; weights in the precision in which they are written.
    loading = number or torch.float32 if FORMATS[to].absolute else torch.float32
    name, variant = loaded.base(model, variant)
    opened = open_model(
        name,
        dtype=loading,
        variant=variant,
        call=loaded.card.call,
        trust_remote_code=trust_remote_code,
    )
    loaded = loaded.forced(opened) if force_base else loaded
    done = export(
        loaded,
        opened,
        to,
        out or edit.with_name(f"{edit.stem}-{to}{'' if to == 'pipeline' else '.safetensors'}"),
        precision=Precision(rank, energy, number),
        tolerance=TOLERANCE if tolerance is None else tolerance,
        pictures=16,
        force=force,
    )
    size = sum(file.stat().st_size for file in [done.path, *done.path.rglob("*")] if file.is_file())
    print(f"{done.path}: {size / 1e6:.2f} MB")
    bits, far = "every weight is the same to the bit; " if done.exact else "", _grey(done.difference)
    print(f"read back: {bits}pictures differ by at most {far}; the edit changes them by at most {_grey(done.effect)}")
    if done.loss:
        far = f"pictures differ from the whole edit's by at most {_grey(done.lost)}"
        if ranks := done.loss.ranks.values():
            of = f"{min(ranks)}" if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
            print(
                f"low rank: {len(ranks)} of its matrices, of rank {of}, hold"
                f" {100 * done.loss.kept:.3f} % of the edit's squares; {far}"
            )
        if out_of := done.loss.out:
            print(f"left out: {counted(len(out_of), 'weight')} that {to} has no place for, such as {out_of[0]}", end="")
            print("" if ranks else f"; the file holds {100 * done.loss.kept:.3f} % of the edit's squares; {far}")
    for one in done.rows:
        if one.base and one.difference:
            shares = f"{100 * one.base.value:.1f} % with the whole edit, {100 * one.score.value:.1f} % as exported"
            more = "" if one.difference.differs else ", not distinguishable"
            print(plain(f"{one.row}: {shares}{more} (n = {one.score.n})"))
    if to == "pipeline" and (gone := opened.left_out):
        print(f"left out: the model's {' and '.join(gone)}; add your own after loading")
    for line in done.partly:
        print(plain(line))
    if done.partly and to == "diffusers-lora" and denoiser(opened)[0] == "unet":
        print("--to kohya-lora writes a file that they read whole")
    if (below := source(name).loras) and to != "pipeline":
        print(plain(f"the edit was made on top of {', '.join(below)}: load that too, at weight 1"))
    use = FORMATS[to].use.format(path=str(done.path), net=denoiser(opened)[0])
    print(plain(f"next: {use}"))


def _grey(difference: float) -> str:
    """A difference of pixels, 0 to 1, in the grey levels of a picture."""
    return f"{255 * difference:.3g} of 255 grey levels"
