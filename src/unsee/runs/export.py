"""Edits as files for other tools: written, read back by those tools' own code, and compared."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unsee.edits.edit import Edit
from unsee.errors import InputError, unknown
from unsee.evaluate import suites
from unsee.evaluate.cache import Memory
from unsee.evaluate.context import BASE, EvalContext, Variant
from unsee.evaluate.detectors import AnyDetector, detectors_of
from unsee.evaluate.records import Measured
from unsee.evaluate.render import sampling_of
from unsee.evaluate.run import run
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.suites.summary import REST
from unsee.export import clients
from unsee.export.formats import FORMATS, adapted, matrices, rounded
from unsee.export.lowrank import Loss, low_rank
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.model import Pipeline, call_options
from unsee.models.sampling import draw
from unsee.models.words import words_of

TOLERANCE = 1 / 255
"""How far an export's pictures may be from the edit's, on a scale from 0 to 1: one grey level."""
STEPS, SEEDS = 4, (0, 1)
"""Sampler steps and seeds of the pictures that are compared."""


@dataclass(frozen=True)
class Precision:
    """How exactly a file holds an edit.

    rank, energy  of a low-rank format; see `low_rank`
    dtype         of the numbers in a format of differences; weights are written in the model's own
    """

    rank: int | None = None
    energy: float | None = None
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Exported:
    """An export that was read back and found to be what it should be.

    path        a file, or the folder of a pipeline
    loss        what the format could not hold; None if it holds everything
    difference  largest difference of pictures drawn by the format's reader to those of what was exported, 0 to 1
    lost        largest difference of the latter to pictures of the whole edit
    effect      largest difference of pictures of the whole edit to the base's
    exact       whether the reader's denoiser has the very bits that were exported; a LoRA's are never added up
    rows        shares before the cut, as `base`, and after it: what is erased, and everything else
    partly      a line for each client that reads only a part of the file
    """

    path: Path
    loss: Loss | None
    difference: float
    lost: float
    effect: float
    exact: bool
    rows: tuple[Measured, ...] = ()
    partly: tuple[str, ...] = ()


def export(
    edit: Edit,
    pipe: Pipeline,
    to: str,
    path: Path,
    *,
    precision: Precision = Precision(),
    tolerance: float = TOLERANCE,
    pictures: int = 0,
    force: bool = False,
) -> Exported:
    """Write an edit of the model `pipe` in another tool's format, read it back with that tool's code, and compare.

    to         a name in `FORMATS`
    path       the file or folder to write; nothing is left there unless the comparison holds
    tolerance  for the largest difference of pictures, 0 to 1
    pictures   for each row that the model's own detectors count, where what the file holds draws other pictures than
               the whole edit; 0: none
    Raises InputError if the format cannot hold the edit, or what is read back differs by more than `tolerance`.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    form, rank, energy, dtype = FORMATS[to], precision.rank, precision.energy, precision.dtype
    if not form.low_rank and (rank is not None or energy is not None):
        raise InputError(f"`rank` and `energy` belong to LoRA formats; {to} holds the edit in full")
    if form.absolute and dtype not in (None, pipe.dtype):
        raise InputError(f"{to} holds the model's own weights: load the model in {dtype} to export them so")
    if to != "pipeline" and path.suffix != ".safetensors":
        raise InputError(f"`path` {path} should end in .safetensors")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give another `path`, or `force` to write over it")
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise InputError(f"{path} is a folder of something else, and is not overwritten")
    held, loss = edit, None
    if form.low_rank:
        held, loss = low_rank(edit, matrices(pipe), rank=rank, energy=energy)
    elif form.cut:
        held, loss = form.cut(edit, pipe)
    if dtype is not None and not form.absolute:
        held = rounded(held, dtype)

    base = _draw(pipe, edit)
    with edit.applied(pipe):
        whole = _draw(pipe, edit)
    expected = whole
    if held is not edit:
        with held.applied(pipe):
            expected = _draw(pipe, edit)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unsee-") as place:
        part = Path(place) / (path.name or "pipeline")
        form.write(held, pipe, part)
        with form.opened(pipe, part) as reader:
            found, bits = _draw(reader, edit, like=pipe), _bits(reader)
            lost = held.deltas.keys() - adapted(reader) if form.stand_in else set()
        taken = Edit({name: delta for name, delta in held.deltas.items() if name not in lost}, held.card)
        with taken.applied(pipe):
            wanted = _draw(pipe, edit) if lost else expected
            exact = not form.low_rank and _bits(pipe) == bits
        difference = _far(found, wanted)
        if not difference <= tolerance:
            raise InputError(
                f"{to}: pictures drawn with the export differ from the edit's by up to {difference:.2g} (of 1),"
                f" which is more than the tolerance {tolerance:.2g}; nothing was written"
            )
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
    rows: tuple[Measured, ...] = ()
    seen = _far(expected, whole) > TOLERANCE
    if pictures and seen and edit.card.concepts and (detectors := detectors_of(pipe)):
        rows = compared(edit, held, pipe, detectors, pictures)
    lines = [] if form.absolute else _partly(to, held, lost, pipe)
    return Exported(path, loss, difference, _far(expected, whole), _far(whole, base), exact, rows, tuple(lines))


def _partly(to: str, held: Edit, lost: Collection[str], pipe: Pipeline) -> list[str]:
    """A line for each client that reads only a part of a file; of `lost` for the reader that is installed here."""
    key, net = denoiser(pipe)
    layers = {name.removeprefix(f"{key}.").rpartition(".")[0] for name in held.deltas}
    lines = clients.partly(to, type(net).__name__, layers)
    if lost:
        gone = {name.removeprefix(f"{key}.").rpartition(".")[0] for name in lost}
        lines.append(clients.share(f"diffusers {version('diffusers')}", layers, gone))
    return lines


def compared(
    edit: Edit, held: Edit, pipe: Pipeline, detectors: Mapping[str, AnyDetector], n: int
) -> tuple[Measured, ...]:
    """What detectors see of the concepts and of everything else, in pictures of the exported edit beside the whole."""
    card, summary = edit.card, suites.find(SUMMARY)
    context = EvalContext(pipe, detectors, words_of(pipe), card.concepts, n, card.seed, kept=card.kept)
    asked = [q for q in summary.ask(context) if q.detector and (q.role == "removed" or q.key == REST)]
    whole = Variant(BASE, BASE, "", card.concepts, edit.applied)
    variants = [whole, Variant("exported", "edit", "", card.concepts, held.applied)]
    some = replace(summary, ask=lambda context: asked)
    outcome = run(context, [some], variants, sampling_of(pipe), Memory())
    return tuple(one for one in outcome.measured if one.base and one.unit == "share")


@torch.no_grad()
def _draw(pipe: Pipeline, edit: Edit, *, like: Pipeline | None = None) -> NDArray[np.float32]:
    """Pictures of an edit's first concept and of nothing, on the same seeds, as numbers from 0 to 1."""
    words = [edit.card.concepts[0].erase if edit.card.concepts else "a picture", ""]
    prompts = [word for word in words for _ in SEEDS]
    numbers = [seed for _ in words for seed in SEEDS]
    drawn = draw(pipe, prompts, numbers, STEPS, output_type="np", **call_options(like or pipe))[0]
    return np.asarray(drawn, np.float32)


def _bits(pipe: Pipeline) -> str:
    """A hash of the denoisers' weights as they are, to the last bit."""
    digest = hashlib.sha256()
    for key, net in denoisers(pipe).items():
        for name, value in sorted(net.state_dict().items()):
            digest.update(f"{key}.{name}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _far(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())
