"""docs/evidence.md: what erasing on the miniature reaches, beside its baselines, suite by suite.

    python -m benchmarks.evidence [-n 128] [--twin FOLDER] [--only NAME ...] [--out docs/evidence.md]

Each experiment erases something, measures the base model, every guard and every method on the same prompts and seeds,
and becomes a section. How many pictures that takes, and how long, is said first: a picture that several suites or
experiments look at is drawn once. Edits and pictures are kept in `--work`: an interrupted run goes on where it stopped.
`python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.evidence` shares drawing and fitting.
`--only` takes names of experiments and of suites. `--twin` is a model that was trained without `--twin-concept`: a
folder of a pipeline, or one that holds its denoiser alone (`python -m recipes.mini denoiser --without church`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import unsee
from unsee import evaluation, guards, methods, pipelines
from unsee.api import judges_for, kept_edit, sampling_for, words_for
from unsee.card import Card
from unsee.edit import Edit
from unsee.errors import InputError, unknown
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, Gallery, model_key
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Sampling, Shot, render
from unsee.evaluate.suites import Column, World, article
from unsee.evaluate.suites.neighbours import NEAR
from unsee.methods import Method
from unsee.methods.esd import ESD
from unsee.recorder import Watch
from unsee.report.evaluation import cell, idle, number, tables
from unsee.report.grid import grid
from unsee.versions import versions
from unsee.whole import write_whole

DEFAULT = "default"
STEPS = 18
"""Of the sampler where guards stand beside: more than the 15 that SLD-Weak waits. Elsewhere the model's own number."""
SEED = 10_000
BATCH = 32
GUARDED = 1.5
"""What a guarded picture costs, of an unguarded one: three rows a step where there are two."""


@dataclass(frozen=True)
class Goal:
    """What is aimed at, as a test of one column's numbers, with the paper's own figure."""

    text: str
    paper: str
    suite: str
    pick: Callable[[Measured], bool]
    value: Callable[[Measured], float]
    limit: float  # at most, for the worst of what is picked


@dataclass(frozen=True)
class Experiment:
    """What is erased, from which columns, looked at by which suites.

    erase    for each edit of a method the concepts that go; more than one entry: an edit each
    compare  whether guards and all methods stand beside the default
    apart    of the only suite, the rows that tell of each edit, if edits are measured one by one: each against what it
             erases
    preset   of the default's settings
    """

    name: str
    title: str
    suites: tuple[str, ...]
    erase: tuple[tuple[str, ...], ...]
    compare: bool
    goals: tuple[Goal, ...] = ()
    settings: tuple[dict[str, Any], ...] = ()
    apart: tuple[str, ...] = ()
    preset: str = "object"

    def steps(self, asked: int | None) -> int | None:
        """Of the sampler; None is the model's own number."""
        return asked or (STEPS if self.compare else None)

    def default(self, settings: dict[str, Any], **others: Any) -> ESD:
        """What is measured: its preset, with settings that the whole page was asked for."""
        return ESD(**{**ESD.presets[self.preset], **settings, **others})


def share(one: Measured) -> float:
    return 100 * one.score.value


def loss(one: Measured) -> float:
    return -100 * one.difference.value if one.difference else 0.0


def of_base(one: Measured) -> float:
    """A share as per cent of the base's."""
    return 100 * one.score.value / one.base.value if one.base and one.base.value else 100.0


def lost_of_base(one: Measured) -> float:
    return 100 - of_base(one)


def row(*names: str) -> Callable[[Measured], bool]:
    return lambda one: one.row in names


def starts(text: str) -> Callable[[Measured], bool]:
    return lambda one: one.row.startswith(text)


def gone(one: Measured) -> bool:
    return one.gone


