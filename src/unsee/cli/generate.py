"""The command `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee.cli.files import Model
from unsee.cli.terminal import (
    Batch,
    Call,
    Debug,
    ForceBase,
    Guidance,
    Seed,
    Steps,
    Trust,
    Variant,
    pairs,
)
from unsee.errors import InputError
from unsee.progress import bars, starting


def generate(
    prompts: Annotated[list[str], typer.Argument(help="Prompts to draw.")],
    edit: Annotated[Path, typer.Option(help="File of the edit.")],
    scale: Annotated[float, typer.Option(help="Strength of the edit; 0 is the base model, 1 the edit.")] = 1.0,
    n: Annotated[int, typer.Option("-n", min=1, help="Pictures for each prompt.")] = 4,
    seed: Seed = 0,
    model: Model = None,
    variant: Variant = None,
    steps: Steps = None,
    guidance: Guidance = None,
    call: Call = None,
    batch: Batch = 32,
    out: Annotated[Path | None, typer.Option(help="Image file to write; default beside the edit.")] = None,
    force_base: ForceBase = False,
    trust_remote_code: Trust = False,
    debug: Debug = False,
) -> None:
    """Draw prompts before and after an edit. Pictures of the base model and the edited one have the same seeds."""
    import math

    with starting():
        from unsee.edits.edit import Edit
        from unsee.evaluate.render import Shot, render_pair, sampling_of
        from unsee.models.load import open_model
        from unsee.models.text import check_prompts
        from unsee.report.grid import paths, sheets
        from unsee.runs.folder import folder_name

    if not math.isfinite(scale):
        raise InputError(f"--scale is {scale}; it must be a finite number")
    if out and out.suffix.lower() not in (known := (".png", ".jpg", ".jpeg", ".webp")):
        raise InputError(f"--out is {out}; it should end in {', '.join(known)}")
    loaded = Edit.load(edit)
    options = {**loaded.card.call, **pairs(call, "--call")}
    name, variant = loaded.base(model, variant)
    opened = open_model(name, variant=variant, call=options, trust_remote_code=trust_remote_code)
    check_prompts(opened, prompts)
    loaded = loaded.forced(opened) if force_base else loaded
    sampling = sampling_of(opened, steps, guidance)
    groups = [(prompt, [Shot(prompt, (seed or 0) + k) for k in range(n)]) for prompt in prompts]
    shots = [shot for _, group in groups for shot in group]
    with loaded.applied(opened, scale):
        pass  # refuse an edit for another model before anything is drawn
    with bars() as progress:
        base, after = render_pair(
            opened, loaded.applied(opened, scale), shots, sampling, batch=batch, progress=progress
        )
    label = f"edit x {scale:g}{', forced' if loaded.card.forced_from else ''}"
    out = out or edit.with_name(f"{folder_name(prompts)}.png")
    drawn = sheets(groups, {"base": base, label: after})
    files = paths(out, len(drawn))
    try:
        for path, sheet in zip(files, drawn, strict=True):
            sheet.save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the picture {out}: {error}") from error
    print(f"{', '.join(map(str, files))}: base above, edited below, same seeds")
