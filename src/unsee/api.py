"""Erase, draw before and after, measure, and write it all down."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError

from unsee import methods, pipelines
from unsee.card import Claims, settings_of
from unsee.checkpoint import Checkpoint
from unsee.concepts import Concept, check
from unsee.config import RunConfig
from unsee.edit import Edit
from unsee.errors import InputError, invalid, unknown
from unsee.evaluate.cache import model_key
from unsee.evaluate.detectors import Judge, load_detector, names_of
from unsee.evaluate.questions import Row, answer, questions, remarks
from unsee.evaluate.render import Sampling, render_pair
from unsee.evaluate.words import choices, known, read_words
from unsee.listening import find_text
from unsee.recorder import Watch, conditions, quiet
from unsee.report.grid import before_after, paths
from unsee.report.page import page
from unsee.room import expected
from unsee.versions import code, versions
from unsee.whole import Warn, attempted, warned, write_whole

SCHEMA = 1
EDIT, STATE, RECORD, LOCK = "edit.safetensors", "state.safetensors", "run.json", ".lock"
"""What a run's folder holds: its edit, how to do it again, and, until it is done, the state of its fit and a lock."""
PICTURES, UNCOUNTED = 48, 8
"""Pictures for each row by default: where a judge counts them, and where they are only looked at, on a sheet."""
STATES = "state*.safetensors"
"""A fit of each of two denoisers keeps a state of its own."""


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start: everything named in its config is loaded and valid.

    trained   how many parameters the method will change, and of how many
    left_out  checkers of the model without which it was loaded
    words     what the model's card says that it knows
    notes     what a user should know before it starts
    """

    config: RunConfig
    pipe: Any
    method: Any
    judges: dict[str, Judge]
    trained: tuple[int, int]
    left_out: tuple[str, ...] = ()
    words: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a run left: its edit, the rows of its result, the record in run.json, and where the files lie."""

    edit: Edit
    rows: list[Row]
    record: dict[str, Any]
    folder: Path


def plan(config: RunConfig, preset: str | None = None) -> Plan:
    """Load what a config names and complete it with every default. Raises InputError on anything that cannot work."""
    method_class = methods.find(config.method)
    method = configure(method_class, config.settings, preset)
    # A missing detector is told before a model is read.
    judges = judges_for(config.model, config.judges, choices=choices_for(config.model, config.concepts))
    pipe = pipelines.load(
        config.model,
        revision=config.revision,
        variant=config.variant,
        trust_remote_code=config.trust_remote_code,
    )
    pipelines.calling(pipe, **config.call)
    pipelines.check_prompts(
        pipe, [word for c in config.concepts for word in (*c.names, c.from_, c.anchor, *c.keep) if word]
    )
    for concept in config.concepts:
        if concept.image:
            pipelines.picture(concept.image)
    trained, of = 0, 0
    for key in pipelines.denoisers(pipe):
        with pipelines.focused(pipe, key) as net:
            find_text(pipe)
            method = method.settled(net, config.concepts)
            trained += sum(weight.numel() for weight in method.weights(net).values())
            of += sum(weight.numel() for weight in net.parameters())
    sampling = sampling_for(config.model, config.steps, config.guidance_scale)
    counted = any(judge.labels for judge in judges.values())
    complete = config.model_copy(
        update={
            "settings": settings_of(method),
            "revision": getattr(pipe, "unsee_revision", None) or config.revision,  # what a branch meant today
            "pictures": config.pictures or (PICTURES if counted else UNCOUNTED),
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
        }
    )
    words = words_for(config.model)
    check(config.concepts, known(words, names_of(judges)))
    return Plan(
        complete,
        pipe,
        method,
        judges,
        (trained, of),
        pipelines.left_out(config.model, config.revision),
        words,
        tuple(remarks(config.concepts, judges, words)),
    )


def expected_memory(plan: Plan) -> str:
    """What memory a fit is expected to take, in a line; it is counted and not measured."""
    pipe, method = plan.pipe, plan.method
    if not hasattr(method, "learned"):
        return "no more than drawing: it is solved, not trained"
    found = []
    for key in pipelines.denoisers(pipe):
        with pipelines.focused(pipe, key) as net:
            row = conditions(pipe, [plan.config.concepts[0].erase], answered=False)
            moments = 2 if method.optimizer == "adam" else 1
            try:
                found.append(expected(pipe, row, method.weights(net), method.learned(net), moments))
            except InputError as error:
                return f"unknown: {error}"
    most = max(found, key=lambda one: one.state + one.row)
    return most.told(pipe.device, 2 * method.batch, method.checkpointing)


def configure(method_class: Any, settings: dict[str, Any], preset: str | None = None) -> Any:
    """A method with settings over those of a preset. Raises InputError on what is unknown or out of range."""
    presets = method_class.presets
    if preset is not None and preset not in presets:
        raise _elsewhere("preset", preset, method_class, lambda other: other.presets)
    if wrong := next((name for name in settings if name not in _settings(method_class)), None):
        raise _elsewhere("setting", wrong, method_class, _settings)
    try:
        return method_class(**{**(presets[preset] if preset else {}), **settings})
    except ValidationError as error:
        raise invalid(error, _settings(method_class)) from error