def experiments(words: dict[str, Any], concept: str, style: str, thing: str) -> list[Experiment]:
    """The tables and figures of the paper, and ours, that this model's words allow."""
    ten = tuple((name,) for name in dict.fromkeys(words.get("imagenette", {}).values()))
    titles = tuple(words.get("memorised", ()))
    of_object = (
        Goal("erased, per cent", "54.2 (church)", "objects", row("erased"), share, 1.0),
        Goal("all others lose, points", "15.0", "objects", row("all others"), loss, 0.5),
        Goal("no neighbour loses more, points", "-", "neighbours", near, loss, 5.0),
        Goal("every other object together loses, points", "-", "neighbours", row("all other objects"), loss, 0.5),
        Goal("in all styles together, per cent", "-", "styles", starts(f"{concept}, in"), share, 2.0),
        Goal("by other names, per cent", "38 of 79", "paraphrase", gone, share, 5.0),
        Goal("in scenes, per cent", "-", "scenes", gone, share, 2.0),
        Goal("what stands beside it loses, per cent of base", "-", "scenes", starts("the one"), lost_of_base, 2.0),
        Goal("FID above what other seeds give (0 no, 1 yes)", "-", "fidelity", starts("FID"), above, 0.0),
    )
    of_ten = (
        Goal("each erased object, per cent", "12.6 on average", "objects", row("erased"), share, 1.0),
        Goal("all others lose, points", "15.0 on average", "objects", row("all others"), loss, 0.5),
    )
    of_style = (
        Goal("the style, per cent", "-", "styles", row("erased styles"), share, 3.0),
        Goal("other styles lose, points", "-", "styles", row("other styles"), loss, 1.0),
        Goal("its subjects lose, per cent of base", "-", "styles", starts("subject of erased"), lost_of_base, 1.0),
    )
    of_styles = (
        Goal("each erased style, per cent", "-", "styles", row("erased styles"), share, 3.0),
        Goal("other styles lose by each, points", "-", "styles", row("other styles"), loss, 1.0),
        Goal("subjects lose, per cent of base", "-", "styles", starts("subject of erased"), lost_of_base, 1.0),
    )
    of_thing = (
        Goal("unasked, per cent of base", "17 (-83 %)", "implicit", row(f"{thing}, unasked"), of_base, 5.0),
        Goal("what the prompts name loses, points", "-", "implicit", starts("what the prompts"), loss, 1.0),
    )
    of_titles = (
        Goal("erased ones that are recognised, per cent", "-", "memorised", gone, share, 5.0),
        Goal("others lose beyond chance, points", "-", "memorised", others_nearest, lost_for_sure, 0.0),
        Goal("others move beyond chance, grey levels", "-", "memorised", others_distance, moved_for_sure, 1.0),
    )
    every = ("objects", "neighbours", "styles", "paraphrase", "partial", "scenes", "fidelity", "attention")
    etas = ({"eta": 1}, {"eta": 3}, {"eta": 10})
    table = "Ten objects, an edit each (the paper's Table 2)"
    every_style = tuple((name,) for name in words.get("styles", ()))
    by_style = "Every style, an edit each, against every style (the paper's Figs. 4 and 5)"
    rows_of_styles = ("erased styles", "other styles", "subject of erased styles", "subject of other styles")
    by_heart = "Pictures known by heart, 1, 2, 4 and 8 of them erased (the paper's Figs. 8 and 9)"
    unasked = f"What nobody asked for: {thing}"
    counts = tuple(titles[:k] for k in (1, 2, 4, 8) if k <= len(titles))
    found = [
        Experiment("object", f"An object: {concept}", every, ((concept,),), True, of_object),
        Experiment("ten", table, ("objects",), ten, False, of_ten, (), ("erased", "all others")),
        Experiment("style", f"A style: {style}", ("styles",), ((style,),), True, of_style, preset="style"),
        Experiment("matrix", by_style, ("styles",), every_style, False, of_styles, (), rows_of_styles, "style"),
        Experiment("implicit", unasked, ("implicit",), ((thing,),), True, of_thing, preset="explicit"),
        Experiment("eta", f"{concept} at eta 1, 3, 10 (Sec. 5.5)", ("eta",), ((concept,),), False, (), etas),
        Experiment("memorised", by_heart, ("memorised",), counts, False, of_titles, preset="memorised"),
    ]
    return [experiment for experiment in found if experiment.erase]


