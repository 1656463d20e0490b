"""What files cost and what survives them; the tables of docs/files.md. `python -m benchmarks.files`

1. the miniature with a church erased: every format's size, and how far the pictures that its reader draws are off
2. edits of Stable Diffusion 1.4, ESD-x: sizes by arithmetic, from the layers of its denoiser without their weights
3. every family in small, if tests/zoo.py is there: random differences of `cross-kv`, written and read back
4. what LyCORIS makes of our files, if it is installed (`pip install lycoris-lora`)

`python -m benchmarks.files readers` does the last one only; likewise sizes, miniature, families.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel

import unsee
from unsee.edits.card import Card
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.export.formats import FORMATS, matrices
from unsee.export.lowrank import low_rank
from unsee.models.denoisers import denoisers
from unsee.models.fingerprint import fingerprint
from unsee.models.weights import select
from unsee.runs.export import Precision, export


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def miniature(folder: Path) -> None:
    pipe = unsee.load("mini")
    edit = unsee.Hybrid()(pipe, unsee.Concept("church"))
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
        done = export(edit, pipe, to, folder / f"{name}.safetensors", precision=Precision(**options))
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
                rng = torch.Generator().manual_seed(0)
                deltas = {
                    f"{key}.{name}": 0.3 * weight.std() * torch.randn(weight.shape, generator=rng)
                    for key, net in denoisers(pipe).items()
                    for name, weight in select(net, "cross-kv").items()
                    if weight.ndim > 1 or not FORMATS[to].low_rank
                }
                card = Card("random", {}, (unsee.Concept("church"),), family, "", 0, {})
                edit = Edit(dict(deltas), card)
                edit = replace(edit, card=replace(card, base_hash=edit.base_in(pipe)))
                options: dict[str, Any] = {"precision": Precision(energy=1.0)} if FORMATS[to].low_rank else {}
                done = export(edit, pipe, to, folder / f"{family}-{to}.safetensors", **options)
                cells.append(f"{'same bits' if done.exact else f'{done.difference:.1g}'} of {done.effect:.1g}")
            except InputError as error:
                # The same refusal of many families is one note.
                said = re.sub(r"'[^']*'|\w+Pipeline", "it", str(error))
                note = re.split(r"[,:(]| of \w+Model", said)[0].strip()
                cells.append(f"no ({notes.setdefault(note, chr(ord('a') + len(notes)))})")
        print(f"| {family} | {' | '.join(cells)} |", flush=True)
    for note, letter in notes.items():
        print(f"\n({letter}) {note}")


def readers(folder: Path) -> None:
    """Random differences of a UNet with the layers of Stable Diffusion 1, a tenth as wide, in the hands of others."""
    print("\n| read by | format | weights | largest difference from ours | of |\n|---|---|---|---|---|")
    torch.manual_seed(0)
    net = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, block_out_channels=(32, 64, 128, 128))
    pipe = SimpleNamespace(unet=net.eval().requires_grad_(False))
    names = {"kohya-lora": matrices(pipe), "comfy": {f"unet.{name}" for name in select(net, "cross")}}
    for to, held in names.items():
        card = Card("random", {}, (unsee.Concept("church"),), "SD 1 layout", fingerprint(net), 0, {})
        shapes = {name: net.get_parameter(name.removeprefix("unet.")).shape for name in sorted(held)}
        edit = Edit({name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}, card)
        if FORMATS[to].low_rank:
            edit, _ = low_rank(edit, held, rank=4)
        path = folder / f"{to}.safetensors"
        FORMATS[to].write(edit, pipe, path)
        with edit.applied(pipe):
            wanted = {name: value.clone() for name, value in net.state_dict().items()}
        effect = max(float((net.state_dict()[name] - value).abs().max()) for name, value in wanted.items())
        for package, read in READERS.items():
            if importlib.util.find_spec(package.split("-")[0]) is None:
                print(f"| {package} is not installed | {to} | | | |")
                continue
            before = {name: value.clone() for name, value in net.state_dict().items()}
            try:
                read(net, path)
                far = max(float((net.state_dict()[name] - value).abs().max()) for name, value in wanted.items())
            finally:
                net.load_state_dict(before)
            print(
                f"| {package} {version(package)} | {to} | {len(edit.deltas)} | {far:.1g} | {effect:.1g} |", flush=True
            )


def lycoris(net: Any, path: Path) -> None:
    """Each layer of the file made by LyCORIS and merged into its layer of the network, as its own loader does it."""
    from lycoris.modules import get_module, make_module
    from safetensors.torch import load_file

    weights = load_file(path)
    keys = {key.split(".")[0] for key in weights}
    for name, layer in list(net.named_modules()):
        key = f"lora_unet_{name}".replace(".", "_")
        if key in keys:
            make_module(*get_module(weights, key), key, layer).merge_to(1.0)


READERS: dict[str, Callable[[Any, Path], None]] = {"lycoris-lora": lycoris}

if __name__ == "__main__":
    parts: dict[str, Callable[[Path], None]] = {
        "sizes": lambda _: stable_diffusion(),
        "miniature": miniature,
        "families": families,
        "readers": readers,
    }
    with tempfile.TemporaryDirectory() as place:
        for part in sys.argv[1:] or parts:
            parts[part](Path(place))
