"""Measure a model, its edits and guards side by side, and write it all down: what `unsee evaluate` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL.Image import Image

from unsee import guards
from unsee.concepts import Concept
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, Memory
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.folder import read_folder
from unsee.evaluate.records import VERSION, Evaluation, VariantRecord, answers_csv, scores_csv
from unsee.evaluate.render import Sampling, sampling_of
from unsee.evaluate.run import Outcome, base, distinct, run
from unsee.evaluate.suites import Suite
from unsee.evaluate.suites.table import from_csv, labels
from unsee.evaluate.words import choices
from unsee.io.atomic import Warn, attempted, warned, write_whole
from unsee.io.settings_file import read
from unsee.models.borrow import left_out
from unsee.models.distributed import processes
from unsee.models.model import Pipeline, model_name, said_options
from unsee.models.model_card import model_card
from unsee.models.words import words_of
from unsee.progress import Progress, no_progress
from unsee.report.grid import contact, figure_sheets, paths
from unsee.report.page import page
from unsee.runs.config import EvalConfig, build
from unsee.runs.configure import opened
from unsee.runs.folder import EDIT, RECORD, edit_name
from unsee.spelling import same
from unsee.versions import code, versions

FILES = ("index.html", "pictures.png", "evaluation.json", "scores.csv", "answers.csv")


@dataclass(frozen=True)
class Bench:
    """An evaluation that is ready to start: everything is loaded and valid.

    config  complete: what repeats it
    """

    config: EvalConfig
    context: EvalContext
    suites: list[Suite]
    variants: list[Variant]
    sampling: Sampling


def prepare(config: EvalConfig, more: Sequence[Suite] = ()) -> Bench:
    """Load a model, or the model and edit of a run's folder, and whatever is to be measured beside it.

    more  suites beside those of the config
    Raises InputError on anything that cannot work.
    """
    tables = [Path(table) for table in config.tables]
    chosen = [*map(suites.find, config.suites), *map(from_csv, tables), *more]
    if not chosen:
        raise InputError(f"name what to measure with `suites` or `tables`; suites: {', '.join(suites.names())}")
    called = [one.name for one in chosen]
    if double := next((name for name in called if called.count(name) > 1), None):
        raise InputError(f"two suites are called {double!r}: rename the CSV, whose suite has its file's name")
    for name in config.guards:
        guards.named(name, "anything")  # a wrong name is reported before a model is loaded
    config = _resolved(config)
    album = read_folder(Path(config.folder)) if config.folder else None
    edits = [_edit(text) for text in config.edits]
    named, loaded = config.concepts, [as_variant(name, edit) for name, edit in edits]
    wanted = named or tuple(dict.fromkeys(concept for edit in loaded for concept in edit.concepts))
    if config.guards and not wanted:
        raise InputError("name what the guard is against with `concepts`")
    if not any(same(one.erase, other.erase) for one in named for edit in loaded for other in edit.concepts):
        loaded = [replace(edit, concepts=named or edit.concepts) for edit in loaded]
    loaded = [replace(edit, concepts=edit.concepts or named) for edit in loaded]
    variants = [base(wanted), *loaded, *(_guard(name, wanted) for name in config.guards)]
    card = model_card(config.model)
    known = words_of(card) if config.words is None else config.words

    def among(kind: str) -> tuple[str, ...]:
        return choices(kind, known, wanted, [label for path in tables for label in labels(path, kind)])

    detectors = detectors_of(card, config.detectors, choices=among)  # one that is missing is reported first
    model = opened(config, card)
    if config.force_base:
        forced = [
            replace(as_variant(one.name, edit.forced(model)), concepts=one.concepts)
            for one, (_, edit) in zip(loaded, edits, strict=True)
        ]
        variants = [variants[0], *forced, *variants[1 + len(forced) :]]
    _fit(variants, model)
    kept = tuple(dict.fromkeys(word for _, edit in edits for word in edit.card.kept))
    context = EvalContext(
        model, detectors, known, wanted, config.pictures, config.seed, kept=kept, names=config.names, album=album
    )
    sampling = sampling_of(model, config.steps, config.guidance_scale)
    complete = config.model_copy(update={"steps": sampling.steps, "guidance_scale": sampling.guidance_scale})
    return Bench(complete, context, chosen, variants, sampling)


def _resolved(config: EvalConfig) -> EvalConfig:
    """A config with the model and the edit in the place of a run's folder."""
    folder = Path(config.model)
    if not (folder / RECORD).is_file():
        return config
    made = read(folder / RECORD)
    if not isinstance(made.get("model"), str):
        raise InputError(f"{folder / RECORD} does not name its model")
    update = {
        "model": made["model"],
        "revision": config.revision or made.get("revision"),
        "variant": config.variant or made.get("variant"),
        "edits": (str(folder / EDIT), *config.edits),
        "call": {**made.get("call", {}), **config.call},
    }
    return build({**config.model_dump(), **update}, EvalConfig)


