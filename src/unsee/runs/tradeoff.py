"""The trade-off curve of an edit: what is removed against what is kept, by the edit's scale. It costs no picture.

    left(t)  =  <e_t - y, e_0 - y> / |e_0 - y|^2

is the share of what a word adds to a prediction that is still there. e_t is the prediction of the edited model where
the edit is scaled by t, e_0 that of the frozen model, y that of the frozen model without the word. Of recorded runs
that ask for a concept, 1 - left is removed; of runs that ask for other known words, left is kept. Each is cut to 0 and
1, and a mean over runs, on which no method trains. The scale that is taken has the largest harmonic mean of both: the
field's measure of an edit in pictures (Lu et al., "MACE", CVPR 2024), here without any.

On the miniature left tells what a detector sees, of erased words and of others alike: of words with less than 0.1 it
sees none of 61, with 0.3 to 0.4 two fifths, with more than 0.8 99 % (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from unsee.concepts import Concept, to_keep
from unsee.denoising.calls import Call
from unsee.denoising.record import Runs
from unsee.denoising.replay import replay
from unsee.denoising.rows import select_rows
from unsee.edits.algebra import scaled
from unsee.edits.edit import Edit
from unsee.evaluate.questions import nearest
from unsee.evaluate.words import article
from unsee.methods.prompts import NEUTRAL, WITH, known_words, preserved_words
from unsee.methods.targets import Erasing, preserving, recording
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.memory import SMALLER, Portions, spread
from unsee.models.model import Model, Pipeline
from unsee.progress import Progress, no_progress

SCALES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6)
"""Scales of the edit that are tried."""
RUNS = 32
"""Recorded runs that ask for concepts, and again of those that ask for other words."""
NEAR = RUNS // 2
"""How many of the other words are those whose texts are nearest to a concept's name; the rest are random."""

STEPS = 6
"""Sampler steps of a recorded run; every second one is repeated with the edit."""

Rows = list[tuple[Call, Tensor]]
"""Every second step of some runs: calls whose output is e_0, and y."""


@dataclass(frozen=True)
class Held:
    """Recorded runs of one denoiser: those that ask for concepts, and those that ask for other words."""

    net: nn.Module
    goes: list[Rows]
    stays: list[Rows]


@torch.no_grad()
def held_out(
    pipe: Pipeline,
    concepts: Sequence[Concept],
    templates: Sequence[str],
    seed: int,
    progress: Progress = no_progress,
) -> list[Held]:
    """Runs of the frozen model, of each of its denoisers. Raises InputError where guided runs cannot be recorded."""
    rng = torch.Generator().manual_seed(seed + 1)  # runs of methods are drawn from `seed`
    order = torch.randperm(len(concepts), generator=rng).tolist()
    some = [as_name(concepts[k]) for k in order[:RUNS]]
    words = others(pipe, concepts, rng)
    found = []
    for key in denoisers(pipe):
        focused = replace(Model.of(pipe), focus=key)
        net = denoiser(focused)[1]
        runs = Runs(steps=STEPS, guidance_scale=3.0, batch=16)
        erasing = Erasing(runs, lambda _concept, _asked, _c, u: u, templates)
        goes = [erasing.calls(focused, one, -(-RUNS // len(some)), rng, progress) for one in some]
        stays, empty = preserving(focused, [article(word) for word in words], runs, rng, progress)
        kept = [(asked, without.output) for asked, without in zip(stays, empty, strict=True)]
        gone = [[(replace(call, output=replay(net, call)), call.output) for call in steps[::2]] for steps in goes]
        found.append(Held(net, gone, [kept[::2]]))
    return found


def passes(concepts: Sequence[Concept]) -> int:
    """About how many rows one denoiser answers for a curve."""
    some = [as_name(concept) for concept in concepts[:RUNS]]
    count = -(-RUNS // len(some))
    goes, again = count * len(some), STEPS // 2
    return recording(some, count, STEPS) + goes * again + 2 * RUNS * STEPS + len(SCALES) * (goes + RUNS) * again


def as_name(concept: Concept) -> Concept:
    """A part and its whole as one name, of which the whole stays; any other concept as it is."""
    if not concept.from_:
        return concept
    anchor = WITH.format(concept.from_, concept.anchor) if concept.anchor else concept.from_
    return Concept(WITH.format(concept.from_, concept.erase), anchor=anchor)


def others(pipe: Pipeline, concepts: Sequence[Concept], rng: torch.Generator) -> list[str]:
    """Known words that are no concept: those of `keep`, those with the nearest texts, and random ones; RUNS in all."""
    known = known_words(pipe, concepts) or preserved_words(concepts, NEUTRAL)
    names = [name for concept in concepts for name in (concept.from_, *concept.names) if name]
    near = nearest(pipe, names, known)[:NEAR]
    mixed = [known[k] for k in torch.randperm(len(known), generator=rng).tolist()]
    return list(dict.fromkeys([*to_keep(concepts), *near, *mixed]))[:RUNS]


@torch.no_grad()
def left(net: nn.Module, runs: Iterable[Rows], portions: Portions) -> Tensor:
    """(runs,) what is left of what each run's word adds to the predictions of its steps, between 0 and 1."""

    def products(call: Call, y: Tensor, rows: slice) -> Tensor:
        part, without = select_rows(call, rows), y[rows].float().flatten(1)
        adds = part.output.float().flatten(1) - without
        now = replay(net, part).float().flatten(1) - without
        return torch.stack([(now * adds).sum(1), adds.square().sum(1)])

    found = []
    for steps in runs:
        each = [torch.cat(list(portions.each(partial(products, call, y), len(y))), 1) for call, y in steps]
        along, whole = torch.stack(each).sum(0)
        found.append((along / whole).clamp(0, 1).cpu())
    return torch.cat(found)


def curve(pipe: Pipeline, edit: Edit, held: Sequence[Held], progress: Progress) -> Iterator[tuple[float, float, float]]:
    """(scale, removed, kept) for each of SCALES."""
    portions = Portions(16, "rows", SMALLER, fixed=spread(pipe))
    for done, scale in enumerate(SCALES):
        progress("trade-off", done, len(SCALES))
        with edit.applied(pipe, scale):
            gone = torch.cat([left(one.net, one.goes, portions) for one in held])
            kept = torch.cat([left(one.net, one.stays, portions) for one in held])
        yield scale, 1 - float(gone.mean()), float(kept.mean())
    progress("trade-off", len(SCALES), len(SCALES))


def rule() -> str:
    """How a scale is chosen, in a line."""
    least, most = min(SCALES), max(SCALES)
    return (
        f"auto: {len(SCALES)} scales of the edit from {least:g} to {most:g} are tried on {2 * RUNS} recorded runs; no "
        "picture is drawn for it; the one with the largest harmonic mean of removed and kept is taken"
    )


def best(points: Sequence[tuple[float, float, float]]) -> float:
    """The scale with the largest harmonic mean of removed and kept; of equal ones the smallest."""
    return max(points, key=lambda one: 2 * one[1] * one[2] / max(one[1] + one[2], 1e-9))[0]


def balanced(pipe: Pipeline, edit: Edit, held: Sequence[Held], progress: Progress = no_progress) -> Edit:
    """The edit at the scale that `best` takes; its card has the curve and the scale."""
    points = tuple(curve(pipe, edit, held, progress))
    scale = best(points)
    hurt = {word: round(scale * share, 3) for word, share in edit.card.hurt.items()}
    deltas = {name: scaled(delta, scale) for name, delta in edit.deltas.items()}
    return Edit(deltas, replace(edit.card, hurt=hurt, scale=scale, tradeoff=points))
