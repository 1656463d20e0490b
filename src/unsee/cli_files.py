"""The commands that deal in files. Nothing heavy is imported until a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.errors import InputError

app = typer.Typer()

EditFile = Annotated[Path, typer.Argument(metavar="EDIT", help="An edit's file.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Model = Annotated[str | None, typer.Option(help="The model; default is the one that the edit's card names.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
Type = Annotated[str | None, typer.Option("--dtype", help="Numbers: float32, float16 or bfloat16.")]


@app.command()
def export(
    edit: EditFile,
    to: Annotated[str, typer.Option(help="pipeline, diffusers-lora, kohya-lora, delta or comfy.")],
    out: Annotated[Path | None, typer.Option(help="What to write; default beside the edit.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of a LoRA: singular values of each matrix.")] = None,
    energy: Annotated[float | None, typer.Option(help="Of a LoRA: share of each matrix to keep; default 0.99.")] = None,
    dtype: Type = None,
    tolerance: Annotated[float | None, typer.Option(help="Largest difference of pictures, 0 to 1.")] = None,
    model: Model = None,
    force: Force = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Write an edit for another tool, read it back with that tool's code, and compare pictures."""
    import torch

    from unsee import api, files, pipelines
    from unsee.edit import Edit
    from unsee.evaluate.detectors import load_detector
    from unsee.export.formats import FORMATS

    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    for option, value, known in (("format", to, FORMATS), ("dtype", dtype or "float32", kinds)):
        if value not in known:
            raise _unknown(option, value, known)
    number = kinds[dtype] if dtype else None
    loaded = Edit.load(edit)
    name = model or loaded.card.base
    # Differences are compared in full precision; weights in the precision in which they are written.
    loading = number or torch.float32 if FORMATS[to].absolute else torch.float32
    pipe = pipelines.load(name, dtype=loading, trust_remote_code=trust_remote_code)
    judges = {kind: load_detector(place) for kind, place in pipelines.card(name).get("judges", {}).items()}
    done = files.export(
        loaded,
        pipe,
        to,
        out or edit.with_name(f"{edit.stem}-{to}{'' if to == 'pipeline' else '.safetensors'}"),
        rank=rank,
        energy=energy,
        dtype=number,
        judges=judges,
        sampling=api.sampling_for(name, None, None),
        tolerance=files.TOLERANCE if tolerance is None else tolerance,
        force=force,
    )
    size = sum(file.stat().st_size for file in [done.path, *done.path.rglob("*")] if file.is_file())
    print(f"{done.path}: {size / 1e6:.2f} MB")
    print(f"read back: pictures differ by at most {done.difference:.2g} of 1; the edit itself, {done.effect:.2g}")
    if done.loss:
        ranks = done.loss.ranks.values()
        print(
            f"low rank: {len(ranks)} matrices of rank {min(ranks)} to {max(ranks)} hold {100 * done.loss.kept:.3f} % of"
            f" the edit's squares; pictures differ by at most {done.lost:.2g} from the whole edit's"
        )
        if done.loss.out:
            print(f"left out: {len(done.loss.out)} weights that are no matrices, such as {done.loss.out[0]}")
    for row in done.rows:
        if row.before and row.after:
            print(
                f"judge: {row.question.name}: {100 * row.before.value:.1f} % with the whole edit,"
                f" {100 * row.after.value:.1f} % with what was exported (n = {row.after.n})"
            )


def _unknown(kind: str, name: str, known: object) -> InputError:
    from unsee.errors import unknown

    return unknown(kind, name, list(known))  # type: ignore[call-overload]
