"""Edits as files for other tools: written, read back by those tools' own code, and compared."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unsee.edit import Edit
from unsee.errors import InputError, unknown
from unsee.evaluate.detectors import Judge
from unsee.evaluate.questions import EVERYTHING_ELSE, Row, answer, questions
from unsee.evaluate.render import Sampling, render, render_pair
from unsee.evaluate.statistics import rate
from unsee.export.formats import FORMATS, matrices, rounded
from unsee.export.lowrank import Loss, low_rank
from unsee.pipelines import call_options, denoisers, draw
from unsee.recorder import Watch, quiet

TOLERANCE = 1 / 255
"""How far pictures of an export may be from what they should be: one grey level, of numbers from 0 to 1."""


@dataclass(frozen=True)
class Exported:
    """An export that was read back and found to be what it should be.

    path        a file, or the folder of a pipeline
    loss        what the format could not hold; None if it holds everything
    difference  largest difference of pictures drawn by the format's reader to those of what was exported, 0 to 1
    lost        largest difference of the latter to pictures of the whole edit
    effect      largest difference of pictures of the whole edit to the base's
    exact       whether the reader's denoiser has the very bits that were exported; a LoRA's are never added up
    rows        what the judges see before the cut and after it
    """

    path: Path
    loss: Loss | None
    difference: float
    lost: float
    effect: float
    exact: bool
    rows: tuple[Row, ...] = ()


def export(
    edit: Edit,
    pipe: Any,
    to: str,
    path: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    dtype: torch.dtype | None = None,
    tolerance: float = TOLERANCE,
    judges: Mapping[str, Judge] | None = None,
    sampling: Sampling | None = None,
    pictures: int = 16,
    force: bool = False,
) -> Exported:
    """Write an edit of the model `pipe` in another tool's format, read it back with that tool's code, and compare.

    to            a name in `FORMATS`
    path          the file or folder to write; nothing is left there unless the comparison holds
    rank, energy  of a low-rank format; see `low_rank`
    dtype         of the numbers in a format of differences; weights are written in the model's own
    tolerance     for the largest difference of pictures, 0 to 1
    judges        asked before and after the cut, where there is one
    Raises InputError if the format cannot hold the edit, or what is read back differs by more than `tolerance`.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    form = FORMATS[to]
    if not form.low_rank and (rank is not None or energy is not None):
        raise InputError(f"--rank and --energy belong to LoRA formats; {to} holds the edit in full")
    if form.absolute and dtype not in (None, pipe.dtype):
        raise InputError(f"{to} holds the model's own weights: load it in {dtype} for that")
    if to != "pipeline" and path.suffix != ".safetensors":
        raise InputError(f"--out {path} should end in .safetensors")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: give another --out, or --force to write over it")
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise InputError(f"{path} is a folder of something else; it is not written over")
    held, loss = edit, None
    if form.low_rank:
        held, loss = low_rank(edit, matrices(pipe), rank=rank, energy=energy)
    if dtype is not None and not form.absolute:
        held = rounded(held, dtype)

    base = _draw(pipe, edit)
    with edit.applied(pipe):
        whole = _draw(pipe, edit)
    with held.applied(pipe):
        wanted, bits = _draw(pipe, edit), _bits(pipe)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unsee-") as place:
        part = Path(place) / (path.name or "pipeline")
        form.write(held, pipe, part)
        with form.opened(pipe, part) as reader:
            found = _draw(reader, edit, like=pipe)
            exact = not form.low_rank and _bits(reader) == bits
        difference = _far(found, wanted)
        if not difference <= tolerance:
            raise InputError(
                f"{to}: pictures of what was read back differ by up to {difference:.2g} of 1 from those of the edit,"
                f" more than the tolerance {tolerance:.2g}; nothing was written"
            )
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
    rows: tuple[Row, ...] = ()
    if judges and loss and (loss.kept < 1 or loss.out) and edit.card.concepts:
        rows = _judged(edit, held, pipe, judges, sampling or Sampling(), pictures)
    return Exported(path, loss, difference, _far(wanted, whole), _far(whole, base), exact, rows)


