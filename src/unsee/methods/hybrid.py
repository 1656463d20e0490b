r"""Hybrid: start at UCE's closed form, then regress on ESD's targets beside preservation prompts. The default where
a concept is more than a name.

    1. solve   W = the closed form of UCE (uce.py), with eta = CLOSED_FORM_ETA, where a matrix reads the prompt
    2. fit     a few updates of ESD's loss (esd.py, eq. 6) for prompts that ask for the concept, plus
               keep_weight times the mean squared error to the frozen model for prompts that do not

The closed form is near and costs no update, but takes neighbours along; the fit brings them back, and erases where the
name stands beside other words. Three things make the fit short:

- Preconditioning. The gradient of a matrix that reads the prompt is multiplied by M^-1, where M is the second moment of
  its inputs for preservation prompts and for the concept (optimizers.Metric). Directions that other words use change
  little. It is the natural gradient (Amari, 1998) of the error on these prompts, and independent of the basis of the
  text features. `preserve_words = 0` leaves it out.
- Context words. A text encoder writes a name differently beside other words, so prompts ask for it as "a {} and a
  dog" too. There the target keeps the context w:
      e(x_t, w) - eta [e(x_t, c with w) - e(x_t, w)]
- Many rows an update, on recorded runs, with a rate that warms up and falls to zero.

Preservation prompts are the user's `keep`, neutral words and random words of the tokenizer, each with the frozen
model's own prediction as target, and the same x_t with the empty prompt. An implicit concept appears in pictures of
other things: with `implicit`, their targets lose it (targets.without_implicit).

A part d that is erased from a whole b (`from_`) is what it adds to b, where ESD takes what d adds to nothing. The
target e(x_t, b) - eta [e(x_t, b with d) - e(x_t, b)] is learned for b and for "b with d" alike, and preservation
prompts come with the part too: elsewhere it stays.

Where no closed form exists (no selected matrix reads the prompt; `from_`; a memorised image; quantised weights), the
fit starts at the model's own weights and gets more updates. The selection is the part of cross-attention that reads the
prompt (ESD-x-strict, from the authors' code). All constants were tuned on the miniature; docs/LOG.md has the tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from unsee.concepts import Concept, concepts_of, to_keep
from unsee.denoising.activations import inputs, met, second_moments
from unsee.denoising.calls import Call
from unsee.denoising.record import Runs, conditions
from unsee.denoising.rows import stack
from unsee.edits.edit import Edit
from unsee.errors import one_line
from unsee.fit.loop import Optimisation, TrainBatch, fit
from unsee.fit.memory import FitMemory
from unsee.fit.monitor import HeldOutMonitor
from unsee.fit.optimizers import Metric, metrics
from unsee.fit.resume import ResumeFile
from unsee.methods.learners import MakeLearner, dense
from unsee.methods.presets import PRESETS
from unsee.methods.prompts import WITH, in_templates, other_words, preservation_prompts, preserved_words, with_contexts
from unsee.methods.rounds import Rounds
from unsee.methods.settings import Settings, Start
from unsee.methods.targets import (
    Erasing,
    Target,
    card_of,
    check_rerecord,
    esd_target,
    preserving,
    sampled,
    training_rows,
    without_implicit,
)
from unsee.methods.two_denoisers import each_denoiser
from unsee.methods.uce import UCE, optimum
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.sampling import sampled_by
from unsee.models.weights import reads_text, text_input_weights
from unsee.progress import Progress, no_progress

RATES: dict[Start, float] = {"closed-form": 0.022, "base": 0.055}
"""The share by which an update moves a preconditioned matrix's output for preservation
prompts (optimizers.Metric), by where a fit starts. Tuned on the miniature (docs/LOG.md)."""
CLOSED_FORM_ETA = 0.2
"""eta of the closed form that a fit starts at. With UCE's own, a church takes 15 of 100 castles along, and a fit brings
few of them back; with this one it takes 6 to 9 (docs/LOG.md)."""
SPAN = 8
"""Number of prompts whose text features adapters are made of, see methods/lora.py."""


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Hybrid(Settings):
    """Erase concepts by a closed form and a short fit; the formula is at the top of its file. LoRA shares its settings.

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.Hybrid(updates=4)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    @each_denoiser
    def __call__(
        self,
        pipe: Pipeline,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
        resume: ResumeFile | None = None,
    ) -> Edit:
        recipe = Recipe("hybrid", self, dense, partial(esd_target, self.eta))
        return recipe.edit(pipe, concepts_of(concepts), seed, progress, resume)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Closed form, then fit.

    method   name of the method, for the card
    make     what is learned: the weights themselves, or adapters on them
    target   what the edited model should predict where a concept is asked for
    rounds   attacks between updates, from which these learn too
    """

    method: str
    settings: Settings
    make: MakeLearner
    target: Target
    rounds: Rounds | None = None

    def edit(
        self, pipe: Pipeline, concepts: tuple[Concept, ...], seed: int, progress: Progress, resume: ResumeFile | None
    ) -> Edit:
        """The edit of the denoiser in focus."""
        key, net = denoiser(pipe)
        s = self.settings.resolved(net, concepts)
        assert s.updates
        assert s.runs
        s.check()
        check_rerecord(pipe, s.rerecord)
        with sampled_by(pipe, s.sampler):  # a sampler that the pipeline does not take is refused before any work
            pass
        rng = torch.Generator().manual_seed(seed)
        weights = s.weights(net)
        texts = [weight.removesuffix(".weight") for weight in weights if reads_text(weight, net)]
        named = len(to_keep(concepts))

        # 1. Words: preserved ones, random others, and prompts made of both.
        stay = preserved_words(concepts, s.neutral)
        first = text_input_weights(net) if texts else {}
        doors = [layer for layer in texts if f"{layer}.weight" in first] or texts[:1]
        others = other_words(pipe, s.preserve_words, concepts, doors, rng, progress)
        kept = (*(stay if s.keep_weight or others else ()), *others)
        card = card_of(self.method, s, concepts, pipe, seed, kept)
        contexts = with_contexts(pipe, s.templates, s.context_words if texts else 0, concepts, rng)

        # 2. The closed form.
        known = preservation_prompts(kept, named, s.templates, contexts, rng)
        moments = second_moments(pipe, known, texts, progress=progress) if texts and kept else {}
        names = [concept for concept in concepts if not (concept.from_ or concept.image)]
        layers = {name.removesuffix(".weight"): weights[name] for name in s.solved(net, concepts)}
        near = UCE(eta=CLOSED_FORM_ETA)
        solution = optimum(pipe, names, layers, moments, contexts, rng, near, progress) if layers else {}
        start = {f"{layer}.weight": delta for layer, delta in solution.items()}

        # 3. Recorded rows: the concept's, and those of preservation prompts.
        row = conditions(pipe, [concept.erase for concept in concepts[:1]], answered=False)
        memory = FitMemory(pipe, row, s.gradient_checkpointing, alone=not s.rerecord)
        runs = Runs(s.record_steps, s.record_guidance, s.sampler, 2 * s.batch)
        erasing = Erasing(runs, self.target, s.templates, contexts, WITH)
        each = s.runs
        count = s.held_out + (0 if s.rerecord else each)
        goes = [call for concept in concepts for call in erasing.calls(pipe, concept, count, rng, progress)]
        most = max(s.keep_runs, named) if s.keep_weight else 0
        some = stay[: most + s.held_out]
        prompts = in_templates(s.templates, some[:named], rng)  # a user's own, as that user asks for them
        prompts += in_templates(contexts, some[named:], rng)
        parts = [name for concept in concepts if concept.from_ for name in concept.names]
        prompts += [WITH.format(prompt, part) for prompt, part in zip(prompts, cycle(parts))]  # elsewhere it stays
        stays, empty = preserving(pipe, prompts, runs, rng, progress)
        beside: list[Call] = []
        if s.implicit:
            stays, beside = without_implicit(pipe, stays, prompts, concepts, self.target)
        metric: dict[str, Metric] = {}
        if moments and others:
            words = [concept.from_ or word for concept in concepts for word in concept.names]
            about = [way.format(word) for word in words for way in contexts]
            rate = RATES[s.starts(net, concepts)]
            metric = preconditioners(pipe, texts, about, moments, (stays + empty, goes), s.damping, rate, progress)
        del moments  # as large as the weights that read the prompt, or larger

        # 4. The fit.
        apart = min(s.held_out, max(0, len(prompts) - max(1, named)))  # words of `keep` are learned, all of them
        erase, erase_exam = training_rows(goes, s.held_out)
        keep, keep_exam = training_rows(stays, apart)
        nothing, _ = training_rows(empty, apart)
        asked_for, _ = training_rows(beside, apart)
        monitor = None
        if erase_exam and keep_exam:
            every = max(1, min(10, s.updates // 4))
            monitor = HeldOutMonitor(stack(erase_exam), stack(keep_exam), every=every, patience=s.patience)
        found = self.rounds and self.rounds.begin(pipe, concepts, erase)
        with self.make(net, weights, metric, start, seed) as learner, memory:

            def make_batch(update: int) -> TrainBatch:
                rng = torch.Generator().manual_seed(1_000_003 * seed + update)
                erasing.renew(erase, pipe, concepts, each, s.rerecord, update, rng, learner.frozen)
                rows = sampled(erase + asked_for, s.batch, rng)
                if found:
                    found.renew(update, rng)
                    rows = found.rows(rows, rng)
                if keep:
                    without_prompt = s.batch // 4
                    rows += sampled(keep, s.batch - without_prompt, rng) + sampled(nothing, without_prompt, rng)
                weight = torch.full((len(rows),), 1 / s.batch, device=rows[0].output.device)
                weight[s.batch :] *= s.keep_weight
                return TrainBatch(stack(rows), weight)

            how = Optimisation(s.updates, s.lr, s.optimizer, s.schedule, s.budget)
            window = max(1, s.updates if found else s.rerecord)  # what attacks found is not kept: it is found again
            state = resume and resume.of(card.to_json(), window)
            fit(net, learner.learned, make_batch, how, monitor=monitor, resume=state, memory=memory, progress=progress)
            return learner.edit(key, replace(card, curve=tuple(monitor.curve) if monitor else ()))


def preconditioners(
    pipe: Pipeline,
    layers: Sequence[str],
    about: Sequence[str],
    moments: Mapping[str, Tensor],
    calls: tuple[Sequence[Call], Sequence[Call]],
    damping: float,
    rate: float,
    progress: Progress,
) -> dict[str, Metric]:
    """How the matrices of layers that read the prompt move (optimizers.Metric), by parameter name.

    about    prompts that ask for the concepts
    moments  second moments of the layers' inputs for preservation prompts
    calls    recorded calls of what must stay, and of the concepts
    """
    stays, goes = calls
    asks = second_moments(pipe, about, layers, progress=progress)
    net, span = denoiser(pipe)[1], inputs(pipe, about[:SPAN], layers)
    found = metrics(net, met(pipe, moments, stays), met(pipe, asks, goes), span, damping, rate)
    return {f"{layer}.weight": one for layer, one in found.items()}
