r"""ESD: regress the model onto its frozen self steered away from the concept.

Gandikota, Materzynska, Fiotto-Kaufman, Bau: "Erasing Concepts from Diffusion Models", ICCV 2023, arXiv:2303.07345.

    e_theta(x_t, c, t)  <-  e(x_t, t) - eta [e(x_t, c, t) - e(x_t, t)]                                  (eq. 6)

e is the frozen model, e_theta the edited one, c the concept's prompt; the loss is the mean squared error. The weights
of the target sum to one, so it is right as it stands for eps, v, x0 and flow predictions. Six variants:

    beside w:      e(x_t, w) - eta [e(x_t, c with w) - e(x_t, w)]          not in the paper; w stays, c goes
    anchor a:      e(x_t, a) - eta [e(x_t, c) - e(x_t, a)]     eta = 0: concept ablation's target (Kumari et al., 2023)
    erase c from b, asked with the prompt b, at x_t of a run for b:
                   e(x_t, b) - eta [e(x_t, c) - e(x_t)]        from the authors' code; not in the paper
    a memorised picture: at x_t = that picture with the noise of t                                  (Sec. 5.4)
    what must stay, asked with other prompts k and with none:
                   e(x_t, k), e(x_t)                           not in the paper; keep_weight = 0 leaves it out
    what appears unasked (`unasked`), asked with k and with "k, c":
                   e(x_t, k) - eta [e(x_t, k with c) - e(x_t, k)]        not in the paper; SLD's direction, learned

Departures from the paper
- eta is the paper's. The authors' present code counts from one: its negative_guidance = 2 is eta = 1 here.
- x_t comes from guided runs of the frozen model, recorded once before the first update and used at all their steps.
  The paper draws x_t anew from the model being edited before every update: `rerecord = 1`.
- The concept is erased under a few everyday templates ("a picture of a {}") and beside random words ("a {} and a dog"),
  not under its bare name only: a text encoder writes a name otherwise in company (docs/LOG.md).
- The paper's 1000 updates of Adam, of one row each at 1e-5, are here a few updates of many rows at a higher rate, which
  warms up and falls to zero, by an optimizer that keeps to the directions of its inputs (fit.loop.fit says why).
- Where a matrix reads the prompt, it starts at what UCE solves for (uce.optimum), which is near and costs no updates;
  `start = "base"` leaves it out.
- Its gradient is taken in the metric of other words' texts, random ones and those that must stay, so that it moves what
  only the concept says, and a step is measured by what it does to them (fit/optimizers.py; `spared = 0` leaves it out).
- The weights that change read the text only (ESD-x-strict, from the authors' code); the paper's ESD-x is "cross".
- The sampler is the pipeline's own, with 6 steps; the paper's is DDIM with 50. Guidance 3 is from their code.
`ESD.presets["paper"]` takes all of these back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, product
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from diffusers.optimization import SchedulerType
from PIL.Image import Image
from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of
from unsee.denoising.activations import inputs, met, second_moments
from unsee.denoising.calls import Call, Trajectory, again, placed, replay, single, stack
from unsee.denoising.record import Watch, conditions, quiet, record
from unsee.edits.card import Card, settings_of
from unsee.edits.edit import Edit, LowRank
from unsee.errors import InputError, one_line, unknown
from unsee.fit.loop import Examiner, Lesson, fit, trainable
from unsee.fit.memory import Room
from unsee.fit.optimizers import Metric, metrics
from unsee.fit.resume import Checkpoint
from unsee.io.images import read_picture
from unsee.methods.settings import (
    NEUTRAL,
    PRESETS,
    TEMPLATES,
    Count,
    NotNegative,
    Number,
    Positive,
    Templates,
    contexts,
    in_templates,
    known_prompts,
    spared_words,
    staying,
)
from unsee.methods.two_denoisers import each_denoiser
from unsee.methods.uce import optimum
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Pipeline, model_name, said_options
from unsee.models.weights import entrance, reads_text, select, stored_whole, swapped
from unsee.versions import versions


def steer(start: Tensor, c: Tensor, u: Tensor, eta: float) -> Tensor:
    """eq. 6: from `start` away from what the concept adds to the prediction."""
    return start - eta * (c - u)


Start = Literal["closed-form", "base"]
UPDATES: dict[Start, int] = {"closed-form": 12, "base": 140}
RUNS: dict[Start, int] = {"closed-form": 8, "base": 64}
RATES: dict[Start, float] = {"closed-form": 0.022, "base": 0.055}
"""What a fit gets by where it starts, and the share by which an update moves what a matrix that spares other texts puts
out for them (see optimizers.Metric): a closed form is near already. All were tuned on the miniature (docs/LOG.md)."""
SPAN = 8
"""Prompts whose texts adapters are made of, see methods/lora.py."""
BEYOND = 0.2
"""eta of the closed form that a fit starts at. With UCE's own, a church takes 15 of 100 castles along, and a fit brings
few of them back; with this one it takes 6 to 9 (docs/LOG.md)."""


@dataclasses.dataclass(frozen=True)
class Learner:
    """What a fit moves, and what it leads to.

    weights  parameters that take gradients, by name
    metric   of some of them, see fit.fit
    writes   the layer whose output one of them moves, where that is not its own
    teacher  a context in which the frozen model answers
    edit     (name of the denoiser, card) -> what was learned
    """

    weights: Mapping[str, nn.Parameter]
    metric: Mapping[str, Metric]
    writes: Mapping[str, nn.Module]
    teacher: Callable[[], AbstractContextManager[None]]
    edit: Callable[[str, Card], Edit]


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ESD:
    """Erase concepts with ESD; see the top of this file for the formula.

    select          layer group: cross (ESD-x), cross-kv (ESD-x-strict), self, noncross (ESD-u), all
    eta             how far to steer away; 0 maps the concept to the unconditional prediction. Paper: 1
    updates         of the weights; None: UPDATES, by where they start
    lr              share by which an update moves a layer's output at most; None: RATES, optimizers.RATE elsewhere; of
                    adam its own rate
    start           closed-form: matrices that read the prompt start at UCE's solution; base: at the model's own weights
    optimizer       matrix-adam or adam; see fit.fit
    schedule        of lr, a name of diffusers.optimization.get_scheduler
    batch           rows of erased and again of kept targets in one update
    runs            recorded runs of each concept; None: RUNS, likewise
    keep_runs       recorded runs of what must stay, one a word; words of `keep` come first and are all recorded
    keep_weight     weight of its loss
    unasked         words that must stay lose the concept, which appears with them, and it is asked for beside them
    company         random words that a name meets in each prompt of settings.COMPANY, where weights read the prompt
    spared          random words of the tokenizer whose texts are left alone where a matrix reads the prompt; 0: none
    damping         how strictly: the smaller, the stricter; see optimizers.Metric
    guidance_scale  of the recorded runs
    steps, sampler  of the recorded runs: sampler steps; "pipeline" or the name of a diffusers scheduler
    checkpointing   compute activations again instead of keeping them: less memory, more time; None: only if not even
                    one row fits into memory without
    rerecord        record again from the edited model after so many updates; 0 never
    held_out        runs of each concept, and words that must stay, whose rows only measure how far the fit is
    patience        stop once that has not fallen by a hundredth in so many looks, at least five in a fit; 0: never
    budget          seconds for the updates; as many as fit are made
    templates       prompts; {} is the concept's name, or a word that must stay
    neutral         words that must stay, beside the concept's own `keep`

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.ESD(updates=4)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    select: str = "cross-kv"
    eta: NotNegative = 1.0
    updates: Count | None = None
    lr: Positive | None = None
    start: Start = "closed-form"
    optimizer: Literal["matrix-adam", "adam"] = "matrix-adam"
    schedule: str = "linear"
    batch: Count = 8
    runs: Count | None = None
    keep_runs: Count = 16
    keep_weight: NotNegative = 3.0
    unasked: bool = False
    company: Number = 32
    spared: Number = 384
    damping: Positive = 0.01
    guidance_scale: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3.0
    steps: Annotated[int, Field(ge=2)] = 6
    sampler: str = "pipeline"
    checkpointing: bool | None = None
    rerecord: Number = 0
    held_out: Number = 2
    patience: Number = 0
    budget: Positive | None = None
    templates: Templates = TEMPLATES
    neutral: tuple[str, ...] = NEUTRAL

    @field_validator("schedule")
    @classmethod
    def _known(cls, schedule: str) -> str:
        if schedule not in (known := [kind.value for kind in SchedulerType]):
            raise unknown("schedule", schedule, known)
        return schedule

    called: ClassVar[str] = "esd"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **PRESETS,
        # Sec. 5 and the authors' first code; x_t by the edited model, under the concept's bare name.
        "paper": {
            "held_out": 0,
            "select": "cross",
            "updates": 1000,
            "lr": 1e-5,
            "start": "base",
            "optimizer": "adam",
            "schedule": "constant",
            "batch": 1,
            "runs": 1,
            "keep_weight": 0,
            "company": 0,
            "spared": 0,
            "sampler": "DDIMScheduler",
            "steps": 50,
            "rerecord": 1,
            "templates": ("{}",),
        },
    }

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of a denoiser that change, by name."""
        return select(net, self.select)

    def learned(self, net: nn.Module) -> int:
        """How many numbers a fit of a denoiser learns."""
        return sum(weight.numel() for weight in self.weights(net).values())

    def settled(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """With numbers of updates and of runs, where there are none: few if any weight starts at a closed form."""
        updates, runs = self._amount(self._starts(net, concepts))
        return replace(self, updates=updates, runs=runs)

    def _amount(self, start: Start) -> tuple[int, int]:
        return self.updates or UPDATES[start], self.runs or RUNS[start]

    def _starts(self, net: nn.Module, concepts: Sequence[Concept]) -> Start:
        return "closed-form" if self._closed(net, concepts) else "base"

    def _closed(self, net: nn.Module, concepts: Sequence[Concept]) -> list[str]:
        """The matrices that start at UCE's solution: those through which the prompt enters, if a concept is a name."""
        texts = {name for name in self.weights(net) if reads_text(name, net)}
        named = any(not (concept.from_ or concept.image) for concept in concepts)
        if self.start == "base" or not (texts and named and (self.keep_weight or self.spared)):
            return []
        return [name for name, weight in entrance(net).items() if name in texts and stored_whole(weight)]

    @each_denoiser
    def __call__(
        self,
        pipe: Pipeline,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        watch: Watch = quiet,
        checkpoint: Checkpoint | None = None,
    ) -> Edit:
        concepts = concepts_of(concepts)
        key, net = denoiser(pipe)
        settled = self.settled(net, concepts)
        starts = self._starts(net, concepts)
        updates, recorded = self._amount(starts)
        if self.rerecord and len(denoisers(pipe)) > 1:
            raise InputError("of two denoisers, re-recorded steps could be the other's: rerecord is of one denoiser")
        if self.unasked and not self.keep_weight:
            raise InputError("what appears unasked is learned with words that stay: give a keep_weight above 0")
        if self.patience and not (self.held_out and self.keep_weight):
            raise InputError("patience looks at rows that are held out: give held_out and keep_weight above 0")
        weights = self.weights(net)
        rng = torch.Generator().manual_seed(seed)
        stay, named = staying(concepts, self.neutral), sum(len(concept.keep) for concept in concepts)
        texts = [weight.removesuffix(".weight") for weight in weights if reads_text(weight, net)]
        doors = [layer for layer in texts if f"{layer}.weight" in entrance(net)] or texts[:1]
        spared = spared_words(pipe, self.spared, concepts, doors, rng, watch)
        kept = (*(stay if self.keep_weight or spared else ()), *spared)
        made = (self.called, settings_of(settled), concepts, model_name(pipe), fingerprint(net), seed, versions(), kept)
        card = Card(*made, call=said_options(pipe))
        closed = self._closed(net, concepts)
        ways = contexts(pipe, self.templates, self.company if texts else 0, concepts, rng)
        known = known_prompts(kept, named, self.templates, ways, rng)
        moments = second_moments(pipe, known, texts, watch=watch) if texts and kept else {}
        names = [concept for concept in concepts if not (concept.from_ or concept.image)]
        layers = {name.removesuffix(".weight"): weights[name] for name in closed}
        solved = optimum(pipe, names, layers, moments, ways, rng, eta=BEYOND, watch=watch) if layers else {}
        start = {f"{layer}.weight": delta for layer, delta in solved.items()}

        out = self.held_out
        asked = [concept.erase for concept in concepts[:1]]
        room = Room(pipe, conditions(pipe, asked, answered=False), self.checkpointing, alone=not self.rerecord)
        runs, most = 0 if self.rerecord else recorded, max(self.keep_runs, named) if self.keep_weight else 0
        record_all = partial(self._erase, pipe, contexts=ways)
        calls = [call for concept in concepts for call in record_all(concept, runs + out, rng, watch)]
        some = stay[: most + out]
        prompts = in_templates(self.templates, some[:named], rng)  # a user's own, as that user asks for them
        prompts += in_templates(ways, some[named:], rng)
        apart = min(out, max(0, len(prompts) - max(1, named)))  # words to keep are learned, all of them
        with_word, without, beside = self._keep(pipe, prompts, concepts, rng, watch)
        metric: dict[str, Metric] = {}
        if moments and spared:
            words = [concept.from_ or word for concept in concepts for word in concept.names]
            about = [way.format(word) for word in words for way in ways]
            metric = self._metric(pipe, texts, about, moments, with_word + without, calls, RATES[starts], watch)
        del moments  # as large as the weights that read the prompt, or larger

        with self._learner(net, weights, metric, start, seed) as learner, room:
            erase, erase_exam = _apart(calls, out)
            keep, keep_exam = _apart(with_word, apart)
            empty, _ = _apart(without, apart)
            asked_for, _ = _apart(beside, apart)
            examiner = None
            if erase_exam and keep_exam:
                every = max(1, min(10, updates // 4))
                examiner = Examiner(stack(erase_exam), stack(keep_exam), every=every, patience=self.patience)

            def lesson(update: int) -> Lesson:
                rng = torch.Generator().manual_seed(1_000_003 * seed + update)
                if self.rerecord and update % self.rerecord == 0:
                    concept = concepts[update // self.rerecord % len(concepts)]
                    at = torch.randperm(self.steps, generator=rng)[: self.rerecord].tolist()
                    calls = self._erase(pipe, concept, recorded, rng, quiet, at, learner.teacher, ways)
                    erase[:], _ = _apart(calls)
                rows = _some(erase + asked_for, self.batch, rng)
                if keep:
                    unasked = self.batch // 4
                    rows += _some(keep, self.batch - unasked, rng) + _some(empty, unasked, rng)
                weight = torch.full((len(rows),), 1 / self.batch, device=rows[0].output.device)
                weight[self.batch :] *= self.keep_weight
                return Lesson(stack(rows), weight)

            fit(
                net, learner.weights, lesson, updates=updates, lr=settled.lr, optimizer=self.optimizer,
                schedule=self.schedule, metric=learner.metric, writes=learner.writes, examiner=examiner,
                seconds=self.budget, checkpoint=checkpoint and replace(checkpoint, run=card.to_json()),
                window=max(1, self.rerecord), room=room, watch=watch,
            )  # fmt: skip
            card = replace(card, curve=tuple(examiner.curve) if examiner else ())
            return learner.edit(key, card)

    @contextmanager
    def _learner(
        self,
        net: nn.Module,
        weights: dict[str, nn.Parameter],
        metric: dict[str, Metric],
        start: dict[str, LowRank],
        seed: int,
    ) -> Iterator[Learner]:
        """Within the context `weights` can be learned, from `start` on; afterwards the denoiser is what it was."""
        with trainable(weights) as frozen:
            for name, delta in start.items():
                weights[name].data += delta.dense(weights[name].shape).to(weights[name])
            teacher = partial(swapped, weights, frozen)
            yield Learner(weights, metric, {}, teacher, lambda key, card: Edit.between(key, frozen, weights, card))

    def _metric(
        self,
        pipe: Pipeline,
        texts: Sequence[str],
        about: Sequence[str],
        moments: Mapping[str, Tensor],
        stays: Sequence[Call],
        goes: Sequence[Call],
        rate: float,
        watch: Watch,
    ) -> dict[str, Metric]:
        """How the matrices of the layers `texts` move (optimizers.Metric), by parameter name.

        about        prompts that ask for the concepts
        moments      of the layers' inputs for what must stay
        stays, goes  recorded calls of what must stay and of the concepts
        """
        asks = second_moments(pipe, about, texts, watch=watch)
        found = metrics(
            denoiser(pipe)[1],
            met(pipe, moments, stays),
            met(pipe, asks, goes),
            inputs(pipe, about[:SPAN], texts),
            self.damping,
            rate,
        )
        return {f"{layer}.weight": one for layer, one in found.items()}

    def _target(self, concept: Concept, asked: Tensor, c: Tensor, u: Tensor) -> Tensor:
        """What to answer where `asked` was: c with the concept, u with none or with its anchor."""
        return steer(asked if concept.from_ else u, c, u, self.eta)

    @torch.no_grad()
    def _erase(
        self,
        pipe: Pipeline,
        concept: Concept,
        runs: int,
        rng: torch.Generator,
        watch: Watch,
        at: Sequence[int] | None = None,
        teacher: Callable[[], AbstractContextManager[None]] = nullcontext,
        contexts: Sequence[str] = (),
    ) -> list[Call]:
        """Calls that ask for the concept in so many runs, one a step, each with its targets as output.

        at, teacher  with a model that is being edited: the steps to record; where the frozen model answers
        contexts     prompts to ask under, instead of the templates
        """
        if not runs:
            return []
        _, net = denoiser(pipe)
        if concept.from_ or concept.image:  # no name alone, whose company stays: the templates say what to ask
            contexts = ()
        ways = list(product(contexts or self.templates, concept.names))
        ways = [ways[k] for k in islice(cycle(torch.randperm(len(ways), generator=rng).tolist()), runs)]
        prompts = [way.format(concept.from_ or word) for way, word in ways]
        trajectory = self._record(pipe, prompts, rng, watch, at, read_picture(concept.image) if concept.image else None)
        asked = partial(conditions, pipe, answered=False)
        named = asked([way.format(word) for way, word in ways]) if concept.from_ else None
        alone = torch.tensor([way in self.templates and not concept.anchor for way, _ in ways])
        rest = [" ".join(way.format(concept.anchor or "").split()) for way, _ in ways]
        anchor = asked(rest) if not alone.all() else None
        calls = []
        with teacher():
            for step in trajectory if teacher is nullcontext else map(partial(again, net), trajectory):
                c = replay(net, named, like=step.concept) if named else step.concept.output
                u = step.null.output.clone()
                if anchor:
                    u[~alone] = replay(net, anchor, like=step.concept)[~alone]
                calls.append(replace(step.concept, output=self._target(concept, step.concept.output, c, u)))
        return calls

    @torch.no_grad()
    def _keep(
        self, pipe: Pipeline, prompts: Sequence[str], concepts: Sequence[Concept], rng: torch.Generator, watch: Watch
    ) -> tuple[list[Call], list[Call], list[Call]]:
        """What must stay, each with its targets as output: calls with other prompts, and with none, one a step.

        Targets are the frozen model's own outputs; with `unasked` less what each concept would add, and the last list
        are calls that ask for it beside those prompts.
        """
        trajectory = self._record(pipe, prompts, rng, lambda _, *done: watch("keep", *done))
        kept, none, beside = [step.concept for step in trajectory], [step.null for step in trajectory], []
        if self.unasked and prompts:
            _, net = denoiser(pipe)
            with_names = [
                conditions(pipe, [f"{k}, {c}" for k, c in zip(prompts, cycle(concept.names))], answered=False)
                for concept in concepts
            ]
            for step, call in enumerate(kept):
                target = k = call.output
                for concept, with_name in zip(concepts, with_names, strict=True):
                    c = replay(net, with_name, like=call)
                    target = target + self._target(concept, k, c, k) - k
                kept[step] = replace(call, output=target)
                beside += [replace(placed(net, with_name, call), output=target) for with_name in with_names]
        return kept, none, beside

    def _record(
        self,
        pipe: Pipeline,
        prompts: Sequence[str],
        rng: torch.Generator,
        watch: Watch,
        at: Sequence[int] | None = None,
        image: Image | None = None,
    ) -> Trajectory:
        if not prompts:
            return []
        return record(
            pipe,
            prompts,
            seeds=torch.randint(2**31, (len(prompts),), generator=rng).tolist(),
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            sampler=self.sampler,
            at=at,
            image=image,
            batch=2 * self.batch,
            watch=watch,
        )


def _apart(calls: Sequence[Call], out: int = 0) -> tuple[list[Call], list[Call]]:
    """The rows of calls, one a step; without the last `out` runs, of which every fourth step is returned apart."""
    steps = [single(call) for call in calls]
    return [row for step in steps for row in step[: len(step) - out]], [
        row for step in steps[::4] for row in step[len(step) - out :]
    ]


def _some(rows: Sequence[Call], count: int, rng: torch.Generator) -> list[Call]:
    return [rows[k] for k in torch.randint(len(rows), (count,), generator=rng).tolist()]