def with_edits(bench: Bench, edits: Sequence[str]) -> Bench:
    """The same with more edits, as EvalConfig names them. Raises InputError as `prepare` does."""
    added = [_edit(text) for text in edits]
    variants = [*bench.variants, *(as_variant(name, edit) for name, edit in added)]
    _fit(variants, bench.context.pipe)
    kept = tuple(dict.fromkeys([*bench.context.kept, *(word for _, edit in added for word in edit.card.kept)]))
    config = bench.config.model_copy(update={"edits": (*bench.config.edits, *edits)})
    return replace(bench, config=config, context=replace(bench.context, kept=kept), variants=variants)


def _fit(variants: Sequence[Variant], pipe: Pipeline) -> None:
    """Raise InputError for what does not fit the model before anything is drawn."""
    distinct(variants)
    for variant in variants:
        with variant.applied(pipe):
            pass


def measure(
    bench: Bench, store: Cache | Memory, *, command: str = "", batch: int = 32, progress: Progress = no_progress
) -> tuple[Evaluation, Outcome]:
    """Draw and score: the record, and the pictures behind it."""
    context = bench.context
    outcome = run(context, bench.suites, bench.variants, bench.sampling, store, batch=batch, progress=progress)
    without = {"left_out": list(gone)} if (gone := left_out(context.pipe)) else {}
    evaluation = Evaluation(
        schema=VERSION,
        command=command,
        config=bench.config.model_dump(mode="json"),
        model={"name": model_name(context.pipe), "hash": outcome.model},
        sampling={**asdict(bench.sampling), "call": said_options(context.pipe), **without},
        n=context.n,
        seed=context.seed,
        detectors={kind: detector.source for kind, detector in context.detectors.items()},
        versions=versions(),
        device=str(context.pipe.device),
        seconds={stage: round(value, 2) for stage, value in outcome.seconds.items()},
        variants=tuple(
            VariantRecord(v.name, v.kind, tuple(concept.erase for concept in v.concepts), dict(v.settings), v.curve)
            for v in bench.variants
        ),
        suites=outcome.suites,
        measured=outcome.measured,
        answers=outcome.answers,
    )
    return evaluation, outcome


def evaluate(
    bench: Bench,
    folder: Path,
    cache: Path | None,
    *,
    command: str = "",
    batch: int = 32,
    remarks: Callable[[Evaluation], Sequence[str]] = lambda found: (),
    progress: Progress = no_progress,
    warn: Warn = warned,
) -> Evaluation:
    """Draw, score, and write FILES into `folder`, each whole or not at all. Under accelerate, one process writes.

    Records are written first. A picture or page that cannot be made afterwards is a line to `warn`, and all else stays.

    cache    folder of pictures, and what is there is not drawn again; None: everything is drawn anew
    remarks  sentences that the page says first, of what was found
    """
    store = Cache(cache) if cache else Memory()
    evaluation, outcome = measure(bench, store, command=command, batch=batch, progress=progress)
    if processes().is_main_process:

        def keep(name: str, text: str) -> None:
            write_whole(folder / name, lambda path: path.write_text(text, encoding="utf-8"))

        keep("scores.csv", scores_csv(evaluation.measured))
        keep("answers.csv", answers_csv(evaluation.answers))
        keep("evaluation.json", evaluation.to_json())
        with attempted("pictures.png", warn):
            save_sheets(folder / "pictures.png", contact(outcome.asked, outcome.galleries))
        with attempted("the figures' sheets", warn):
            for suite, sheets in figure_sheets(outcome.figures).items():
                save_sheets(folder / f"{suite}.png", sheets)
        with attempted("index.html", warn):
            keep("index.html", page(evaluation, outcome.asked, outcome.galleries, outcome.figures, remarks(evaluation)))
    processes().wait_for_everyone()
    return evaluation


def save_sheets(path: Path, sheets: Sequence[Image]) -> None:
    """Write sheets as NAME.png, NAME-2.png and so on."""
    for file, sheet in zip(paths(path, len(sheets)), sheets, strict=True):
        write_whole(file, partial(sheet.save, format="PNG"))


def named_file(text: str) -> tuple[str, Path]:
    """The name and the file of an edit, which may be given as NAME=FILE."""
    name, equals, file = text.partition("=")
    path = Path(file) if equals and not Path(text).exists() else Path(text)
    return (edit_name(path) if path == Path(text) else name), path


def _edit(text: str) -> tuple[str, Edit]:
    name, path = named_file(text)
    return name, Edit.load(path)


def as_variant(name: str, edit: Edit) -> Variant:
    """An edit as a variant."""
    card = edit.card
    settings: Mapping[str, Any] = {
        "method": card.method,
        **card.settings,
        "seed": card.seed,
        "made for": f"{card.base} {card.base_hash[:12]}",
        **({"made for other weights": card.forced_from[:12]} if card.forced_from else {}),
    }
    return Variant(name, "edit", f"edit {edit.fingerprint()}", card.concepts, edit.applied, settings, card.curve)


def _guard(name: str, concepts: Sequence[Concept]) -> Variant:
    """A variant of a guard against all concepts at once."""
    guard = guards.named(name, ", ".join(concept.erase for concept in concepts))
    key = f"guard {guard} {code(guards.__name__)}"
    return Variant(name, "guard", key, tuple(concepts), guard.applied, asdict(guard))
