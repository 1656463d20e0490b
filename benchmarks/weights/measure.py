"""What is measured of a denoiser's parts: an edit of each selection, and a trace of each place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.saying import progress
from benchmarks.weights.parts import ALL, places, short
from unsee import methods
from unsee.concepts import Concept
from unsee.denoising.intercept import steered
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import at_point_of, replay
from unsee.denoising.rows import stack
from unsee.denoising.trace import activations, exchanged, moved, patched
from unsee.edits.edit import Edit
from unsee.evaluate.cache import Cache, model_key
from unsee.evaluate.detectors import Detector, detectors_of
from unsee.evaluate.questions import NEIGHBOURS, nearest, spread
from unsee.evaluate.render import Sampling, Shot, render
from unsee.evaluate.statistics import Score, bootstrap, rate
from unsee.evaluate.words import article, ways
from unsee.io.atomic import write_whole
from unsee.models.denoisers import denoiser
from unsee.models.weights import own_parameters, select
from unsee.runs.configure import configure
from unsee.runs.folder import edit_file
from unsee.runs.tradeoff import Held, balanced, held_out

SEED = 30_000
CONCEPT, NEAREST, REST = "concept", "nearest texts", "everything else"
"""Rows of pictures."""


@dataclass(frozen=True)
class Selected:
    """An edit of one selection, at the scale that its trade-off curve takes.

    weights  how many numbers the selection holds, and the whole denoiser
    curve    (scale, removed, kept) of recorded predictions
    seen     by row, pictures that show what they should: of the base and of the edit
    """

    name: str
    weights: tuple[int, int]
    curve: tuple[tuple[float, float, float], ...]
    scale: float
    seen: Mapping[str, tuple[Score, Score]]


@dataclass(frozen=True)
class Traced:
    """What comes through one place, or several together, when they hold what they hold for the anchor.

    moved    share of the way from the concept's prediction to the anchor's; bootstrap over runs
    steps    the same in each step, the noisiest first; only where all blocks are patched
    concept  pictures that show the concept, and the anchor; None where none were drawn
    """

    kind: str
    block: str
    moved: Score
    steps: tuple[float, ...] = ()
    concept: Score | None = None
    anchor: Score | None = None


@dataclass(frozen=True)
class World:
    """The model and how it is looked at.

    method    of each selection's edit, with its settings
    pictures  of each row
    runs      recorded for a trace
    """

    pipe: Any
    concept: str
    anchor: str
    method: str
    settings: Mapping[str, Any]
    pictures: int
    runs: int
    sampling: Sampling
    work: Path

    @cached_property
    def detector(self) -> Detector:
        found = detectors_of(self.pipe, kinds=("objects",))["objects"]
        assert isinstance(found, Detector)
        return found

    @cached_property
    def held(self) -> list[Held]:
        return held_out(self.pipe, [Concept(self.concept)], self.made("all").templates, SEED, progress("held out"))

    @cached_property
    def key(self) -> str:
        return model_key(self.pipe)

    def made(self, selection: str) -> Any:
        return configure(methods.find(self.method), {**self.settings, "select": selection})

    def rows(self) -> dict[str, list[tuple[Shot, str]]]:
        """Pictures by row, each with the object that it should show."""
        rest = [label for label in self.detector.labels if label not in (self.concept, self.anchor)]
        near = nearest(self.pipe, [self.concept], rest)[:NEIGHBOURS]
        pairs = {
            CONCEPT: [(way, self.concept) for way in ways(self.concept)],
            NEAREST: [(article(label), label) for label in near],
            REST: [(article(x), x) for x in spread([x for x in rest if x not in near], self.pictures)],
        }
        return {
            row: [(Shot(way, SEED + k), label) for k, (way, label) in enumerate(islice(cycle(some), self.pictures))]
            for row, some in pairs.items()
        }

    def seen(self, change: str = "", applied: Callable[[], Any] | None = None) -> dict[str, Score]:
        """The share of each row's pictures that show what they should, drawn under a change."""
        rows = self.rows()
        shots = [shot for some in rows.values() for shot, _ in some]
        drawn = Cache(self.work / "pictures").draw(
            self.pipe, shots, self.sampling, model=self.key, change=change,
            applied=applied or nullcontext, progress=progress(change or "base"),
        )  # fmt: skip
        found = {}
        for row, some in rows.items():
            labels = self.detector([drawn[shot] for shot, _ in some])
            found[row] = rate([label == wanted for label, (_, wanted) in zip(labels, some, strict=True)])
        return found


