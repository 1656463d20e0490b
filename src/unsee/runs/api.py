"""Whole runs as functions of Python: erase, measure, attack, generate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unsee.concepts import Concept, read_concepts
from unsee.evaluate.attacked import Attacked
from unsee.evaluate.records import Evaluation
from unsee.evaluate.render import Shot, render, sampling_of
from unsee.models.model import Pipeline
from unsee.models.text import check_prompts
from unsee.progress import Progress, no_progress
from unsee.runs import attack as attacking
from unsee.runs import erase as erasing
from unsee.runs import evaluate as evaluating
from unsee.runs.config import EvalConfig, build
from unsee.runs.erase import Report
from unsee.runs.folder import claimed
from unsee.runs.siege import prepare


def erase(
    concepts: str | Concept | Path | Sequence[str | Concept],
    folder: str | Path,
    *,
    preset: str | None = None,
    force: bool = False,
    cache: Path | None = None,
    progress: Progress = no_progress,
    **config: Any,
) -> Report:
    """Erase concepts from a model, draw before and after, measure, and write an edit, pictures, a page and run.json.

    concepts  what must go: "church", a Concept, some of them, or the Path of a file (see concepts.read_concepts)
    folder    to write into; the command line's --resume continues an interrupted run
    preset    settings of the method for a kind of concept, such as "style"
    force     start over where the folder holds a run
    cache     folder of pictures, which are drawn once; default `folder`/pictures
    config    fields of runs.config.RunConfig: model, method, settings, seed, pictures, steps, call, ...
    Raises InputError on anything that cannot work.

        >>> report = unsee.erase("church", "out", method="uce", pictures=2, steps=2)
        >>> edit, page = report.edit, report.folder / "index.html"
    """
    given = read_concepts(concepts) if isinstance(concepts, Path) else concepts
    plan = erasing.plan(build({"concepts": [given] if isinstance(given, Concept) else given, **config}), preset)
    with claimed(Path(folder), force=force) as start_over:
        start_over()
        return erasing.erase(plan, Path(folder), cache or Path(folder) / "pictures", progress=progress)


def measure(
    model: str,
    folder: str | Path,
    suites: Sequence[str],
    *,
    cache: Path | None = None,
    progress: Progress = no_progress,
    **more: Any,
) -> Evaluation:
    """Measure a model, its edits and guards side by side, and write pictures, numbers and a page.

    model   a name, or the folder of a run, which stands for its model and its edit
    folder  to write into
    suites  by name, such as "objects" or "neighbours"
    cache   folder of pictures, which are drawn once; default `folder`/pictures
    more    fields of runs.config.EvalConfig: edits, guards, concepts, pictures, seed, steps, ...
    Raises InputError on anything that cannot work.

        >>> path = edit.save("edit.safetensors")
        >>> found = unsee.measure("mini", "out", ["objects"], edits=[path], pictures=2, steps=2)
    """
    more["edits"] = [str(edit) for edit in more.get("edits", ())]
    bench = evaluating.prepare(build({"model": model, "suites": suites, **more}, EvalConfig))
    Path(folder).mkdir(parents=True, exist_ok=True)
    return evaluating.evaluate(bench, Path(folder), cache or Path(folder) / "pictures", progress=progress)


def attack(
    place: str | Path,
    folder: str | Path,
    attacks: Sequence[str] = (),
    *,
    report: bool = False,
    force: bool = False,
    progress: Progress = no_progress,
    **more: Any,
) -> Attacked:
    """Try to bring an erased concept back, with controls, and write numbers and a page.

    Attacks are for models that you are entitled to test.

    place    the folder of a run of erase, or an edit's file
    folder   to write into
    attacks  by name; none is all
    report   also write what a publisher files: report.md and report.json
    force    start over where the folder holds attacks
    more     arguments of runs.siege.prepare: concept, model, twin, detectors, n, seed, steps, guidance_scale, ...
    Raises InputError on anything that cannot work, and for concepts about minors.

        >>> path = edit.save("church.safetensors")
        >>> share = unsee.attack(path, "attacked", ["rounding"], n=2, steps=2).rows[0].score.value
    """
    with claimed(Path(folder), force=force, results=[attacking.RECORD]) as start_over:
        siege = prepare(str(place), names=attacks, **more)
        start_over()
        return attacking.attack(siege, Path(folder), report=report, progress=progress)


def generate(
    pipe: Pipeline,
    prompts: str | Sequence[str],
    *,
    n: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch: int = 32,
    progress: Progress = no_progress,
) -> list[Image]:
    """Pictures of prompts, n of each, on the seeds seed, seed + 1, ...; the batch changes a picture by rounding only.

    steps           sampler steps; default by the model's card, or 50
    guidance_scale  g of u + g (c - u), 1 is none; default by the model's card, or 7.5
    batch           pictures drawn at once; fewer where memory does not hold them
    Raises InputError for a prompt that the text encoder would cut.

        >>> before = unsee.generate(pipe, "a church", n=2)
        >>> with edit.applied(pipe): after = unsee.generate(pipe, "a church", n=2)
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    check_prompts(pipe, prompts)
    shots = [Shot(prompt, seed + k) for prompt in prompts for k in range(n)]
    drawn = render(pipe, shots, sampling_of(pipe, steps, guidance_scale), batch=batch, progress=progress)
    return [drawn[shot] for shot in shots]
