"""Measure a model, its edits and guards side by side, and write it all down: what `unsee evaluate` does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unsee import guards
from unsee.concepts import Concept, concepts_of
from unsee.denoising.record import Watch, quiet
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.folder import read_folder
from unsee.evaluate.records import VERSION, ColumnRecord, Evaluation, answers_csv, scores_csv
from unsee.evaluate.render import Sampling, sampling_of
from unsee.evaluate.run import base, distinct, run
from unsee.evaluate.suites import Column, Suite, World
from unsee.evaluate.suites.table import from_csv, labels
from unsee.evaluate.words import choices, words_of
from unsee.io.atomic import Warn, attempted, warned, write_whole
from unsee.io.settings_file import read
from unsee.models.borrow import left_out
from unsee.models.distributed import processes
from unsee.models.load import open_model
from unsee.models.model import Pipeline, model_name, said_options
from unsee.models.model_card import model_card
from unsee.report.evaluation import contact, figure_sheets, page
from unsee.report.grid import paths
from unsee.runs.folder import EDIT, RECORD
from unsee.spelling import same
from unsee.versions import code, versions

FILES = ("index.html", "pictures.png", "evaluation.json", "scores.csv", "answers.csv")


@dataclass(frozen=True)
class Bench:
    """An evaluation that is ready to start: everything is loaded and valid."""

    world: World
    suites: list[Suite]
    columns: list[Column]
    sampling: Sampling


def prepare(
    model: str,
    *,
    suite: Sequence[str | Suite],
    edits: Sequence[str] = (),
    guard: Sequence[str] = (),
    concepts: Sequence[str | Concept] = (),
    tables: Sequence[Path] = (),
    names: Sequence[str] = (),
    judges: dict[str, str] | None = None,
    words: dict[str, Any] | None = None,
    album: Path | None = None,
    force_base: bool = False,
    n: int = 48,
    seed: int = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    call: dict[str, Any] | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> Bench:
    """Load a model, or the model and edit of a run's folder, and whatever is to be measured beside it.

    suite     suites or their names; tables are the user's own, as CSV (see suites/table.py)
    edits     files, or NAME=FILE
    guard     names of guards against `concepts`
    concepts  what is erased; default is what the edits' cards say. An edit keeps to its card if any card has one of
              these, and else erases these: a card may say nothing, or say it otherwise
    names     other names of it, for the suite "paraphrase"
    judges    by kind, beside those that the model's card names; see evaluate/detectors.py
    words     what the model can be asked for, instead of what its card says; see evaluate/words.py
    album     folder of pictures, for the suites "fidelity" and "memorised"; see evaluate/folder.py
    force_base  measure edits on this model though they were made for another
    n, seed   pictures for each row, and the first one's seed
    call      other options of the pipeline's calls, over those of a run's folder
    variant   of the model's files, over that of a run's folder
    Raises InputError on anything that cannot work.
    """
    if n < 2:
        raise InputError(f"`n` is {n}: at least 2 pictures a row are needed")
    chosen = [suites.find(one) if isinstance(one, str) else one for one in suite] + [*map(from_csv, tables)]
    if not chosen:
        raise InputError(f"name what to measure with `suite` or `tables`; suites: {', '.join(suites.names())}")
    called = [one.name for one in chosen]
    if double := next((name for name in called if called.count(name) > 1), None):
        raise InputError(f"two suites are called {double!r}; a CSV goes by its file's name")
    for name in guard:
        guards.named(name, "anything")  # a wrong name is told before a model is loaded
    revision = None
    if (Path(model) / RECORD).is_file():
        edits = [str(Path(model) / EDIT), *edits]
        config = read(Path(model) / RECORD)
        if not isinstance(config.get("model"), str):
            raise InputError(f"{Path(model) / RECORD} does not say of which model it is")
        model, call = config["model"], {**config.get("call", {}), **(call or {})}
        revision, variant = config.get("revision"), variant or config.get("variant")
    pictures = read_folder(album) if album else None
    loaded = [_edit(text) for text in edits]
    named = concepts_of(concepts) if concepts else ()
    wanted = named or tuple(dict.fromkeys(c for edit in loaded for c in edit.concepts))
    if guard and not wanted:
        raise InputError("name what the guard is against: `concepts`")
    if not any(same(one.erase, other.erase) for one in named for edit in loaded for other in edit.concepts):
        loaded = [replace(edit, concepts=named or edit.concepts) for edit in loaded]
    loaded = [replace(edit, concepts=edit.concepts or named) for edit in loaded]
    card = model_card(model)
    known = words_of(card) if words is None else words

    def among(kind: str) -> tuple[str, ...]:
        return choices(kind, known, wanted, [label for path in tables for label in labels(path, kind)])

    # A missing detector is told before a model is read.
    seeing = detectors_of(card, judges, choices=among)
    opened = open_model(
        model, card=card, revision=revision, variant=variant, call=call, trust_remote_code=trust_remote_code
    )
    if force_base:
        loaded = [replace(_edit(text, opened), concepts=one.concepts) for text, one in zip(edits, loaded, strict=True)]
    columns = [base(wanted), *loaded, *(_guard(name, wanted) for name in guard)]
    distinct(columns)
    for column in columns:
        with column.applied(opened):
            pass  # refuse what does not fit this model before anything is drawn
    world = World(opened, seeing, known, wanted, n, seed, tuple(names), pictures)
    return Bench(world, chosen, columns, sampling_of(opened, steps, guidance_scale))


def with_edits(bench: Bench, edits: Sequence[str]) -> Bench:
    """The same with more edits as columns, as `prepare` takes them. Raises InputError as that does."""
    columns = [*bench.columns, *map(_edit, edits)]
    distinct(columns)
    for column in columns:
        with column.applied(bench.world.pipe):
            pass
    return replace(bench, columns=columns)


def evaluate(
    bench: Bench,
    folder: Path,
    cache: Path,
    *,
    command: str = "",
    batch: int = 32,
    remarks: Callable[[Evaluation], Sequence[str]] = lambda found: (),
    watch: Watch = quiet,
    warn: Warn = warned,
) -> Evaluation:
    """Draw, score, and write FILES into `folder`, each whole or not at all. Under accelerate, one process writes.

    Records are written first. A picture or page that cannot be made afterwards is a line to `warn`, and all else stays.

    remarks  sentences that the page says first, of what was found
    """
    world = bench.world
    outcome = run(world, bench.suites, bench.columns, bench.sampling, cache, batch=batch, watch=watch)
    without = {"left_out": list(gone)} if (gone := left_out(world.pipe)) else {}
    evaluation = Evaluation(
        schema=VERSION,
        command=command,
        model={"name": model_name(world.pipe), "hash": outcome.model},
        sampling={**asdict(bench.sampling), "call": said_options(world.pipe), **without},
        n=world.n,
        seed=world.seed,
        judges={kind: judge.source for kind, judge in world.judges.items()},
        versions=versions(),
        device=str(world.pipe.device),
        seconds={stage: round(value, 2) for stage, value in outcome.seconds.items()},
        columns=tuple(
            ColumnRecord(c.name, c.kind, tuple(concept.erase for concept in c.concepts), dict(c.settings))
            for c in bench.columns
        ),
        suites=outcome.suites,
        measured=outcome.measured,
        answers=outcome.answers,
    )
    if processes().is_main_process:

        def keep(name: str, text: str) -> None:
            write_whole(folder / name, lambda path: path.write_text(text, encoding="utf-8"))

        def draw(name: str, sheets: Sequence[Image]) -> None:
            for path, sheet in zip(paths(folder / name, len(sheets)), sheets, strict=True):
                write_whole(path, partial(sheet.save, format="PNG"))

        keep("scores.csv", scores_csv(evaluation.measured))
        keep("answers.csv", answers_csv(evaluation.answers))
        keep("evaluation.json", evaluation.to_json())
        with attempted("pictures.png", warn):
            draw("pictures.png", contact(outcome.asked, outcome.galleries))
        with attempted("the figures' sheets", warn):
            for suite, sheets in figure_sheets(outcome.figures).items():
                draw(f"{suite}.png", sheets)
        with attempted("index.html", warn):
            html = page(evaluation, outcome.asked, outcome.galleries, outcome.figures, remarks(evaluation))
            keep("index.html", html)
    processes().wait_for_everyone()
    return evaluation


def _edit(text: str, other: Pipeline | None = None) -> Column:
    """A column of an edit's file; "edit.safetensors" goes by its folder's name. `other` is forced to take it."""
    name, equals, file = text.partition("=")
    path = Path(file) if equals and not Path(text).exists() else Path(text)
    if path == Path(text):
        name = path.resolve().parent.name if path.stem == "edit" else path.stem
    edit = Edit.load(path)
    edit = edit if other is None else edit.forced(other)
    key = "edit " + hashlib.sha256(path.read_bytes()).hexdigest()
    made = {"seed": edit.card.seed, "made for": f"{edit.card.base} {edit.card.base_hash[:12]}"}
    settings = {"method": edit.card.method, **edit.card.settings, **made}
    if edit.card.forced_from:
        settings["made for other weights"] = edit.card.forced_from[:12]
    return Column(name, "edit", key, edit.card.concepts, edit.applied, settings)


def _guard(name: str, concepts: Sequence[Concept]) -> Column:
    """A column of a guard against all concepts at once."""
    guard = guards.named(name, ", ".join(concept.erase for concept in concepts))
    key = f"guard {guard} {code(guards.__name__)}"
    return Column(name, "guard", key, tuple(concepts), guard.applied, asdict(guard))
