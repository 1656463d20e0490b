"""Erase, draw before and after, measure, and write it all down."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unsee import methods
from unsee.concepts import check
from unsee.denoising.text_layers import find_text
from unsee.edits.card import Claims, settings_of
from unsee.edits.edit import Edit
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, Memory, NotWritable
from unsee.evaluate.context import BASE, EvalContext
from unsee.evaluate.detectors import AnyDetector, detectors_of, names_of
from unsee.evaluate.records import Evaluation
from unsee.evaluate.remarks import remarks
from unsee.evaluate.render import Sampling, sampling_of
from unsee.evaluate.run import base
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.words import choices, known
from unsee.fit.resume import ResumeFile
from unsee.io.atomic import Warn, attempted, warned
from unsee.io.images import read_picture
from unsee.models.denoisers import denoisers
from unsee.models.distributed import processes
from unsee.models.model import Model
from unsee.models.model_card import model_card
from unsee.models.text import check_prompts
from unsee.models.weights import embedded
from unsee.models.weights import known as prompt_is_read
from unsee.models.words import words_of
from unsee.progress import Progress, no_progress
from unsee.report.before_after import Line, lines
from unsee.report.grid import contact
from unsee.report.page import page
from unsee.report.preserved import preserved
from unsee.report.tradeoff import scale_taken
from unsee.runs.config import EvalConfig, RunConfig
from unsee.runs.configure import configure, method_of, opened
from unsee.runs.evaluate import Bench, as_variant, measure, save_sheets
from unsee.runs.folder import EDIT, RECORD, STATE, STATES, save_edit, write
from unsee.runs.tradeoff import balanced, held_out, rule
from unsee.versions import code, versions

SCHEMA = 2
NAME = "edit"
"""Name of the edit's column, beside the base's."""
PICTURES, UNCOUNTED = 48, 8
"""Pictures for each row by default: where a detector counts them, and where they are only looked at, on a sheet."""


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start: everything named in its config is loaded and valid.

    trained   how many parameters the method will change, and of how many
    words     what the model's card says that it knows
    notes     what a user should know before it starts
    """

    config: RunConfig
    model: Model
    method: Any
    detectors: dict[str, AnyDetector]
    trained: tuple[int, int]
    words: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a run left: its edit, what was measured of it, the record in run.json, and where the files lie."""

    edit: Edit
    evaluation: Evaluation
    record: dict[str, Any]
    folder: Path

    @property
    def rows(self) -> list[Line]:
        """The rows of its result."""
        return lines(self.evaluation.measured, NAME)


def plan(config: RunConfig, preset: str | None = None) -> Plan:
    """Load what a config names and complete it with every default. Raises InputError on anything that cannot work."""
    name = method_of(config, preset)
    method = configure(methods.find(name), config.settings, preset)
    card = model_card(config.model)
    words = words_of(card)  # a missing detector is reported before a model is read
    detectors = detectors_of(card, config.detectors, choices=lambda kind: choices(kind, words, config.concepts))
    model = opened(config, card)
    check_prompts(model, [word for c in config.concepts for word in (*c.names, c.from_, c.anchor, *c.keep) if word])
    for concept in config.concepts:
        if concept.image:
            read_picture(concept.image)
    nets = denoisers(model)
    for key in nets:
        find_text(replace(model, focus=key))
    notes: list[str] = []
    if config.method is None and name == "balance":
        name, preset, reason = _chosen(config, words.get("styles", ()), list(nets.values()))
        notes.append(f"{name} was chosen: {reason}")
        method = configure(methods.find(name), config.settings, preset)
    trained, of = 0, 0
    for net in nets.values():
        method = method.resolved(net, config.concepts)
        trained += sum(weight.numel() for weight in method.weights(net).values())
        of += sum(weight.numel() for weight in net.parameters())
    sampling = sampling_of(model, config.steps, config.guidance_scale)
    counted = any(detector.labels for detector in detectors.values())
    complete = config.model_copy(
        update={
            "method": name,
            "settings": settings_of(method),
            "revision": model.revision or config.revision,  # what a branch meant today
            "pictures": config.pictures or (PICTURES if counted else UNCOUNTED),
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
        }
    )
    check(config.concepts, known(words, names_of(detectors)))
    notes += [rule()] if config.auto else []
    notes += method.notes(config.concepts) if hasattr(method, "notes") else []
    return Plan(
        complete,
        model,
        method,
        detectors,
        (trained, of),
        words,
        (*notes, *remarks(config.concepts, detectors, words)),
    )


FEW = 10
"""The most names with which uce damages nothing else where a prompt enters by an embedder. With 1, 10, 20 and 60 on the
second miniature it kept 100, 100, 98 and 48 % of the others."""


def _chosen(config: RunConfig, styles: Collection[str], nets: Sequence[nn.Module]) -> tuple[str, str | None, str]:
    """Which method the default for names is in these denoisers, its preset, and why; docs/LOG.md has the figures."""
    if not all(map(prompt_is_read, nets)):
        return "hybrid", None, "no layer of this model reads the prompt alone, so nothing can be solved for"
    if len(config.concepts) <= FEW and not config.settings and all(map(embedded, nets)):
        why = (
            f"at most {FEW} names, and the prompt enters by an embedder. On such a miniature uce left nothing "
            f"of the concept under other descriptions; balance left 34 % with one name and 7 % with {FEW}"
        )
        return "uce", None, why
    if not config.settings and {concept.erase for concept in config.concepts} <= {*styles}:
        why = (
            "with its preset style, since the model's card lists every name as a style. It loses few other styles; "
            "hybrid's preset style keeps all subjects, but lost up to 17 % of other styles on the miniature"
        )
        return "balance", "style", why
    return "balance", None, "every concept is a name, which balance solves for without training; hybrid trains"


def erase(
    plan: Plan,
    folder: Path,
    cache: Path,
    *,
    command: str = "",
    every: float = 60.0,
    batch: int = 32,
    progress: Progress = no_progress,
    warn: Warn = warned,
) -> Report:
    """Carry a plan out and write edit.safetensors, before-after.png, index.html and run.json into `folder`.

    cache  folder of pictures; what is there is not drawn again
    every  seconds between two states of a fit that are kept, in `folder`, until it is done
    batch  pictures that are drawn at once

    Each file is written as soon as it can be, whole or not at all, and the record before any picture: a picture or page
    that cannot be made is a line to `warn`. An interrupted run keeps what is finished: called again on its folder, this
    goes on where that stopped, to the same bits.
    """
    config = plan.config
    seconds: dict[str, float] = {}
    start = {"schema": SCHEMA, "command": command, "config": config.model_dump(mode="json")}
    start["code"] = code(type(plan.method).__module__)
    write(folder / RECORD, lambda path: path.write_text(json.dumps(start, indent=1), encoding="utf-8"))
    with _timed(seconds, "erase"):
        if (folder / EDIT).exists():
            edit = Edit.load(folder / EDIT)
        else:
            state = ResumeFile(folder / STATE, every=every)
            asked = (plan.model, config.concepts, config.settings.get("templates", ("{}",)), config.seed)
            held = held_out(*asked, progress) if config.auto else []
            edit = plan.method(plan.model, config.concepts, seed=config.seed, progress=progress, resume=state)
            edit = balanced(plan.model, edit, held, progress) if held else edit
            save_edit(edit, folder / EDIT)
            if processes().is_main_process:
                for path in folder.glob(STATES):
                    path.unlink(missing_ok=True)

    bench = _bench(plan, edit, folder)
    try:
        evaluation, outcome = measure(bench, Cache(cache), command=command, batch=batch, progress=progress)
    except NotWritable as error:  # no result is lost to a picture
        warn(f"{error}; pictures are kept in memory instead")
        evaluation, outcome = measure(bench, Memory(), command=command, batch=batch, progress=progress)
    seconds |= outcome.seconds
    edit = replace(edit, card=replace(edit.card, claims=claims(evaluation)))
    save_edit(edit, folder / EDIT)
    record = {
        **start,
        "left_out": list(plan.model.left_out),
        "model": {"name": edit.card.base, "hash": edit.card.base_hash},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "device": str(plan.model.device),
        "parameters": {"trained": plan.trained[0], "of": plan.trained[1]},
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "curve": edit.card.curve,
        "tradeoff": {"points": edit.card.tradeoff, "taken": edit.card.scale},
        "notes": [*plan.notes, *scale_taken(edit.card)],
        "preserved": preserved(edit.card),
        "evaluation": asdict(evaluation),
    }
    write(folder / RECORD, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8"))
    if processes().is_main_process:
        with attempted("before-after.png", warn):
            models = {"before": outcome.galleries[BASE], "after": outcome.galleries[NAME]}
            save_sheets(folder / "before-after.png", contact(outcome.asked, models))
        with attempted("index.html", warn):
            html = page(evaluation, outcome.asked, outcome.galleries, made=record)
            write(folder / "index.html", lambda path: path.write_text(html, encoding="utf-8"))
    return Report(edit, evaluation, record, folder)


def _bench(plan: Plan, edit: Edit, folder: Path) -> Bench:
    """The evaluation of an edit that was just made: the suite "summary", beside the base."""
    config = plan.config
    assert config.pictures is not None  # of a plan, which is complete
    assert config.steps is not None
    assert config.guidance_scale is not None
    same = ("model", "revision", "variant", "detectors", "pictures", "seed", "steps", "guidance_scale", "call")
    asked = {name: getattr(config, name) for name in (*same, "trust_remote_code")}
    context = EvalContext(
        plan.model, plan.detectors, plan.words, config.concepts, config.pictures, config.seed, kept=edit.card.kept
    )
    return Bench(
        EvalConfig(suites=(SUMMARY,), edits=(f"{NAME}={folder / EDIT}",), **asked),
        context,
        [suites.find(SUMMARY)],
        [base(config.concepts), as_variant(NAME, edit)],
        Sampling(config.steps, config.guidance_scale),
    )


def claims(evaluation: Evaluation) -> Claims | None:
    """What a card says of an edit that was measured by the suite "summary". None if no detector counted anything."""
    counted = {row.key: row.shares for row in lines(evaluation.measured, NAME) if row.shares}
    names = {kind: Path(source).name for kind, source in evaluation.detectors.items()}
    how = evaluation.sampling
    settings = (evaluation.n, evaluation.seed, how["steps"], how["guidance_scale"])
    return Claims(*settings, names, counted, SUMMARY) if counted else None


def peak_memory() -> int | None:
    """The most memory that this process has held so far, in bytes: the accelerator's if there is one, else resident."""
    if torch.accelerator.is_available():
        return int(torch.accelerator.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