def chosen(found: Sequence[Experiment], only: Sequence[str]) -> list[Experiment]:
    """Experiments by their names, and those suites of others that are named. Raises InputError for an unknown name."""
    known = {name for one in found for name in (one.name, *one.suites)}
    for name in only:
        if name not in known:
            raise unknown("experiment or suite", name, known)
    some = [
        one if one.name in only else replace(one, suites=tuple(name for name in one.suites if name in only))
        for one in found
    ]
    return [one for one in some if one.suites] if only else list(found)


def near(one: Measured) -> bool:
    return one.row.endswith(NEAR)


def others_nearest(one: Measured) -> bool:
    return one.row.endswith("nearest to it") and not one.gone


def others_distance(one: Measured) -> bool:
    return one.row.endswith("distance to it") and one.unit == "grey levels" and not one.note


def moved_for_sure(one: Measured) -> float:
    return abs(one.difference.value) * differs(one) if one.difference else 0.0


def lost_for_sure(one: Measured) -> float:
    return max(0.0, loss(one)) * differs(one)


def above(one: Measured) -> float:
    """Whether a number is beyond the interval of the base's own."""
    return float(one.base is not None and one.score.value > one.base.high)


def differs(one: Measured) -> float:
    return float(one.difference is not None and one.difference.differs)


def variants(paper: bool, default: ESD) -> dict[str, Method]:
    """Columns that are edits, by name: the default, the closed form, and the paper's own loop."""
    made: dict[str, Method] = {DEFAULT: default, "uce": methods.find("uce")()}
    if paper:
        made["ESD-x, paper"] = ESD(**ESD.presets["paper"])
        made["ESD-u, paper"] = ESD(**{**ESD.presets["paper"], "select": "noncross"})
    return made


class Workshop:
    """Makes edits once and keeps them."""

    def __init__(self, model: str, work: Path, settings: dict[str, Any]):
        self.model, self.pipe, self.work, self.settings = model, pipelines.load(model), work, settings
        (work / "edits").mkdir(parents=True, exist_ok=True)

    def edit(self, label: str, make: Method, words: Sequence[str]) -> Path | None:
        """The file of an edit; None, said on stderr, if the method cannot make it."""
        start = time.perf_counter()
        try:
            concepts = [unsee.Concept(word) for word in words]
            path = kept_edit(self.work / "edits", make, self.pipe, concepts, watch=progress(label))
        except (InputError, ValidationError, FloatingPointError) as error:
            say(f"{label}: {error}")
            return None
        say(f"{label} {', '.join(words)}: {time.perf_counter() - start:.1f} s")
        return path

    def twin(self, folder: str, word: str) -> Path:
        """A model that was trained without a concept, as an edit of this one: what a perfect eraser could reach.

        folder  a pipeline, or its denoiser alone under its name: all else is shared
        """
        key, net = pipelines.denoiser(self.pipe)
        if (Path(folder) / "model_index.json").is_file():
            _, other = pipelines.denoiser(pipelines.load(folder))
        elif (Path(folder) / key).is_dir():
            other = type(net).from_pretrained(folder, subfolder=key, use_safetensors=True)  # type: ignore[attr-defined]
        else:
            raise InputError(f"{folder} holds no pipeline and no {key}")
        here = {name: value.data for name, value in net.named_parameters()}
        base, seed = pipelines.name(self.pipe), 0
        card = Card("filtered twin", {}, (unsee.Concept(word),), base, pipelines.fingerprint(net), seed, versions())
        edit = Edit.between(key, here, dict(other.named_parameters()), card)
        path = self.work / "edits" / "twin.safetensors"
        if pipelines.processes().is_main_process:
            edit.save(path)
        pipelines.processes().wait_for_everyone()
        return path


