"""docs/evidence.md: what erasing reaches on the miniature, and what its baselines reach, suite by suite.

    python -m benchmarks.evidence [-n 128] [--alike WORD ...] [--twin FOLDER] [--only NAME ...] [--out docs/evidence.md]
    python -m benchmarks.evidence --draw [--out docs/evidence.md]    the page's summary and plots anew, from its tables

Each experiment erases something and measures the base model, every guard and every method on the same prompts and
seeds. It becomes a section of the page. The number of pictures and the time are printed first. A picture that several
suites or experiments need is drawn once. Edits and pictures are kept in `--work`: an interrupted run continues there.
`python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.evidence` shares drawing and fitting.
`--only` takes names of experiments and suites. `--twin` is a model that was trained without `--twin-concept`: the
folder of a pipeline, or of its denoiser alone (`python -m recipes.mini denoiser --without church`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.evidence.experiments import STEPS, Experiment, chosen, experiments
from benchmarks.evidence.goals import Result, reached, results
from benchmarks.evidence.overview import BEGIN, END, summarised
from benchmarks.evidence.page import both, contact, every_row, markdown, together
from benchmarks.evidence.workshop import Workshop, columns, progress, say, variants
from unsee import guards
from unsee.concepts import Concept
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.records import Evaluation
from unsee.evaluate.render import Sampling, Shot, render, sampling_of
from unsee.io.atomic import write_whole
from unsee.models.distributed import processes
from unsee.models.model import model_name
from unsee.models.words import words_of
from unsee.runs import evaluate as evaluation
from unsee.runs.config import EvalConfig

SEED = 10_000
BATCH = 32
GUARDED = 1.5
"""What a guarded picture costs, of an unguarded one: three rows a step where there are two."""


def groups(experiment: Experiment) -> list[tuple[tuple[str, ...], ...]]:
    """What is erased in each evaluation of an experiment."""
    return [(words,) for words in experiment.erase] if experiment.apart else [experiment.erase]


def looked_for(experiment: Experiment, words: Sequence[Sequence[str]]) -> list[Concept]:
    """What all edits of an evaluation erase, with what is alike as words to keep: all columns are measured on those."""
    return experiment.concepts(list(dict.fromkeys(word for some in words for word in some)), told=True)


def pictures(experiment: Experiment, context: EvalContext, options: argparse.Namespace) -> dict[str, set[Shot]]:
    """All that will be drawn by column, before there are edits: base, edits and guards get names of their own."""
    names = {"base": True}
    if experiment.compare and not options.alone:
        twin = ["twin"] if options.twin and options.twin_concept in experiment.erase[0] else []
        told = [experiment.told] if experiment.alike else []
        names |= dict.fromkeys(
            [*told, *variants(not options.no_paper, experiment.default({})), *twin, *guards.names()], False
        )
    found: dict[str, set[Shot]] = {}
    for words in groups(experiment):
        here = replace(context, concepts=tuple(looked_for(experiment, words)), n=experiment.n(context.n))
        asked = []
        for name in experiment.suites:
            with suppress(NotMeasured):
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
    context = EvalContext(shop.pipe, detectors_of(shop.pipe), words_of(shop.pipe), (), options.n, SEED)
    found: dict[tuple[str, Sampling], set[Shot]] = {}
    for experiment in plan:
        sampling = sampling_of(shop.pipe, experiment.steps(options.steps))
        for column, shots in pictures(experiment, context, options).items():
            found.setdefault((column, sampling), set()).update(shots)
    batch = [Shot("a thing", seed) for seed in range(BATCH)]
    render(shop.pipe, batch[:1], replace(sampling, steps=1))  # the first drawing is slower
    start = time.perf_counter()
    render(shop.pipe, batch, replace(sampling, steps=2), batch=BATCH)
    each = (time.perf_counter() - start) / 2 / BATCH / processes().num_processes
    cost = 0.0
    for (column, sampling), shots in found.items():
        large = sum(1 if shot.size is None else 2 for shot in shots)  # scenes are two pictures wide
        cost += large * sampling.steps * (GUARDED if any(column.endswith(name) for name in guards.names()) else 1)
    total = sum(map(len, found.values()))
    return (
        f"{total} pictures in {len({column for column, _ in found})} columns, {cost * each / 60:.0f} minutes at "
        f"{1 / each:.0f} sampler steps a second, if none is drawn yet; edits and detectors take more"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--concept", default="church")
    parser.add_argument("--alike", nargs="*", default=[], metavar="WORD", help="objects that look like the concept")
    parser.add_argument("--style", default="neon")
    parser.add_argument("--thing", default="watermark", help="what appears though no prompt names it")
    parser.add_argument("-n", type=int, default=128, help="pictures for each row of what is erased")
    parser.add_argument("--steps", type=int, help="sampler steps of all pictures")
    parser.add_argument("--no-paper", action="store_true", help="leave out ESD-x and ESD-u with the paper's loop")
    parser.add_argument("--alone", action="store_true", help="measure the default only, no guards or other methods")
    parser.add_argument("--twin", help="folder of a pipeline that was trained without --twin-concept")
    parser.add_argument("--twin-concept", default="church")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these experiments or suites")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the default method")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="folder of edits and pictures")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence.md"))
    parser.add_argument("--draw", action="store_true", help="draw the plots of the page anew; nothing is measured")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.draw:
        write(options.out, options.out.read_text(encoding="utf-8"))
        return
    settings = {key: json.loads(value) for key, value in (text.split("=", 1) for text in options.set)}
    shop = Workshop(options.model, options.work, settings)
    plan = chosen(
        experiments(words_of(shop.pipe), options.concept, options.style, options.thing, options.alike),
        options.only,
    )
    command = shlex.join(["python", "-m", "benchmarks.evidence", *(sys.argv[1:] if argv is None else argv)])
    say(estimate(plan, shop, options))
    head = HEAD.format(
        command=command,
        n=options.n,
        steps=steps_said(shop, options),
        model=model_name(shop.pipe),
        stem=options.out.stem,
    )
    head += TWIN.format(concept=options.twin_concept) if options.twin else ""
    sections: list[str] = []
    goals: list[Result] = []
    rows: list[tuple[str, Evaluation]] = []
    cache = options.work / "pictures"
    for experiment in plan:
        found = []
        for k, words in enumerate(groups(experiment)):
            edits, names = columns(experiment, words, shop, options)
            bench = evaluation.prepare(
                EvalConfig(
                    model=options.model,
                    suites=experiment.suites,
                    edits=tuple(edits),
                    guards=tuple(names),
                    concepts=tuple(looked_for(experiment, words)),
                    pictures=experiment.n(options.n),
                    seed=SEED,
                    steps=experiment.steps(options.steps),
                )
            )
            folder = options.work / experiment.name / (words[0][0] if experiment.apart else "")
            folder.mkdir(parents=True, exist_ok=True)
            title = f"{experiment.name} {k + 1}/{len(groups(experiment))}"
            found.append(
                evaluation.evaluate(bench, folder, cache, command=command, batch=BATCH, progress=progress(title))
            )
            say(f"{title}: {found[-1].seconds}")
        rows += [(experiment.name, one) for one in found]
        own = list(results(experiment, together(experiment, found) if experiment.apart else found[0]))
        goals += own
        sections.append(both(experiment, found, own) if experiment.apart else markdown(experiment, found[0], own))
        if not experiment.apart:
            drawn = {"": contact(experiment, bench, cache)}
            sheets = [folder / f"{suite}.png" for suite in experiment.suites]
            drawn |= {f"-{path.stem}": Image.open(path) for path in sheets if path.is_file()}
            links = []
            for ending, picture in drawn.items():
                path = options.out.with_name(f"{options.out.stem}-{experiment.name}{ending}.png")
                links.append(f"![Each column on the same prompts and seeds]({path.name})")
                if processes().is_main_process:
                    small = picture.quantize(256)
                    write_whole(path, partial(small.save, format="PNG", optimize=True))
            sections[-1] += "".join(f"\n\n{link}" for link in links)
        text = ["# What erasing reaches", reached(goals), f"{BEGIN}\n\n{END}", head, *sections]
        if processes().is_main_process:  # what is finished is kept
            write(options.out, "\n\n".join(part for part in text if part) + "\n")
            table = every_row(rows)
            write_whole(options.out.with_suffix(".csv"), partial(Path.write_text, data=table, encoding="utf-8"))


def write(out: Path, page: str) -> None:
    """A page with its summary, and its plots beside it."""
    page, plots = summarised(page, out.stem)
    for path, text in {out: page, **{out.with_name(name): drawn for name, drawn in plots.items()}}.items():
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))


def steps_said(shop: Workshop, options: argparse.Namespace) -> str:
    if options.steps:
        return f"{options.steps} sampler steps"
    own = sampling_of(shop.pipe).steps
    return f"{STEPS} sampler steps where guards are measured too (SLD-Weak waits 15), {own} elsewhere"


HEAD = """## How it was measured

