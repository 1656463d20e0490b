"""docs/evidence.md and its like: what erasing reaches on a miniature, by task and by what it is erased by.

    python -m benchmarks.evidence [PAGE] [--tasks object ...] [--by balance ...] [--pictures 384] [--beside 64]
    python -m benchmarks.evidence [PAGE] --draw     the page and its plots anew, from its table

PAGE is one of PAGES. A cell is a method, a guard or a filtered twin on a task. Its rows go into the CSV beside the
page, from which the page and its plots are written anew after each cell. A cell that is in the CSV is not measured
again, unless more pictures are asked for: delete the lines of those that a change of the code makes old. Runs of
different tasks can share a page.

The method that `unsee erase` takes for a task has `--pictures` pictures for each row of what is erased: none of 384
ends below 1 %. The others have `--beside`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

import unsee
from benchmarks.evidence import suites
from benchmarks.evidence.page import Said, page, plots, strip_of
from benchmarks.evidence.record import ASKED, CORE, EDIT, REFUSED, SECONDS, Cell, of, read, score, today, written
from benchmarks.evidence.tasks import METHODS, TWIN, Task, chosen, tasks
from benchmarks.saying import progress, say
from unsee import guards
from unsee.errors import InputError, unknown
from unsee.evaluate.cache import Cache, model_key
from unsee.evaluate.context import Variant
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot, render
from unsee.evaluate.suites.styles import STYLE
from unsee.io.atomic import write_whole
from unsee.models.model_card import model_card
from unsee.models.words import words_of
from unsee.runs import evaluate as evaluation
from unsee.runs.config import EvalConfig
from unsee.runs.controls import put_on, read_twin
from unsee.runs.evaluate import Bench
from unsee.runs.folder import edit_file

ROOT = Path(__file__).parents[2]
FLOW = {"one": "uce", "reference": "mini", "described": ROOT / "recipes" / "flow" / "held_out.yaml"}
PAGES: dict[str, dict[str, Any]] = {
    "evidence": {"model": "mini", "compared": True},
    "evidence-flow": {"model": "mini-flow", "steps": 10, **FLOW},
    "evidence-flow-turbo": {"model": "mini-flow-turbo", **FLOW},
}
"""What is measured for each page. The second miniature's card names 20 steps; 10 take half of the time."""
SEED = 20_000
ALIKE = ("castle", "mosque")
SHOWN = 4
"""Pictures of what must go, and as many of what must stay."""


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", default="evidence", choices=PAGES)
    parser.add_argument("--model")
    parser.add_argument("--reference", help="another model whose edits are timed too")
    parser.add_argument("--concept", default="church")
    parser.add_argument("--style", default="neon")
    parser.add_argument("--thing", default="watermark", help="what appears though no prompt names it")
    parser.add_argument("--one", default=METHODS[0], help="the method that `unsee erase` takes for few names")
    parser.add_argument("--alike", nargs="*", default=ALIKE, metavar="WORD", help="objects that look like the concept")
    parser.add_argument("--described", type=Path, metavar="YAML", help="by object, descriptions that no caption has")
    parser.add_argument("--compared", action="store_true", help="the paper's loop and experiments, guards and the twin")
    parser.add_argument("--twin", type=Path, default=Path("church"), help="trained without the concept (twins/)")
    parser.add_argument("--pictures", type=int, default=384, help="for a row of what is erased, by the default method")
    parser.add_argument("--beside", type=int, default=64, help="the same of all others")
    parser.add_argument("--steps", type=int, help="sampler steps")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--by", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where edits and pictures stay")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", action="store_true", help="write the page anew from its table; nothing is measured")
    own = parser.parse_known_args(argv)[0].page
    parser.set_defaults(out=ROOT / "docs" / f"{own}.md", **PAGES[own])
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parsed(argv)
    torch.set_num_threads(1)
    every, described = tasks_of(options)
    known = list(dict.fromkeys(name for task in every for name in (task.name, task.group) if name))
    by = list(dict.fromkeys(name for task in every for name in task.by))
    for given, names in ((options.tasks, known), (options.by, by)):
        if wrong := next((name for name in given if name not in names), None):
            raise unknown("task or method", wrong, names)
    if options.draw:
        publish(every, options)
        return
    (options.work / "edits").mkdir(parents=True, exist_ok=True)
    for task in chosen(every, options.tasks):
        bench = prepared(task, options, described)
        keys = {name: key(task, name, bench, options, described) for name in task.by if name in (options.by or task.by)}
        there = {(cell.task, cell.by, cell.key): cell.pictures for cell in cells(options.out)}
        missing = [name for name in keys if there.get((task.name, name, keys[name]), 0) < pictures(task, name, options)]
        if missing:
            say(f"{task.name}: {estimate(bench, task, missing, options)}")
        for name in missing:
            rows = measured(task, name, bench, options)
            cell = Cell(task.name, name, keys[name], today(), tuple(rows))
            keep(cell, every, options)
            publish(every, options)