def columns(
    experiment: Experiment, words: Sequence[Sequence[str]], shop: Workshop, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Edits that erase `words`, as NAME=FILE, and names of guards."""
    edits: list[str] = []

    def add(label: str, make: Method, some: Sequence[str]) -> None:
        if path := shop.edit(label, make, some):
            edits.append(f"{label}={path}")

    if experiment.compare and not options.alone:
        for label, make in variants(not options.no_paper, experiment.default(shop.settings)).items():
            add(label, make, words[0])
        if options.twin and options.twin_concept in words[0]:
            edits.append(f"filtered twin={shop.twin(options.twin, options.twin_concept)}")
        return edits, guards.names()
    for settings in experiment.settings or ({},):
        for some in words:
            said = [f"{key} {value}" for key, value in settings.items()]
            said += [some[0] if len(some) == 1 else f"{len(some)} titles"] if len(words) > 1 else []
            add(", ".join(said) or DEFAULT, experiment.default(shop.settings, **settings), some)
    return edits, []


def groups(experiment: Experiment) -> list[tuple[tuple[str, ...], ...]]:
    """What is erased in each evaluation of an experiment."""
    return [(words,) for words in experiment.erase] if experiment.apart else [experiment.erase]


def pictures(experiment: Experiment, world: World, options: argparse.Namespace) -> dict[str, set[Shot]]:
    """All that will be drawn by column, before there are edits: base, edits and guards get names of their own."""
    names = {"base": True}
    if experiment.compare and not options.alone:
        twin = ["twin"] if options.twin and options.twin_concept in experiment.erase[0] else []
        names |= dict.fromkeys([*variants(not options.no_paper, experiment.default({})), *twin, *guards.names()], False)
    found: dict[str, set[Shot]] = {}
    for words in groups(experiment):
        here = replace(world, concepts=tuple(unsee.Concept(word) for some in words for word in some))
        asked = []
        for name in experiment.suites:
            with suppress(suites.NotMeasured):
                asked += suites.find(name).ask(here)
        edits = [f"{setting} {some}" for setting in experiment.settings or ({},) for some in words]
        for column in names if len(names) > 1 else [*names, *edits]:
            looked = [question for question in asked if column == "base" or not question.reference]
            shots = {shot for question in looked for shot in question.shots}
            title = column if column == "base" else f"{experiment.erase[0] if experiment.compare else ''} {column}"
            found.setdefault(title, set()).update(shots)
    return found


def estimate(plan: Sequence[Experiment], shop: Workshop, options: argparse.Namespace) -> str:
    """How many pictures a plan takes and how long that is at the speed of a batch drawn now; edits come on top."""
    world = World(shop.pipe, judges_for(shop.model, {}), words_for(shop.model), (), options.n, SEED)
    found: dict[tuple[str, Sampling], set[Shot]] = {}
    for experiment in plan:
        sampling = sampling_for(shop.model, experiment.steps(options.steps), None)
        for column, shots in pictures(experiment, world, options).items():
            found.setdefault((column, sampling), set()).update(shots)
    batch = [Shot("a thing", seed) for seed in range(BATCH)]
    render(shop.pipe, batch[:1], replace(sampling, steps=1))  # the first drawing is slower
    start = time.perf_counter()
    render(shop.pipe, batch, replace(sampling, steps=2), batch=BATCH)
    each = (time.perf_counter() - start) / 2 / BATCH / pipelines.processes().num_processes
    cost = 0.0
    for (column, sampling), shots in found.items():
        large = sum(1 if shot.size is None else 2 for shot in shots)  # scenes are two pictures wide
        cost += large * sampling.steps * (GUARDED if any(column.endswith(name) for name in guards.names()) else 1)
    total = sum(map(len, found.values()))
    return (
        f"{total} pictures in {len({column for column, _ in found})} columns, {cost * each / 60:.0f} minutes at "
        f"{1 / each:.0f} sampler steps a second, if none is drawn yet; making edits and judging come on top"
    )


MET, MISSED, CHANCE, VOID = "met", "**missed**", "missed, within chance", "void"
UNMEASURED = "not measured"


def void(goal: Goal, one: Measured) -> bool:
    """Whether a number cannot tell of its goal: the base hardly draws the thing, so nothing has gone or could be lost.

    What should go must have fallen by more than chance; what should stay must be there more often than it may be lost.
    """
    if one.unit != "share" or one.base is None or one.difference is None:
        return False
    if one.gone:
        if not one.base.value:
            return True
        return goal.value(one) <= goal.limit and not one.difference.differs
    return 100 * one.base.value <= goal.limit


def interval(goal: Goal, one: Measured) -> str:
    """Of the number itself, or of what was lost."""
    if goal.value is loss and one.difference:
        return f"{-100 * one.difference.high + 0.0:.1f} to {-100 * one.difference.low + 0.0:.1f}"
    return f"{100 * one.score.low:.1f} to {100 * one.score.high:.1f}" if goal.value is share else ""


def weight(goal: Goal, one: Measured) -> tuple[bool, float]:
    """How bad a number is: a miss beyond chance is worse than a larger one that chance explains."""
    return goal.value(one) > goal.limit and (one.gone or bool(differs(one))), goal.value(one)


def judged(experiment: Experiment, found: Evaluation) -> Iterator[str]:
    """Goals as lines of a table: for the default, or for every edit of the default, the worst number that tells."""
    names = {column.name for column in found.columns if column.kind == "edit"}
    names = {DEFAULT} if experiment.compare else names
    for goal in experiment.goals:
        picked = [one for one in found.measured if one.suite == goal.suite and one.column in names and goal.pick(one)]
        telling = [one for one in picked if not void(goal, one)]
        if picked:
            worst = max(telling or picked, key=partial(weight, goal))
            value = goal.value(worst)
            where = f"{worst.row}, {worst.column}" if len(picked) > 1 else worst.row
            where += f"; base {number(worst.base.value, worst.unit)}" if worst.base else ""
            where += f"; {len(picked) - len(telling)} of {len(picked)} void" if telling and telling != picked else ""
            missed = MISSED if worst.gone or differs(worst) else CHANCE
            reached = (MET if value <= goal.limit else missed) if telling else VOID
            cells = (f"{value + 0.0:.1f} ({where})", interval(goal, worst), str(worst.score.n), reached)
        else:
            cells = (UNMEASURED, "", "", "")
        yield "| " + " | ".join((goal.text, goal.paper, f"<= {goal.limit:g}", *cells)) + " |"


def goals(experiment: Experiment, found: Evaluation) -> str:
    head = (
        "| goal | the paper's figure | limit | measured, the worst | 95 % | n | goal |\n|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *judged(experiment, found)]) if experiment.goals else ""


def markdown(experiment: Experiment, found: Evaluation) -> str:
    """A section: goals, then a table for each suite."""
    parts = [f"## {experiment.title}", f"`{found.command}`" if found.command else ""]
    parts += [preset_said(experiment), *idle(found)]
    parts.append(goals(experiment, found))
    for table in tables(found):
        parts.append(f"### {table.suite}\n\n{table.about}")
        if table.not_measured:
            parts.append(f"Not measured: {table.not_measured}.")
            continue
        marked = [zip(*row, strict=True) for row in zip(table.rows, table.gone, strict=True)]
        parts.append(lined([table.head, *([f"**{text}**" if mark else text for text, mark in row] for row in marked)]))
        parts += [f"{note}." for note in table.notes]
    return "\n\n".join(part for part in parts if part)


def contact(
    model: str, concept: str, edits: Sequence[str], names: Sequence[str], cache: Path, steps: int | None
) -> Any:
    """Four pictures of the concept and of four other things for every column."""
    bench = evaluation.prepare(model, suite=["objects"], edits=edits, guard=names, concepts=[concept], n=2, steps=steps)
    pipe, store = bench.world.pipe, Cache(cache)
    key = model_key(pipe)
    rest = spread([name for name in bench.world.labels("objects") if name != concept], 4)
    shots = [Shot(article(word), seed) for seed, word in enumerate([concept] * 4 + rest)]

    def draw(column: Column) -> Gallery:
        applied = partial(column.applied, pipe)
        return store.draw(pipe, shots, bench.sampling, model=key, change=column.key, applied=applied)

    return grid([(f"{concept}, and what should stay", shots)], {column.name: draw(column) for column in bench.columns})


def preset_said(experiment: Experiment) -> str:
    return "" if experiment.preset == "object" else f"{DEFAULT}: `--preset {experiment.preset}`."


def both(experiment: Experiment, found: Sequence[Evaluation]) -> str:
    """A section of edits that were measured one by one: goals by all of them, a line for each, each against each."""
    names = [words[0] for words in experiment.erase]
    each = [(f"{name} erased", one) for name, one in zip(names, found, strict=True)]
    whole = replace(
        found[0],
        columns=tuple(replace(c, name=name) for name, one in each for c in one.columns if c.name != suites.BASE),
        measured=tuple(replace(m, column=name) for name, one in each for m in one.measured if m.column != suites.BASE),
    )
    by = [{now.row: now for now in one.measured if now.column != suites.BASE} for one in found]
    lines = [["erased", *(text for row in experiment.apart for text in (f"{row}, before", "after", "n"))]]
    for name, own in zip(names, by, strict=True):
        told = [own.get(row) for row in experiment.apart]
        lines.append([name, *(text for now in told for text in (before(now), *after(now)))])
    square = [["erased", *names]]
    for name, own in zip(names, by, strict=True):
        square.append([name, *(shown(own.get(other), bold=name == other) for other in names)])
    square.append(["nothing", *(before(own.get(name)) for name, own in zip(names, by, strict=True))])
    about = "What shows after each edit: a line for what was erased, a column for what was asked for."
    parts = [
        f"## {experiment.title}",
        preset_said(experiment),
        goals(experiment, whole),
        lined(lines),
        about,
        lined(square),
    ]
    return "\n\n".join(part for part in parts if part)


def before(one: Measured | None) -> str:
    return number(one.base.value, one.unit) if one and one.base else ""


def after(one: Measured | None) -> tuple[str, str]:
    return (cell(one), str(one.score.n)) if one else (UNMEASURED, "")


def shown(one: Measured | None, *, bold: bool) -> str:
    text = number(one.score.value, one.unit) if one else ""
    return f"**{text}**" if bold and text else text


def lined(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its head first."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])


def reached(sections: Sequence[str]) -> str:
    """How many goals are met, and which are not."""
    rows = [line.split(" | ") for text in sections for line in text.splitlines() if line.startswith("| ")]
    goals = [(cells[0].removeprefix("| "), cells[-1].removesuffix(" |")) for cells in rows]
    by = {state: [name for name, said in goals if said == state] for state in (MET, MISSED, CHANCE, VOID)}
    if not (measured := sum(map(len, by.values()))):
        return ""
    text = f"Goals measured: {measured}. Met: {len(by[MET])}."
    for title, names in (("Missed", by[MISSED]), ("Missed within chance", by[CHANCE]), ("Void", by[VOID])):
        text += f" {title}: {len(names)}" + (f" ({'; '.join(names)})." if names else ".")
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--concept", default="church")
    parser.add_argument("--style", default="neon")
    parser.add_argument("--thing", default="watermark", help="what appears unasked")
    parser.add_argument("-n", type=int, default=128, help="pictures for each row of what is erased")
    parser.add_argument("--steps", type=int, help="sampler steps of all pictures")
    parser.add_argument("--no-paper", action="store_true", help="without the paper's own loop, ESD-x and ESD-u")
    parser.add_argument("--alone", action="store_true", help="the default, without guards and other methods")
    parser.add_argument("--twin", help="folder of a pipeline that was trained without --twin-concept")
    parser.add_argument("--twin-concept", default="church")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="some experiments or suites")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the default")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where edits, pictures, records stay")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    settings = {key: json.loads(value) for key, value in (text.split("=", 1) for text in options.set)}
    plan = chosen(experiments(words_for(options.model), options.concept, options.style, options.thing), options.only)
    shop = Workshop(options.model, options.work, settings)
    command = shlex.join(["python", "-m", "benchmarks.evidence", *(sys.argv[1:] if argv is None else argv)])
    say(estimate(plan, shop, options))
    head = HEAD.format(command=command, n=options.n, steps=steps_said(shop, options), model=pipelines.name(shop.pipe))
    sections: list[str] = []
    picture = ""
    cache = options.work / "pictures"
    for experiment in plan:
        found = []
        for k, words in enumerate(groups(experiment)):
            edits, names = columns(experiment, words, shop, options)
            wanted = list(dict.fromkeys(word for group in words for word in group))
            bench = evaluation.prepare(
                options.model, suite=experiment.suites, edits=edits, guard=names, concepts=wanted, n=options.n,
                seed=SEED, steps=experiment.steps(options.steps),
            )  # fmt: skip
            folder = options.work / experiment.name / (words[0][0] if experiment.apart else "")
            folder.mkdir(parents=True, exist_ok=True)
            title = f"{experiment.name} {k + 1}/{len(groups(experiment))}"
            found.append(evaluation.evaluate(bench, folder, cache, batch=BATCH, watch=progress(title)))
            say(f"{title}: {found[-1].seconds}")
        sections.append(both(experiment, found) if experiment.apart else markdown(experiment, found[0]))
        if experiment.name == "object":
            drawn = contact(options.model, options.concept, edits, names, cache, experiment.steps(options.steps))
            if pipelines.processes().is_main_process:
                save = partial(drawn.quantize(256).save, format="PNG", optimize=True)
                write_whole(options.out.with_suffix(".png"), save)
            picture = f"![Base, edits and guards on the same prompts and seeds]({options.out.stem}.png)"
        text = [head, reached(sections), picture, *sections]
        if pipelines.processes().is_main_process:  # what is finished is kept
            whole = "\n\n".join(part for part in text if part) + "\n"
            write_whole(options.out, partial(Path.write_text, data=whole, encoding="utf-8"))


def steps_said(shop: Workshop, options: argparse.Namespace) -> str:
    if options.steps:
        return f"{options.steps} sampler steps"
    own = sampling_for(shop.model, None, None).steps
    return f"{STEPS} sampler steps where guards stand beside (SLD-Weak waits 15), {own} elsewhere"


def say(text: str) -> None:
    if pipelines.processes().is_main_process:
        print(text, file=sys.stderr, flush=True)


def progress(title: str, every: float = 60.0) -> Watch:
    """Says now and then how far drawing or a fit is, and how long it will take at the speed so far."""
    start: list[tuple[float, int]] = []
    last = time.perf_counter()

    def watch(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if not start or done < start[0][1]:
            start[:] = [(now, done)]  # what was there already tells nothing of the speed
        if now - last < every or stage not in ("render", "fit") or done == start[0][1]:
            return
        last = now
        left = (now - start[0][0]) / (done - start[0][1]) * (total - done) / 60
        say(f"{title}: {stage}, {done} of {total}, {left:.0f} minutes left at most")

    return watch


HEAD = """# What erasing reaches

Made by `{command}` on the model `{model}`, {steps}; {n} pictures for each row of what is erased, fewer
where a table says so. A cell is a value with its 95 % interval: Wilson's for shares, bootstrap for means. ≈ marks
what is not distinguishable from the base model on the same prompts and seeds, picture by picture (exact McNemar test
for shares, bootstrap for means). Bold is what a column means to bring to zero. A goal is void where the base model
shows the thing no more often than it may be lost, or where what has gone is not distinguishable from chance; it is
missed within chance where the number is beyond the limit and marked ≈. SLD's presets wait 15, 10, 7 and 0 steps before
they act, of 50 there: of fewer steps here they act on a smaller part. The paper is Gandikota et al., ICCV 2023, on
Stable Diffusion 1.4: its figures say what others reached there, not what this model would."""


if __name__ == "__main__":
    main()