@dataclass(frozen=True)
class Claim:
    """One row of a card, as claimed and as found again: shares before and after, and Wilson's interval of the claim."""

    name: str
    claimed: tuple[float, float]
    found: tuple[float, float]
    held: bool


def verify(edit: Edit, pipe: Any, judges: Mapping[str, Judge], *, watch: Watch = quiet) -> list[Claim]:
    """Check that an edit is of the model `pipe`, and measure the claims of its card again, on their own seeds.

    On the machine that made a claim the same numbers come out; elsewhere rounding may turn some pictures. A claim holds
    if what is found lies in the claim's own 95 % interval, before and after.
    Raises InputError if the edit does not fit, or a judge that counted is missing.
    """
    edit.check(pipe)
    claims = edit.card.claims
    if claims is None:
        return []
    if missing := claims.judges.keys() - judges.keys():
        kind = min(missing)
        raise InputError(
            f"the claims were counted by a judge of {kind}, {claims.judges[kind]!r}: --judge {kind}=FOLDER"
        )
    options: dict[str, Any] = {"n": claims.pictures, "seed": claims.seed, "kept": edit.card.kept}
    every = questions(pipe, edit.card.concepts, judges, **options)
    asked = [question for question in every if question.name in claims.rows and question.judge]
    if unknown_rows := claims.rows.keys() - {question.name for question in asked}:
        raise InputError(f"the card claims {min(unknown_rows)!r}, which these judges have no question for")
    shots = list(dict.fromkeys(shot for question in asked for shot in question.shots))
    sampling = Sampling(claims.steps, claims.guidance_scale)
    before, after = render_pair(pipe, edit.applied(pipe), shots, sampling, watch=watch)
    found = []
    for question in asked:
        row = answer(question, before, after, judges)
        assert row.before
        assert row.after
        values, claimed = (row.before.value, row.after.value), claims.rows[question.name]
        n = row.after.n
        held = all(_within(value, claim, n) for value, claim in zip(values, claimed, strict=True))
        found.append(Claim(question.name, claimed, values, held))
    return found


def _within(value: float, claim: float, n: int) -> bool:
    """Whether a share lies in the 95 % interval of a claimed share of n pictures."""
    hits = round(claim * n)
    interval = rate([True] * hits + [False] * (n - hits))
    return interval.low - 1e-9 <= value <= interval.high + 1e-9  # the ends of 0 and of 1 are rounded, too


def _judged(
    edit: Edit, held: Edit, pipe: Any, judges: Mapping[str, Judge], sampling: Sampling, n: int
) -> tuple[Row, ...]:
    """What the judges see of the concepts and of everything else, drawn by the whole edit and by what was exported."""
    asked = [
        question
        for question in questions(pipe, edit.card.concepts, judges, n=n, seed=edit.card.seed, kept=edit.card.kept)
        if question.judge and (question.gone or question.name == EVERYTHING_ELSE)
    ]
    shots = [shot for question in asked for shot in question.shots]
    with edit.applied(pipe):
        whole = render(pipe, shots, sampling)
    with held.applied(pipe):
        cut = render(pipe, shots, sampling)
    return tuple(answer(question, whole, cut, judges) for question in asked)


@torch.no_grad()
def _draw(
    pipe: Any, edit: Edit, *, like: Any = None, steps: int = 4, seeds: Sequence[int] = (0, 1)
) -> NDArray[np.float32]:
    """Pictures of an edit's first concept and of nothing, on the same seeds, as numbers from 0 to 1."""
    words = [edit.card.concepts[0].erase if edit.card.concepts else "a picture", ""]
    prompts = [word for word in words for _ in seeds]
    numbers = [seed for _ in words for seed in seeds]
    drawn = draw(pipe, prompts, numbers, steps, output_type="np", **call_options(like or pipe))[0]
    return np.asarray(drawn, np.float32)


def _bits(pipe: Any) -> str:
    """A hash of the denoisers' weights as they are, to the last bit."""
    digest = hashlib.sha256()
    for key, net in denoisers(pipe).items():
        for name, value in sorted(net.state_dict().items()):
            digest.update(f"{key}.{name}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _far(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max())