def tasks_of(options: argparse.Namespace) -> tuple[list[Task], dict[str, list[str]]]:
    """All tasks of a page, and by object the descriptions that it is asked for by."""
    words = words_of(model_card(options.model))
    described = yaml.safe_load(options.described.read_text(encoding="utf-8")) if options.described else {}
    every = tasks(words, options.concept, options.style, options.thing, options.one, bool(described), options.compared)
    return every, described


def cells(out: Path) -> list[Cell]:
    """What the table of a page has."""
    table = out.with_suffix(".csv")
    return read(table.read_text(encoding="utf-8")) if table.is_file() else []


def keep(cell: Cell, every: Sequence[Task], options: argparse.Namespace) -> None:
    """Put a cell into the table, in the place of what was measured of it before; in the order of the tasks."""
    place = {(task.name, name): (k, j) for k, task in enumerate(every) for j, name in enumerate(task.by)}
    rest = [one for one in cells(options.out) if (one.task, one.by) != (cell.task, cell.by)]
    text = written(sorted([*rest, cell], key=lambda one: place.get((one.task, one.by), (len(every), 0))))
    write_whole(options.out.with_suffix(".csv"), partial(Path.write_text, data=text, encoding="utf-8"))


def drawn(options: argparse.Namespace, every: Sequence[Task]) -> tuple[str, dict[str, str]]:
    """The page, and its plots by file name, from its table."""
    found, out = cells(options.out), options.out
    said = Said(options.page, options.model, options.reference or "", tuple(options.alike), bool(options.described))
    pictures = plots(every, found, out.stem)
    return page(every, found, said, out, pictures), pictures


def publish(every: Sequence[Task], options: argparse.Namespace) -> None:
    text, pictures = drawn(options, every)
    texts = {options.out.with_name(name): plot for name, plot in pictures.items()} | {options.out: text}
    for path, now in texts.items():
        write_whole(path, partial(Path.write_text, data=now, encoding="utf-8"))


def prepared(task: Task, options: argparse.Namespace, described: Mapping[str, Any]) -> Bench:
    """The base model with all guards beside it, and what is asked about a task."""
    own = suites.suites([word for word in options.alike if word not in task.words], described)
    config = EvalConfig(
        model=options.model,
        suites=tuple(name for name in task.suites if name not in own),
        concepts=tuple(task.concepts),
        guards=tuple(name for name in task.by if name in guards.names()),
        pictures=options.pictures,
        seed=SEED,
        steps=options.steps,
    )
    return evaluation.prepare(config, [own[name] for name in task.suites if name in own])


