"""docs/evidence.md: what erasing on the miniature reaches, beside its baselines, suite by suite.

    python -m benchmarks.evidence [-n 200] [--paper] [--twin FOLDER] [--only NAME ...] [--out docs/evidence.md]

Each experiment erases something, measures the base model, every guard and every method on the same prompts and seeds,
and becomes a section. Edits and pictures are kept in `--work`, so that an interrupted run goes on where it stopped.
`--paper` adds the paper's own loop (slow); `--twin` a model that was trained without the concept `--twin-concept`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import unsee
from unsee import evaluation, guards, methods, pipelines
from unsee.api import folder_name
from unsee.card import Card, settings_of
from unsee.edit import Edit
from unsee.errors import InputError
from unsee.evaluate.cache import Cache, Gallery, model_key
from unsee.evaluate.questions import spread
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Column, article
from unsee.methods.esd import ESD
from unsee.report.evaluation import idle, tables
from unsee.report.grid import grid
from unsee.versions import versions

DEFAULT = "default"
Make = Callable[[Any, Sequence[unsee.Concept]], Edit]


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
    """

    name: str
    title: str
    suites: tuple[str, ...]
    erase: tuple[tuple[str, ...], ...]
    compare: bool
    goals: tuple[Goal, ...] = ()
    settings: tuple[dict[str, Any], ...] = ({},)


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
    ten = tuple((name,) for name in dict.fromkeys(words.get("imagenette", {}).values())) or ((concept,),)
    titles = tuple(words.get("memorised", ()))
    of_object = (
        Goal("erased, per cent", "54.2 (church)", "objects", row("erased"), share, 1.0),
        Goal("all others lose, points", "15.0", "objects", row("all others"), loss, 0.5),
        Goal("no object loses more, points", "-", "neighbours", lambda one: not one.gone, loss, 5.0),
        Goal("in every style, per cent", "-", "styles", starts(f"{concept}, in"), share, 2.0),
        Goal("by other names, per cent", "38 of 79", "paraphrase", gone, share, 5.0),
        Goal("what stands beside it loses, per cent of base", "-", "scenes", starts("the one"), lost_of_base, 2.0),
        Goal("FID moves more than seeds do (0 no, 1 yes)", "-", "fidelity", starts("FID"), differs, 0.0),
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
    of_thing = (
        Goal("unasked, per cent of base", "17 (-83 %)", "implicit", row(f"{thing}, unasked"), of_base, 5.0),
        Goal("what the prompts name loses, points", "-", "implicit", starts("what the prompts"), loss, 1.0),
    )
    of_titles = (Goal("erased ones that are recognised, per cent", "-", "memorised", gone, share, 5.0),)
    every = ("objects", "neighbours", "styles", "paraphrase", "partial", "scenes", "fidelity")
    etas = ({"eta": 1}, {"eta": 3}, {"eta": 10})
    by_heart = "Pictures known by heart, 1, 2, 4 and 8 of them erased (the paper's Figs. 8 and 9)"
    counts = tuple(titles[:k] for k in (1, 2, 4, 8) if k <= len(titles))
    found = [
        Experiment("object", f"An object: {concept}", every, ((concept,),), True, of_object),
        Experiment("ten", "Ten objects, an edit each (the paper's Table 2)", ("objects",), ten, False, of_ten),
        Experiment("style", f"A style: {style}", ("styles",), ((style,),), True, of_style),
        Experiment("implicit", f"What nobody asked for: {thing}", ("implicit",), ((thing,),), True, of_thing),
        Experiment("eta", f"{concept} at eta 1, 3, 10 (Sec. 5.5)", ("eta",), ((concept,),), False, (), etas),
        Experiment("memorised", by_heart, ("memorised",), counts, False, of_titles),
    ]
    return [experiment for experiment in found if experiment.erase]


def differs(one: Measured) -> float:
    return float(one.difference is not None and one.difference.differs)


def variants(paper: bool, settings: dict[str, Any]) -> dict[str, Make]:
    """Columns that are edits, by name: every method as it comes, and the paper's presets if asked for."""
    made: dict[str, Make] = {DEFAULT: ESD(**settings)}
    if paper:
        made["ESD-x, paper"] = ESD(**ESD.presets["paper"])
        made["ESD-u, paper"] = ESD(**{**ESD.presets["paper"], "select": "noncross"})
    for name in methods.names():
        if name != "esd":
            made[name] = methods.find(name)()
    return made


class Workshop:
    """Makes edits once and keeps them."""

    def __init__(self, model: str, work: Path, settings: dict[str, Any]):
        self.pipe, self.work, self.settings = pipelines.load(model), work, settings
        (work / "edits").mkdir(parents=True, exist_ok=True)

    def edit(self, label: str, make: Make, words: Sequence[str]) -> Path | None:
        """The file of an edit; None, said on stderr, if the method cannot make it."""
        path = self.work / "edits" / f"{folder_name([label, *words])}.safetensors"
        _, net = pipelines.denoiser(self.pipe)
        if path.is_file():
            card = Edit.load(path).card
            if (card.base_hash, card.settings) == (pipelines.fingerprint(net), settings_of(make)):
                return path
        start = time.perf_counter()
        try:
            edit = make(self.pipe, [unsee.Concept(word) for word in words])
        except (InputError, ValidationError, FloatingPointError) as error:
            print(f"{label}: {error}", file=sys.stderr)
            return None
        print(f"{label} {', '.join(words)}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        return edit.save(path)

    def twin(self, folder: str, word: str) -> Path:
        """A model that was trained without a concept, as an edit of this one: what a perfect eraser could reach."""
        key, net = pipelines.denoiser(self.pipe)
        _, other = pipelines.denoiser(pipelines.load(folder))
        here = {name: value.data for name, value in net.named_parameters()}
        base, seed = pipelines.name(self.pipe), 0
        card = Card("filtered twin", {}, (unsee.Concept(word),), base, pipelines.fingerprint(net), seed, versions())
        edit = Edit.between(key, here, dict(other.named_parameters()), card)
        return edit.save(self.work / "edits" / "twin.safetensors")


def columns(experiment: Experiment, shop: Workshop, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Edits as NAME=FILE and names of guards."""
    edits: list[str] = []

    def add(label: str, make: Make, words: Sequence[str]) -> None:
        if path := shop.edit(label, make, words):
            edits.append(f"{label}={path}")

    if experiment.compare:
        for label, make in variants(options.paper, shop.settings).items():
            add(label, make, experiment.erase[0])
        if options.twin and options.twin_concept in experiment.erase[0]:
            edits.append(f"filtered twin={shop.twin(options.twin, options.twin_concept)}")
        return edits, guards.names()
    for settings in experiment.settings:
        for words in experiment.erase:
            said = [f"{key} {value}" for key, value in settings.items()]
            said += [words[0] if len(words) == 1 else f"{len(words)} titles"] if len(experiment.erase) > 1 else []
            add(", ".join(said) or DEFAULT, ESD(**{**shop.settings, **settings}), words)
    return edits, []


def judged(experiment: Experiment, found: Evaluation) -> Iterator[str]:
    """Goals as lines of a table: for the default, or for every edit of the default, the worst number."""
    names = {column.name for column in found.columns if column.kind == "edit"}
    names = {DEFAULT} if experiment.compare else names
    for goal in experiment.goals:
        picked = [one for one in found.measured if one.suite == goal.suite and one.column in names and goal.pick(one)]
        if picked:
            worst = max(picked, key=goal.value)
            value = goal.value(worst)
            where = f"{worst.row}, {worst.column}" if len(picked) > 1 else worst.row
            reached = "yes" if value <= goal.limit else "**no**"
            cells = (f"{value + 0.0:.1f} ({where})", str(worst.score.n), reached)
        else:
            cells = ("not measured", "", "")
        yield "| " + " | ".join((goal.text, goal.paper, f"<= {goal.limit:g}", *cells)) + " |"


def markdown(experiment: Experiment, found: Evaluation) -> str:
    """A section: goals, then a table for each suite."""
    parts = [f"## {experiment.title}", f"`{found.command}`" if found.command else ""]
    parts += idle(found)
    if experiment.goals:
        head = "| goal | the paper's figure | limit | measured, the worst | n | reached |\n|---|---|---|---|---|---|"
        parts.append("\n".join([head, *judged(experiment, found)]))
    for table in tables(found):
        parts.append(f"### {table.suite}\n\n{table.about}")
        if table.not_measured:
            parts.append(f"Not measured: {table.not_measured}.")
            continue
        lines = ["| " + " | ".join(table.head) + " |", "|---|" + "---:|" * (len(table.head) - 1)]
        for cells, marks in zip(table.rows, table.gone, strict=True):
            texts = [f"**{text}**" if mark else text for text, mark in zip(cells, marks, strict=True)]
            lines.append("| " + " | ".join(texts) + " |")
        parts.append("\n".join(lines))
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


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--concept", default="church")
    parser.add_argument("--style", default="neon")
    parser.add_argument("--thing", default="watermark", help="what appears unasked")
    parser.add_argument("-n", type=int, default=200, help="pictures for each row")
    parser.add_argument("--steps", type=int, help="sampler steps of the pictures; default as the model's card says")
    parser.add_argument("--paper", action="store_true", help="also the paper's own loop, ESD-x and ESD-u")
    parser.add_argument("--twin", help="folder of a pipeline that was trained without --twin-concept")
    parser.add_argument("--twin-concept", default="church")
    parser.add_argument("--only", nargs="*", help="experiments by name")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the default")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where edits, pictures, records stay")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    settings = {key: json.loads(value) for key, value in (text.split("=", 1) for text in options.set)}
    said = pipelines.card(options.model)
    words = json.loads(Path(said["words"]).read_text(encoding="utf-8")) if "words" in said else {}
    shop = Workshop(options.model, options.work, settings)
    command = shlex.join(["python", "-m", "benchmarks.evidence", *(sys.argv[1:] if argv is None else argv)])
    text = [HEAD.format(command=command, n=options.n, model=pipelines.name(shop.pipe))]
    for experiment in experiments(words, options.concept, options.style, options.thing):
        if options.only and experiment.name not in options.only:
            continue
        edits, names = columns(experiment, shop, options)
        wanted = list(dict.fromkeys(word for group in experiment.erase for word in group))
        bench = evaluation.prepare(
            options.model, suite=experiment.suites, edits=edits, guard=names, concepts=wanted, n=options.n, seed=10_000,
            steps=options.steps,
        )  # fmt: skip
        folder, cache = options.work / experiment.name, options.work / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        found = evaluation.evaluate(bench, folder, cache)
        text.append(markdown(experiment, found))
        print(f"{experiment.name}: {found.seconds}", file=sys.stderr)
        if experiment.name == "object":
            picture = contact(options.model, options.concept, edits, names, cache, options.steps)
            picture.quantize(256).save(options.out.with_suffix(".png"), optimize=True)
            text.insert(1, f"![Base, edits and guards on the same prompts and seeds]({options.out.stem}.png)")
        options.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")  # what is finished is kept


HEAD = """# What erasing reaches

Made by `{command}` on the model `{model}`; {n} pictures for each row where a table does not say otherwise. A cell is a
value with its 95 % interval: Wilson's for shares, bootstrap for means. ≈ marks what is not distinguishable from the
base model on the same prompts and seeds, picture by picture (exact McNemar test for shares, bootstrap for means). Bold
is what a column means to bring to zero. The paper is Gandikota et al., ICCV 2023, on Stable Diffusion 1.4: its figures
say what others reached there, not what this model would."""


if __name__ == "__main__":
    main()