Command: `{command}`. Model: `{model}`, {steps}, {n} pictures for each row of what is erased (fewer where a table says
so).

All rows: [{stem}.csv]({stem}.csv). Tables of suites are folded.

- **Cell**: a value and its 95 % interval (Wilson's for shares, bootstrap for means). "Before" is the base's value.
- **≈**: not distinguishable from the base model on the same prompts and seeds (exact McNemar test for shares, bootstrap
  for means). Cells are tested one by one, so a few of a hundred harmless cells lack the sign.
- **Bold**: what the column should lower.
- **Goal**: *met* or *missed* if the whole interval is on one side of the limit; *inconclusive* if the interval contains
  the limit (with 0 of n it ends below 1 % from n = 381 on); *void* if the base model draws the thing so rarely that
  nothing could be removed or lost, or if the fall is not significant.
- **Agreement with the prompt**: cosine by a CLIP whose text encoder is the model's own.
- **SLD**: its presets wait 15, 10, 7 and 0 steps of 50 before they act. With fewer steps they act on a smaller part.
- **The paper's figures** (Gandikota et al., ICCV 2023) are for Stable Diffusion 1.4. Do not compare them with these.
- **"ESD-x, paper" and "ESD-u, paper"** are the paper's loop with its own learning rate, which was chosen for Stable
  Diffusion 1.4. docs/performance.md has the results of other rates."""

TWIN = """
- **Filtered twin**: a model trained from nothing on data without {concept}; the filter missed some. All its pictures
  differ from the base model's, and what else it lost may come from its own training."""


if __name__ == "__main__":
    main()