def pictures(task: Task, name: str, options: argparse.Namespace) -> int:
    """For a row of what is erased."""
    return max(2, (options.pictures if name == task.default else min(options.pictures, options.beside)) // task.part)


def key(task: Task, name: str, bench: Bench, options: argparse.Namespace, described: Mapping[str, Any]) -> str:
    """A hash of all that a cell is asked for, but for the number of pictures, and not of the code that answers."""
    made = name if name in (*guards.names(), TWIN) else asdict(task.method(name))
    asked = [asdict(one) for one in task.concepts], task.suites, options.alike, described
    how = [model_key(bench.context.pipe), made, asked, SEED, asdict(bench.sampling)]
    return hashlib.sha256(json.dumps(how, default=str).encode()).hexdigest()[:12]


def measured(task: Task, name: str, bench: Bench, options: argparse.Namespace) -> list[Measured]:
    """The rows of a cell, after its edit is made, and a strip of its pictures."""
    sampling, n = bench.sampling, pictures(task, name, options)
    note = f"{sampling.steps} sampler steps, guidance scale {sampling.guidance_scale:g}, first seed {SEED}"
    about = [Measured(EDIT, ASKED, "other", "pictures for a row", name, "", score(n, n), None, None, note=note)]
    variant = next((one for one in bench.variants if one.name == name), None)
    if name == TWIN:
        values = read_twin(options.twin, bench.context.pipe)
        variant = Variant(TWIN, "edit", f"twin {options.twin}", tuple(task.concepts), partial(put_on, values=values))
    elif variant is None:
        path = edit_file(options.work / "edits", task.method(name), bench.context.pipe, task.concepts)
        about.append(made(task, name, bench.context.pipe, path, options))
        if about[-1].key == REFUSED:
            return about
        variant = evaluation.with_edits(bench, [f"{name}={path}"]).variants[-1]
    context = replace(bench.context, n=n)
    here, title = replace(bench, context=context, variants=[bench.variants[0], variant]), f"{task.name}, {name}"
    cache = Cache(options.work / "pictures")
    found, _ = evaluation.measure(here, cache, progress=progress(title))
    say(f"{title}: pictures {found.seconds['render']:.0f} s")
    show(task, here, cache, options.out)
    rows = of(name, found.measured)
    return [*about, *rows]


def made(task: Task, name: str, pipe: Any, path: Path, options: argparse.Namespace) -> Measured:
    """An edit, and the row that tells of it. Its seconds are those of the process, with those on `--reference`."""

    def timed(model: Any) -> tuple[Any, float]:
        start, tick = time.process_time(), progress(f"{task.name}, {name}")
        return task.method(name)(model, task.concepts, progress=tick), time.process_time() - start

    note = path.with_suffix(".seconds.json")
    if not note.is_file():
        try:
            edit, seconds = timed(pipe)
        except InputError as error:
            return Measured(EDIT, REFUSED, "other", "refused", name, "", score(0, 0), None, None, note=str(error))
        write_whole(path, edit.save)
        other = None
        if options.reference:
            try:
                other = timed(unsee.load(options.reference))[1]
            except InputError as error:
                say(f"{task.name}, {name}, {options.reference}: {error}")
        write_whole(note, partial(Path.write_text, data=json.dumps([seconds, other])))
    seconds, other = json.loads(note.read_text())
    base = None if other is None else score(other)
    return Measured(EDIT, SECONDS, "other", "until the edit exists", name, CORE, score(seconds), base, None)


def show(task: Task, bench: Bench, cache: Cache, out: Path) -> None:
    """Strips of what must go and of what must stay, of the base and of a variant, in a folder beside the page."""
    asked = [one for suite in bench.suites for one in suite.ask(bench.context) if not one.reference and one.shots]
    gone = [
        one for one in asked if one.role == "removed" or one.key in (*task.words, f"{STYLE}{task.words[0]}")
    ] or asked
    rest = [one for one in asked if one not in gone and not any(word in one.key for word in task.words)] or asked
    near = [one for one in rest if one.role == "neighbour"][:1]
    shots = [*spread(gone[0].shots, SHOWN), *[one.shots[0] for one in [*near, *spread(rest, SHOWN - len(near))]]]
    pipe = bench.context.pipe
    for variant in bench.variants:
        found = cache.draw(
            pipe, shots, bench.sampling, model=model_key(pipe), change=variant.key,
            applied=partial(variant.applied, pipe),
        )  # fmt: skip
        path = strip_of(out, task.name, variant.name)
        path.parent.mkdir(exist_ok=True)
        picture = strip([found[shot] for shot in shots])
        write_whole(path, partial(picture.save, format="WEBP", quality=80))


def strip(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Pictures beside each other, with more room between what must go and what must stay."""
    wide, high = pictures[0].size
    sheet = Image.new("RGB", (len(pictures) * (wide + gap) + 4 * gap, high), "#ffffff")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k * (wide + gap) + 4 * gap * (k >= SHOWN), 0))
    return sheet


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


if __name__ == "__main__":
    main()