def _settings(method_class: Any) -> list[str]:
    return [setting.name for setting in fields(method_class)]


def _elsewhere(kind: str, name: str, method_class: Any, has: Callable[[Any], Collection[str]]) -> InputError:
    """The error for what a method does not have: who has it, or else the nearest that there is."""
    known = {method: methods.find(method) for method in methods.names()}
    others = [method for method, other in known.items() if name in has(other)]
    if not others:
        return unknown(kind, name, has(method_class))
    own = next((method for method, other in known.items() if other is method_class), method_class.__name__)
    return InputError(
        f"{own} has no {kind} {name!r}: leave it out, or take the method {' or '.join(others)}; {own} has "
        f"{', '.join(sorted(has(method_class)))}"
    )


def erase(
    plan: Plan,
    folder: Path,
    *,
    command: str = "",
    every: float = 60.0,
    batch: int = 32,
    watch: Watch = quiet,
    warn: Warn = warned,
) -> Report:
    """Carry a plan out and write edit.safetensors, before-after.png, index.html and run.json into `folder`.

    every  seconds between two states of a fit that are kept, in `folder`, until it is done
    batch  pictures that are drawn at once

    Each file is written as soon as it can be, whole or not at all, and the record before any picture: a picture or page
    that cannot be made is a line to `warn`. An interrupted run keeps what is finished: called again on its folder, this
    goes on where that stopped, to the same bits.
    """
    config, pipe, judges = plan.config, plan.pipe, plan.judges
    seconds: dict[str, float] = {}
    start = {"schema": SCHEMA, "command": command, "config": config.model_dump(mode="json")}
    start["code"] = code(type(plan.method).__module__)
    _write(folder / RECORD, lambda path: path.write_text(json.dumps(start, indent=1), encoding="utf-8"))
    with _timed(seconds, "erase"):
        if (folder / EDIT).exists():
            edit = Edit.load(folder / EDIT)
        else:
            state = Checkpoint(folder / STATE, every=every)
            edit = plan.method(pipe, config.concepts, seed=config.seed, watch=watch, checkpoint=state)
            _save(edit, folder / EDIT)
            if pipelines.processes().is_main_process:
                for path in folder.glob(STATES):
                    path.unlink(missing_ok=True)

    assert config.pictures is not None  # of a plan, which is complete
    asked = questions(
        pipe, config.concepts, judges, n=config.pictures, seed=config.seed, kept=edit.card.kept, words=plan.words
    )
    shots = list(dict.fromkeys(shot for question in asked for shot in question.shots))
    sampling = sampling_for(config.model, config.steps, config.guidance_scale)
    with _timed(seconds, "render"):
        before, after = render_pair(pipe, edit.applied(pipe), shots, sampling, batch=batch, watch=watch)
    with _timed(seconds, "score"):
        rows = []
        watch("score", 0, len(asked))
        for question in asked:
            rows.append(answer(question, before, after, judges))
            watch("score", len(rows), len(asked))

    edit = replace(edit, card=replace(edit.card, claims=claims(config, rows, judges, sampling)))
    _save(edit, folder / EDIT)
    record = {
        **start,
        "left_out": list(plan.left_out),
        "model": {"name": edit.card.base, "hash": edit.card.base_hash},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "device": str(pipe.device),
        "parameters": {"trained": plan.trained[0], "of": plan.trained[1]},
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "judges": {kind: judge.source for kind, judge in judges.items()},
        "curve": edit.card.curve,
        "rows": [asdict(row) for row in rows],
        "notes": list(plan.notes),
    }
    _write(folder / RECORD, lambda path: path.write_text(json.dumps(record, indent=1), encoding="utf-8"))
    with attempted("before-after.png", warn):
        drawn = before_after(rows, before, after)
        files = paths(folder / "before-after.png", len(drawn))
        for path, sheet in zip(files, drawn, strict=True):
            _write(path, partial(sheet.save, format="PNG"))
    with attempted("index.html", warn):
        html = page(rows, record, before, after)
        _write(folder / "index.html", lambda path: path.write_text(html, encoding="utf-8"))
    return Report(edit, rows, record, folder)


def claims(config: RunConfig, rows: Sequence[Row], judges: Mapping[str, Any], sampling: Sampling) -> Claims | None:
    """What a card says of rows that were measured. None if no judge counted anything."""
    counted = {row.question.name: (row.before.value, row.after.value) for row in rows if row.before and row.after}
    names = {kind: Path(judge.source).name for kind, judge in judges.items()}
    assert config.pictures is not None
    settings = (config.pictures, config.seed, sampling.steps, sampling.guidance_scale)
    return Claims(*settings, names, counted) if counted else None