def selected(world: World, title: str, pattern: str) -> Selected:
    """An edit of a selection, its curve and its pictures; what is kept under `work` is not made again."""
    _, net = denoiser(world.pipe)
    method = world.made(pattern)
    path = edit_file(world.work / "edits", method, world.pipe, [Concept(world.concept)])
    if not path.is_file():
        edit = method(world.pipe, world.concept, progress=progress(title))
        write_whole(path, balanced(world.pipe, edit, world.held, progress(f"{title}, trade-off")).save)
    edit = Edit.load(path)
    base = world.seen()
    after = world.seen(f"edit {edit.fingerprint()}", partial(edit.applied, world.pipe))
    held = sum(weight.numel() for weight in select(net, pattern).values())
    whole = sum(weight.numel() for weight in own_parameters(net).values())
    seen = {row: (base[row], after[row]) for row in base}
    return Selected(title, (held, whole), edit.card.tradeoff, edit.card.scale, seen)


@torch.no_grad()
def traced(world: World) -> list[Traced]:
    """The trace of recorded calls: every kind of layer in every block, and all blocks of a kind together.

    c is what the model answered when it drew the concept; the anchor is asked for at the same x and t.
    """
    pipe, (_, net) = world.pipe, denoiser(world.pipe)
    prompts, seeds = [article(world.concept)] * world.runs, [SEED + k for k in range(world.runs)]
    runs = Runs(world.sampling.steps, max(world.sampling.guidance_scale, 1.5), batch=world.runs)
    steps = record(pipe, prompts, seeds=seeds, runs=runs)
    asked = stack([conditions(pipe, [article(world.anchor)], answered=False)] * world.runs)
    where = places(net, steps[0].concept)
    every = {place for by in where.values() for some in by.values() for place in some}
    found: dict[tuple[str, str], list[torch.Tensor]] = {}
    tick = progress("trace")
    for done, step in enumerate(steps):
        tick("render", done, len(steps))
        other = at_point_of(net, asked, step.concept)
        a, held = replay(net, other), activations(net, other, every)
        for kind, by in where.items():
            for block, some in by.items():
                with patched(net, {place: held[place] for place in some}):
                    p = replay(net, step.concept)
                found.setdefault((kind, block), []).append(moved(step.concept.output, a, p))
    return [
        Traced(
            kind, block if block == ALL else short(block), bootstrap(torch.stack(each).mean(0).tolist()),
            tuple(float(one.mean()) for one in each) if block == ALL else (),
        )
        for (kind, block), each in found.items()
    ]  # fmt: skip


def pictured(world: World, kind: str, block: str) -> tuple[Score, Score]:
    """Whole runs for the concept in which a kind of layer holds the anchor's activations in each step.

    The share of pictures that show the concept, and of those that show the anchor.
    """
    _, net = denoiser(world.pipe)
    where = places(net, conditions(world.pipe, [article(world.concept)]))[kind]
    (some,) = [found for name, found in where.items() if (name if name == ALL else short(name)) == block]
    shots = [Shot(article(world.concept), SEED + k) for k in range(world.pictures)]
    with steered(world.pipe, article(world.anchor), again=lambda call, other: exchanged(net, call, other, some)):
        drawn = render(world.pipe, shots, world.sampling, progress=progress(f"{kind}, {block}"))
    labels = world.detector([drawn[shot] for shot in shots])
    concept, anchor = (rate([label == word for label in labels]) for word in (world.concept, world.anchor))
    return concept, anchor
