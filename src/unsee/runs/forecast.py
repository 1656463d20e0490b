"""What a run would take, before it starts: denoiser passes, seconds, memory, files. What `--dry-run` prints.

    seconds = passes x seconds of a pass + pictures x seconds of a picture without its passes

A pass is one row that the denoiser answers; one with a gradient counts as GRADIENT of them. Both times are measured
here: a pass by a few real calls, a picture by a rehearsal in which the denoiser answers zeros and computes nothing.
The rehearsal also counts the passes of a picture, whatever the family, the sampler or the guard. Detectors, pages and
what a closed form solves are not in the estimate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from unsee.denoising.record import conditions
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.attacked import ATTACKED
from unsee.evaluate.cache import Cache
from unsee.evaluate.context import BASE, EvalContext, NotMeasured, Variant
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Sampling, Shot
from unsee.evaluate.run import base
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.fit.memory import expected
from unsee.fit.search import ROWS
from unsee.methods.prompts import known_words, preserved_words
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.distributed import processes
from unsee.models.memory import free
from unsee.models.model import Model
from unsee.models.weights import select
from unsee.report.grid import contact, paths
from unsee.runs import attack as attacking
from unsee.runs import evaluate as evaluating
from unsee.runs import tradeoff
from unsee.runs.erase import NAME, Plan, peak_memory
from unsee.runs.evaluate import Bench
from unsee.runs.folder import EDIT, RECORD
from unsee.runs.rehearsal import Rehearsal
from unsee.runs.siege import BUDGETS, Siege

GRADIENT = 3
"""A pass with its gradient takes the time of this many passes: the way back multiplies by each layer twice."""
SLOW = ("attention", "knowledge")
"""Suites that call the denoiser while they score."""


@dataclass(frozen=True)
class Work:
    """A part of a run.

    passes     rows that the denoiser answers without a gradient
    gradients  rows that it answers with one
    pictures   that are drawn
    """

    what: str
    passes: int = 0
    gradients: int = 0
    pictures: int = 0


@dataclass(frozen=True)
class Forecast:
    """What a run would take.

    one_pass, one_picture  seconds, measured: of a pass, and of a picture without its passes
    peak      bytes that this process has held so far, with the model, a few passes and pictures at once
    fit       the memory of a fit, in a line; "" where nothing is fitted
    files     what it would write
    warnings  what would go wrong, and what helps
    """

    work: tuple[Work, ...]
    one_pass: float
    one_picture: float
    peak: int | None
    fit: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()

    def seconds(self, work: Work) -> float:
        """The estimate for a part, shared by all processes."""
        passes = work.passes + GRADIENT * work.gradients
        whole = passes * self.one_pass + work.pictures * self.one_picture
        return whole / int(processes().num_processes)

    @property
    def passes(self) -> int:
        """Passes of all parts, with a gradient and without."""
        return sum(one.passes + one.gradients for one in self.work)


def of_erase(plan: Plan, folder: Path, cache: Path, batch: int = 32) -> Forecast:
    """What `erase` would do with a plan."""
    config, method = plan.config, plan.method
    assert config.pictures
    assert config.steps is not None
    assert config.guidance_scale is not None
    sampling = Sampling(config.steps, config.guidance_scale)
    rehearsal = Rehearsal(plan.model, sampling, batch)
    nets = len(denoisers(plan.model))
    work: list[Work] = []
    warnings: list[str] = []
    fit = "no more than drawing: the edit is solved, not trained"
    if config.auto:
        work.append(Work("trade-off", nets * tradeoff.passes(config.concepts)))
    if hasattr(method, "compared") and (rows := method.compared(plan.model, config.concepts)):
        work.append(Work("compare", nets * rows))
    if hasattr(method, "passes"):
        passes, gradients = method.passes(config.concepts)
        work.append(Work("fit", nets * passes, nets * gradients))
        fit, warnings = _fit(plan)
    elif hasattr(method, "learned"):
        fit = "unknown"
        warnings.append(f"the passes of {config.method} are unknown, and not counted")
    kept: list[str] = []  # about the words that the edit will preserve: some methods draw more at random
    if hasattr(method, "neutral"):
        kept = preserved_words(config.concepts, method.neutral)
    elif not hasattr(method, "learned"):
        kept = known_words(plan.model, config.concepts)
    context = EvalContext(
        plan.model, plan.detectors, plan.words, config.concepts, config.pictures, config.seed, kept=tuple(kept)
    )
    asked = {SUMMARY: suites.find(SUMMARY).ask(context)}
    edited = Variant(NAME, "edit", "not made yet", config.concepts, base(()).applied)
    variants = [base(config.concepts), edited]
    work += _drawing(rehearsal, asked, variants, Cache(cache))
    sheets = _sheets(asked, ("before", "after"), rehearsal.plain[2])
    files = [folder / EDIT, folder / RECORD, folder / "index.html", *paths(folder / "before-after.png", sheets)]
    return _forecast(rehearsal, work, files, warnings, fit)


def of_evaluate(bench: Bench, folder: Path, cache: Path, batch: int = 32) -> Forecast:
    """What `evaluate` would do with what was prepared."""
    rehearsal = Rehearsal(Model.of(bench.context.pipe), bench.sampling, batch)
    asked, warnings = {}, []
    for suite in bench.suites:
        try:
            asked[suite.name] = suite.ask(bench.context)
        except NotMeasured as reason:
            warnings.append(f"{suite.name} cannot be measured: {reason}")
    work = _drawing(rehearsal, asked, bench.variants, Cache(cache))
    if slow := [name for name in asked if name in SLOW]:
        warnings.append(f"{' and '.join(slow)}: passes of the denoiser while pictures are scored are not counted")
    files = [folder / name for name in evaluating.FILES if name != "pictures.png"]
    count = _sheets(asked, [one.name for one in bench.variants], rehearsal.plain[2]) if any(asked.values()) else 0
    files += paths(folder / "pictures.png", count)
    files += [folder / f"{name}.png" for name in asked if name == "attention"]
    return _forecast(rehearsal, work, files, warnings)


def of_attack(siege: Siege, folder: Path, batch: int = 32) -> Forecast:
    """What `attack` would do: at most the budget of each search, and the pictures of every row."""
    rehearsal = Rehearsal(siege.model, siege.sampling, batch)
    passes, tries = BUDGETS[siege.budget]
    full, each = siege.budget == "full", rehearsal.plain[0]
    work = [Work("the name", 2 * each * siege.n, 0, 2 * siege.n)]  # of the base, and of the edit
    for attack in siege.attacks:
        times = tries * len(attacking.columns(siege, attack))
        pictures = times * attack.rows[full] * siege.n
        searched = times * attack.searches[full] * passes
        work.append(Work(attack.name, each * pictures, searched, pictures))
    fit, warnings = _searches(siege)
    return _forecast(rehearsal, work, [folder / name for name in attacking.FILES], warnings, fit)


def _forecast(
    rehearsal: Rehearsal, work: Sequence[Work], files: Sequence[Path], warnings: Sequence[str], fit: str = ""
) -> Forecast:
    return Forecast(
        tuple(work), rehearsal.one_pass, rehearsal.plain[1], peak_memory(), fit, tuple(files), tuple(warnings)
    )


def _drawing(
    rehearsal: Rehearsal, asked: Mapping[str, Sequence[Question]], variants: Sequence[Variant], cache: Cache
) -> list[Work]:
    """What each variant has to draw; what the cache holds is not drawn again."""
    pipe, sampling, found = rehearsal.model, rehearsal.sampling, []
    key = cache.key(pipe)
    for variant in variants:
        shots = {
            shot: None
            for questions in asked.values()
            for question in questions
            if variant.kind == BASE or not question.reference
            for shot in question.shots
        }
        missing = [one for one in shots if not cache.path(key, variant.key, one, sampling).exists()]
        guidances = Counter(one.guidance for one in missing)
        passes = sum(count * rehearsal.picture(variant, scale)[0] for scale, count in guidances.items())
        kept = f", {len(shots) - len(missing)} kept" if len(missing) < len(shots) else ""
        found.append(Work(f"draw {variant.name}{kept}", passes, 0, len(missing)))
    return found


class _Blank(dict[Shot, Image.Image]):
    """One picture for every shot."""

    def __init__(self, picture: Image.Image):
        super().__init__()
        self.picture = picture

    def __missing__(self, shot: Shot) -> Image.Image:
        return self.picture


def _sheets(asked: Mapping[str, Sequence[Question]], models: Sequence[str], picture: Image.Image) -> int:
    """How many sheets of pictures there will be."""
    return len(contact(asked, dict.fromkeys(models, _Blank(picture))))


def _fit(plan: Plan) -> tuple[str, list[str]]:
    """The memory of a fit, in a line; and a warning if the device does not hold it, with what does."""
    method, model = plan.method, plan.model
    most, device = None, model.device
    for key, net in denoisers(model).items():
        one = replace(model, focus=key)
        row = conditions(one, [plan.config.concepts[0].erase], answered=False)
        moments = 2 if method.optimizer == "adam" else 1
        try:
            found = expected(one, row, method.weights(net), method.learned(net), moments)
        except InputError as error:
            return f"unknown: {error}", []
        most = found if most is None or found.state + found.row > most.state + most.row else most
    assert most
    fit = most.sentence(device, 2 * method.batch, method.gradient_checkpointing)
    there = free(device)
    least = most.row if method.gradient_checkpointing is False else min(most.row, most.checkpointed)
    if most.state + least <= there:
        return fit, []
    ways = ["`method='balance'`, which is solved and takes no more than drawing"]
    if most.state + most.checkpointed <= there:
        ways = ["`gradient_checkpointing=True`", *ways]
    elif most.checkpointed <= there:
        ways = ["`method='lora'`, which trains few numbers", *ways]
    return fit, [f"the fit does not fit into {there / 1e9:.1f} GB on {device}: take {', or '.join(ways)}"]


def _searches(siege: Siege) -> tuple[str, list[str]]:
    """The memory of the largest search that takes gradients, in a line; and a warning if the device does not hold it.

    Adam in place takes a copy, a gradient and two moments of each weight in its own precision. All weights are counted
    for every attack on weights. A search for a text keeps no more of a row than a fit of all weights. Text encoders,
    through which some texts are learned, are not counted.
    """
    full, model = siege.budget == "full", siege.model
    axes: dict[str, list[str]] = {}
    for attack in siege.attacks:
        if attack.searches[full] and attack.axis != "pictures":  # inversion takes no gradient
            axes.setdefault(attack.axis, []).append(attack.name)
    names = axes.get("weights") or [name for some in axes.values() for name in some]
    if not names:
        return "", []
    weights, said = select(denoiser(model)[1], "all"), ", ".join(names)
    row = conditions(model, [siege.aims[ATTACKED].word], answered=False)
    learned = sum(weight.numel() for weight in weights.values())
    try:
        found = expected(model, row, weights, learned, 2)
    except InputError as error:
        return f"unknown: {error}", [f"the memory of attacks that train ({said}) is not estimated"]
    copies = sum(weight.numel() * weight.itemsize for weight in weights.values())
    found = replace(found, state=4 * copies if "weights" in axes else 0)
    fit = f"{said}: {found.sentence(model.device, ROWS, False, whole=True)}"
    if (there := free(model.device)) >= found.state + ROWS * found.row:
        return fit, []
    return fit, [f"{said} may not fit into {there / 1e9:.1f} GB on {model.device}"]
