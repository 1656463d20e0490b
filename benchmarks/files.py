"""What files cost and what survives them; the tables of docs/files.md. `python -m benchmarks.files`

1. the miniature with a church erased: every format's size, and how far the pictures that its reader draws are off
2. edits of Stable Diffusion 1.4, ESD-x: sizes by arithmetic, from the layers of its denoiser without their weights
3. every family in small, if tests/zoo.py is there: random differences of `cross-kv`, written and read back
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import unsee
from unsee import files
from unsee.card import Card
from unsee.edit import Edit
from unsee.errors import InputError
from unsee.export.formats import FORMATS
from unsee.layers import select
from unsee.pipelines import denoiser, fingerprint


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def miniature(folder: Path) -> None:
    pipe = unsee.load("mini")
    edit = unsee.ESD()(pipe, unsee.Concept("church"))
    path = edit.save(folder / "edit.safetensors")
    print(
        "\n| the miniature, church | MB | same bits | read back, largest difference of 1 | to the whole edit |\n"
        "|---|---|---|---|---|"
    )
    print(f"| edit | {size(path) / 1e6:.2f} | | | |")
    ways: list[tuple[str, str, dict[str, Any]]] = [(to, to, {}) for to, form in FORMATS.items() if not form.low_rank]
    for to in (to for to, form in FORMATS.items() if form.low_rank):
        ways += [(f"{to}, {said}", to, options) for said, options in CUTS.items()]
    for name, to, options in ways:
        done = files.export(edit, pipe, to, folder / f"{name}.safetensors", **options)
        bits = "yes" if done.exact else "-"
        print(
            f"| {name} | {size(done.path) / 1e6:.2f} | {bits} | {done.difference:.2g} | {done.lost:.2g} |", flush=True
        )


CUTS: dict[str, dict[str, Any]] = {
    "all ranks": {"energy": 1.0},
    "energy 0.99": {},
    "rank 4": {"rank": 4},
    "rank 4, float16": {"rank": 4, "dtype": torch.float16},
    "rank 1": {"rank": 1},
}


def stable_diffusion() -> None:
    with torch.device("meta"):
        net = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)  # SD 1.x
    print(
        "\n| SD 1.4 | weights | M numbers | dense, float32 MB | float16 MB | rank 4, float16 MB |\n"
        "|---|---|---|---|---|---|"
    )
    for selection in ("cross-kv", "cross"):
        shapes = [weight.shape for weight in select(net, selection).values()]
        numbers = sum(shape.numel() for shape in shapes)
        thin = sum(4 * (shape[0] + shape[1:].numel()) for shape in shapes if len(shape) > 1)
        print(
            f"| {selection} | {len(shapes)} | {numbers / 1e6:.2f} | {4 * numbers / 1e6:.1f} | {2 * numbers / 1e6:.1f} |"
            f" {2 * thin / 1e6:.2f} |"
        )


def families(folder: Path) -> None:
    if importlib.util.find_spec("tests.zoo") is None:
        return
    from tests import zoo

    print(f"\n| family | {' | '.join(FORMATS)} |\n|---|{'---|' * len(FORMATS)}")
    notes: dict[str, str] = {}
    for family in zoo.ZOO:
        cells = []
        for to in FORMATS:
            try:
                pipe = zoo.build(family)
                key, net = denoiser(pipe)
                rng = torch.Generator().manual_seed(0)
                deltas = {
                    f"{key}.{name}": 0.3 * weight.std() * torch.randn(weight.shape, generator=rng)
                    for name, weight in select(net, "cross-kv").items()
                    if weight.ndim > 1 or not FORMATS[to].low_rank
                }
                card = Card("random", {}, (unsee.Concept("church"),), family, fingerprint(net), 0, {})
                options: dict[str, Any] = {"energy": 1.0} if FORMATS[to].low_rank else {}
                done = files.export(
                    Edit(dict(deltas), card), pipe, to, folder / f"{family}-{to}.safetensors", **options
                )
                cells.append(f"{'same bits' if done.exact else f'{done.difference:.1g}'} of {done.effect:.1g}")
            except InputError as error:
                note = " ".join(str(error).split())
                cells.append(f"no ({notes.setdefault(note, chr(ord('a') + len(notes)))})")
        print(f"| {family} | {' | '.join(cells)} |", flush=True)
    for note, letter in notes.items():
        print(f"\n({letter}) {note}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        stable_diffusion()
        miniature(Path(place))
        families(Path(place))