def judges_for(
    model: str,
    given: Mapping[str, str],
    kinds: Collection[str] | None = None,
    *,
    choices: Callable[[str], Sequence[str]] = lambda kind: (),
) -> dict[str, Judge]:
    """Judges by kind: those that a model's card names, and the given ones in their place or beside them.

    kinds    which to load; None is all
    choices  what a CLIP model has to choose among as a judge of a kind
    """
    sources = {**pipelines.card(model).get("judges", {}), **given}
    wanted = {kind: str(source) for kind, source in sources.items() if kinds is None or kind in kinds}
    return {kind: load_detector(source, kind, choices(kind)) for kind, source in wanted.items()}


def words_for(model: str) -> dict[str, Any]:
    """What a model's card says that it can be asked for; {} if it says nothing."""
    said = pipelines.card(model)
    return read_words(Path(said["words"])) if "words" in said else {}


def choices_for(model: str, concepts: Sequence[Concept]) -> Callable[[str], Sequence[str]]:
    """What a CLIP model has to choose among as a judge of a kind, when `concepts` are erased from a model."""
    words = words_for(model)
    return lambda kind: choices(kind, words, concepts)


def sampling_for(model: str, steps: int | None, guidance_scale: float | None) -> Sampling:
    """How to draw with a model: as asked, else as its card says, else with diffusers' usual numbers."""
    said = pipelines.card(model)
    default = Sampling()
    return Sampling(
        said.get("steps", default.steps) if steps is None else steps,
        said.get("guidance_scale", default.guidance_scale) if guidance_scale is None else guidance_scale,
    )


def base_of(edit: Edit) -> str:
    """The model that an edit was made for, as `load` takes it. Raises InputError where its card has only its name."""
    base = edit.card.base
    try:
        pipelines.folder(base)
    except InputError as error:
        raise InputError(f"the edit was made for {base!r}, which is not here under that name: give --model") from error
    return base


@contextmanager
def claimed(
    folder: Path, *, resume: bool = False, force: bool = False, results: Sequence[str] = (EDIT, STATES)
) -> Iterator[Callable[[], None]]:
    """A run's folder, made, locked, and taken away again if nothing was written into it.

    resume   go on with the run that it holds
    force    start over: what is yielded takes an earlier run's results away, once all is known to be in order
    results  files that are a run's, as patterns

    Of many processes, only one looks after the folder.
    Raises InputError if it cannot be written, if another run is writing into it, or if it holds a run already.
    """
    if not pipelines.processes().is_main_process:
        yield lambda: None
        return
    ours, lock = not folder.exists(), FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another run is writing into {folder}: wait for it, or give another --out") from error
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    try:
        begun = [] if resume else [path for name in results for path in folder.glob(name)]
        if begun and not force:
            what = "run that was interrupted" if begun[0].match(STATES) else "run"
            more = ", and --resume goes on with what was interrupted" if STATES in results else ""
            raise InputError(f"{folder} holds a {what} already: --force starts over, --out writes elsewhere{more}")

        def start_over() -> None:
            for path in begun:
                path.unlink(missing_ok=True)

        yield start_over
    finally:
        lock.release()
        (folder / LOCK).unlink(missing_ok=True)
        if ours:
            with suppress(OSError):  # what was finished stays
                folder.rmdir()


def folder_name(words: Sequence[str]) -> str:
    """A folder's name made of words: letters, digits and dashes only, so that no word can lead out of a folder."""
    return re.sub(r"[^\w]+", "-", "-".join(words)).strip("-")[:80] or "run"


def kept_edit(folder: Path, method: Any, pipe: Any, concepts: Sequence[Concept], *, watch: Watch = quiet) -> Path:
    """The file of an edit, made unless `folder` holds it: its name is a hash of all that the edit depends on.

    That is the model with its options (see model_key), the concepts, the settings, and the code that makes it.
    A fit that is interrupted goes on where it stopped. Of many processes one writes, before any goes on.
    """
    _, net = pipelines.denoiser(pipe)
    find_text(pipe)
    what = f"{model_key(pipe)} {method.settled(net, concepts)} {list(concepts)} {code(type(method).__module__)}"
    words = folder_name([concept.erase for concept in concepts])
    path = folder / f"{words}-{hashlib.sha256(what.encode()).hexdigest()[:12]}.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        edit = method(pipe, concepts, watch=watch, checkpoint=Checkpoint(path.with_suffix(".state")))
        _save(edit, path)
        if pipelines.processes().is_main_process:
            for state in folder.glob(f"{path.stem}*.state"):
                state.unlink(missing_ok=True)
    pipelines.processes().wait_for_everyone()
    return path


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


def _save(edit: Edit, path: Path) -> None:
    if pipelines.processes().is_main_process:
        edit.save(path)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all; of many processes, one writes."""
    if pipelines.processes().is_main_process:
        write_whole(path, write)
