"""The edits that stand beside each other, each made once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.experiments import DEFAULT, Experiment, column
from unsee import guards, methods
from unsee.concepts import Concept
from unsee.edits.card import Card
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.methods import Method
from unsee.methods.esd import ESD
from unsee.methods.hybrid import Hybrid
from unsee.models.denoisers import denoiser
from unsee.models.distributed import processes
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import model_name
from unsee.progress import Progress
from unsee.runs.folder import kept_edit
from unsee.versions import versions


def variants(paper: bool, default: Hybrid) -> dict[str, Method]:
    """Columns that are edits, by name: the default, the closed form, and the paper's own loop."""
    made: dict[str, Method] = {DEFAULT: default, "uce": methods.find("uce")()}
    if paper:
        made["ESD-x, paper"] = ESD(**ESD.presets["paper"])
        made["ESD-u, paper"] = ESD(**{**ESD.presets["paper"], "select": "noncross"})
    return made


class Workshop:
    """Makes edits once and keeps them."""

    def __init__(self, model: str, work: Path, settings: dict[str, Any]):
        self.model, self.pipe, self.work, self.settings = model, load(model), work, settings
        (work / "edits").mkdir(parents=True, exist_ok=True)

    def edit(self, label: str, make: Method, concepts: Sequence[Concept]) -> Path | None:
        """The file of an edit; None, said on stderr, if the method cannot make it."""
        start = time.perf_counter()
        try:
            path = kept_edit(self.work / "edits", make, self.pipe, concepts, progress=progress(label))
        except (InputError, FloatingPointError) as error:
            say(f"{label}: {error}")
            return None
        say(f"{label} {', '.join(concept.erase for concept in concepts)}: {time.perf_counter() - start:.1f} s")
        return path

    def twin(self, folder: str, word: str) -> Path:
        """A model that was trained without a concept, as an edit of this one: what filtering the data reaches.

        folder  a pipeline, or its denoiser alone under its name: all else is shared
        """
        key, net = denoiser(self.pipe)
        if (Path(folder) / "model_index.json").is_file():
            _, other = denoiser(load(folder))
        elif (Path(folder) / key).is_dir():
            other = type(net).from_pretrained(folder, subfolder=key, use_safetensors=True)  # type: ignore[attr-defined]
        else:
            raise InputError(f"{folder} holds no pipeline and no {key}")
        here = {name: value.data for name, value in net.named_parameters()}
        base, seed = model_name(self.pipe), 0
        card = Card("filtered twin", {}, (Concept(word),), base, fingerprint(net), seed, versions())
        edit = Edit.between(key, here, dict(other.named_parameters()), card)
        path = self.work / "edits" / "twin.safetensors"
        if processes().is_main_process:
            edit.save(path)
        processes().wait_for_everyone()
        return path


def columns(
    experiment: Experiment, words: Sequence[Sequence[str]], shop: Workshop, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Edits that erase `words`, as NAME=FILE, and names of guards."""
    edits: list[str] = []

    def add(label: str, make: Method, some: Sequence[str], *, told: bool = False) -> None:
        if path := shop.edit(label, make, experiment.concepts(some, told=told)):
            edits.append(f"{label}={path}")

    if experiment.compare and not options.alone:
        for label, make in variants(not options.no_paper, experiment.default(shop.settings)).items():
            add(label, make, words[0])
            if label == DEFAULT and experiment.alike:
                add(experiment.told, make, words[0], told=True)
        if options.twin and options.twin_concept in words[0]:
            edits.append(f"filtered twin={shop.twin(options.twin, options.twin_concept)}")
        return edits, guards.names()
    for settings in experiment.settings or ({},):
        for some in words:
            said = [f"{key} {value}" for key, value in settings.items()]
            said += [column(some)] if len(words) > 1 else []
            add(", ".join(said) or DEFAULT, experiment.default(shop.settings, **settings), some)
    return edits, []


def say(text: str) -> None:
    if processes().is_main_process:
        print(text, file=sys.stderr, flush=True)


def progress(title: str, every: float = 60.0) -> Progress:
    """Says now and then how far drawing or a fit is, and how long it will take at the speed so far."""
    start: list[tuple[float, int]] = []
    last = time.perf_counter()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if not start or done < start[0][1]:
            start[:] = [(now, done)]  # what was there already tells nothing of the speed
        if now - last < every or stage not in ("render", "fit") or done == start[0][1]:
            return
        last = now
        left = (now - start[0][0]) / (done - start[0][1]) * (total - done) / 60
        say(f"{title}: {stage}, {done} of {total}, {left:.0f} minutes left at most")

    return show
