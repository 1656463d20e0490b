"""docs/evidence-flow.md: what erasing reaches on the second miniature, by method and task.

    python -m benchmarks.flow [--pictures 384] [--beside 128] [--tasks object ...] [--methods balance ...]
                              [--model mini-flow] [--work runs/flow] [--out docs/evidence-flow.md]

A cell is a method on a task. Its edit, its pictures and its record stay under `--work` and are not made again, unless
the model, the settings or the code that they depend on has changed. The page is written anew after each cell, from all
cells of this model that are there. The method that `unsee erase` takes for a task has `--pictures` pictures for each
row of what is erased: none of 384 ends below 1 %. The others have `--beside`. Seconds are those of one core, and the
same edit of `--reference` is timed in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

import unsee
from benchmarks.evidence.page import every_row
from benchmarks.evidence.workshop import progress, say
from benchmarks.flow import suites
from benchmarks.flow.page import Cell, page, plot
from benchmarks.flow.tasks import METHODS, Task, chosen, tasks
from unsee.errors import InputError, unknown
from unsee.evaluate.cache import Cache
from unsee.evaluate.records import Evaluation
from unsee.evaluate.render import Shot, render
from unsee.io.atomic import write_whole
from unsee.models.model import Pipeline
from unsee.models.model_card import model_card
from unsee.models.words import words_of
from unsee.runs import evaluate as evaluation
from unsee.runs.config import EvalConfig
from unsee.runs.evaluate import Bench
from unsee.runs.folder import edit_file
from unsee.versions import code

SEED = 20_000
ALIKE = ("castle", "mosque")
HELD_OUT = Path(__file__).parents[2] / "recipes" / "flow" / "held_out.yaml"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-flow")
    parser.add_argument("--reference", default="mini", help="the model whose edits are timed too")
    parser.add_argument("--concept", default="church")
    parser.add_argument("--style", default="neon")
    parser.add_argument("--thing", default="watermark", help="what appears though no prompt names it")
    parser.add_argument("--alike", nargs="*", default=ALIKE, metavar="WORD", help="objects that look like the concept")
    parser.add_argument("--pictures", type=int, default=384, help="for a row of what is erased, by the default method")
    parser.add_argument("--beside", type=int, default=128, help="the same of the other methods")
    parser.add_argument("--steps", type=int, help="sampler steps; default as the model's card says")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--methods", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("runs/flow"), help="where edits, pictures and records stay")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence-flow.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parsed(argv)
    torch.set_num_threads(1)
    every = tasks(words_of(model_card(options.model)), options.concept, options.style, options.thing)
    for given, known in ((options.tasks, [task.name for task in every]), (options.methods, METHODS)):
        if wrong := next((name for name in given if name not in known), None):
            raise unknown("task or method", wrong, known)
    (options.work / "edits").mkdir(parents=True, exist_ok=True)
    (options.work / "cells").mkdir(exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.flow", *(sys.argv[1:] if argv is None else argv)])
    reference = unsee.load(options.reference)
    whole: dict[tuple[str, str], Cell] = {}
    for task in every:  # cells of an earlier run, also of tasks that are not asked for now
        bench = prepared(task, options)
        whole |= {(task.name, name): cell for name in task.methods if (cell := found(task, name, bench, options))}
        publish([cell for key in order(every) if (cell := whole.get(key))], bench, options, command)
        if task not in chosen(every, options.tasks):
            continue
        missing = [
            name
            for name in sorted(task.methods, key=lambda name: name != task.default)
            if name in (options.methods or task.methods) and (task.name, name) not in whole
        ]
        if missing:
            say(f"{task.name}: {estimate(bench, task, missing, options)}")
        for name in missing:
            whole[task.name, name] = measured(task, name, bench, reference, options, command)
            publish([cell for key in order(every) if (cell := whole.get(key))], bench, options, command)


def order(every: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """Tasks by methods, the default of each first."""
    for task in every:
        yield from ((task.name, name) for name in sorted(task.methods, key=lambda name: name != task.default))


def prepared(task: Task, options: argparse.Namespace) -> Bench:
    """The base model, and what is asked about a task."""
    described = yaml.safe_load(HELD_OUT.read_text(encoding="utf-8"))
    own = suites.suites([word for word in options.alike if word not in task.words], described)
    config = EvalConfig(
        model=options.model,
        suites=tuple(name for name in task.suites if name not in own),
        concepts=tuple(task.concepts),
        pictures=options.pictures,
        seed=SEED,
        steps=options.steps,
    )
    return evaluation.prepare(config, [own[name] for name in task.suites if name in own])


def edit_of(task: Task, name: str, pipe: Pipeline, options: argparse.Namespace) -> Path:
    return edit_file(options.work / "edits", task.method(name), pipe, task.concepts)


def pictures(task: Task, name: str, options: argparse.Namespace) -> int:
    return options.pictures if name == task.default else min(options.pictures, options.beside)  # type: ignore[no-any-return]


def record(task: Task, name: str, path: Path, bench: Bench, options: argparse.Namespace) -> Path:
    """The file of a cell: its name is a hash of all that it depends on."""
    how = [path.name, pictures(task, name, options), SEED, asdict(bench.sampling), list(options.alike)]
    how += [HELD_OUT.read_text(encoding="utf-8"), code(suites.__name__)]
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]
    return options.work / "cells" / f"{task.name}-{name}-{key}.json"  # type: ignore[no-any-return]


def found(task: Task, name: str, bench: Bench, options: argparse.Namespace) -> Cell | None:
    """A cell that was measured before."""
    path = edit_of(task, name, bench.context.pipe, options)
    if not path.with_suffix(".json").is_file():
        return None
    note = json.loads(path.with_suffix(".json").read_text())
    if "refused" in note:
        return Cell(task, name, None, refused=note["refused"])
    file = record(task, name, path, bench, options)
    if not file.is_file():
        return None
    return Cell(task, name, Evaluation.from_json(file.read_bytes()), (note["seconds"], note["reference"]))


def measured(task: Task, name: str, bench: Bench, reference: Any, options: argparse.Namespace, command: str) -> Cell:
    """A cell that was not: the edit, and what is seen under it."""
    path = edit_of(task, name, bench.context.pipe, options)
    if not path.with_suffix(".json").is_file():
        make(task, name, bench.context.pipe, reference, path)
    note = json.loads(path.with_suffix(".json").read_text())
    if "refused" not in note:
        context = replace(bench.context, n=pictures(task, name, options))
        here = evaluation.with_edits(replace(bench, context=context), [f"{name}={path}"])
        title = f"{task.name}, {name}"
        one, _ = evaluation.measure(here, Cache(options.work / "pictures"), command=command, progress=progress(title))
        text = one.to_json()
        write_whole(record(task, name, path, bench, options), partial(Path.write_text, data=text))
        say(f"{title}: edit {note['seconds']:.1f} s, pictures {one.seconds['render']:.0f} s")
    cell = found(task, name, bench, options)
    assert cell
    return cell


def make(task: Task, name: str, pipe: Pipeline, reference: Any, path: Path) -> None:
    """An edit, and beside it a note of the seconds of one core that it took on each of both models."""

    def timed(model: Any) -> tuple[Any, float]:
        start = time.process_time()
        return task.method(name)(model, task.concepts), time.process_time() - start

    note: dict[str, Any]
    try:
        edit, seconds = timed(pipe)
        write_whole(path, edit.save)
        note = {"seconds": seconds, "reference": None}
    except (InputError, FloatingPointError) as error:
        note = {"refused": str(error)}
    else:
        try:
            note["reference"] = timed(reference)[1]
        except (InputError, FloatingPointError) as error:
            say(f"{task.name}, {name}, reference: {error}")
    write_whole(path.with_suffix(".json"), partial(Path.write_text, data=json.dumps(note)))


def estimate(bench: Bench, task: Task, names: Sequence[str], options: argparse.Namespace) -> str:
    """How many pictures some methods take and how long that is at the speed of a batch drawn now."""
    shots: dict[tuple[str, int], set[Shot]] = {}
    for name in names:
        n = pictures(task, name, options)
        asked = {shot for suite in bench.suites for q in suite.ask(replace(bench.context, n=n)) for shot in q.shots}
        shots[name, n] = asked
        shots.setdefault(("base", n), set()).update(asked)
    total, sampling = sum(map(len, shots.values())), bench.sampling
    batch = [Shot("a thing", seed) for seed in range(16)]
    render(bench.context.pipe, batch[:1], replace(sampling, steps=1))  # the first drawing is slower
    start = time.perf_counter()
    render(bench.context.pipe, batch, replace(sampling, steps=2), batch=16)
    each = (time.perf_counter() - start) / 2 / len(batch) * sampling.steps
    return f"{total} pictures at most, {total * each / 60:.0f} minutes; edits and detectors take more"


def publish(cells: Sequence[Cell], bench: Bench, options: argparse.Namespace, command: str) -> None:
    """The page, its plot and its table of all rows."""
    said = {
        "command": command, "model": options.model, "steps": bench.sampling.steps, "seed": SEED,
        "guidance": bench.sampling.guidance_scale, "full": options.pictures, "beside": options.beside,
        "alike": ", ".join(options.alike) or "none that are named", "reference": options.reference,
    }  # fmt: skip
    rows = [(f"{cell.task.name}, {cell.method}", cell.found) for cell in cells if cell.found]
    texts = {
        options.out: page(cells, said, options.out.stem),
        options.out.with_suffix(".svg"): plot(cells),
        options.out.with_suffix(".csv"): every_row(rows),
    }
    for path, text in texts.items():
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
