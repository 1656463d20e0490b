"""Regression targets from recorded runs of the frozen model: what ESD, hybrid and LoRA learn from.

A recorded step holds x_t, the prediction with the prompt (c) and the one without (u). Every function here returns
denoiser calls, one a step with a row a run, whose `output` is the target of the edited model for that call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice, product
from typing import Any, Protocol

import torch
from torch import Tensor

from unsee.concepts import Concept
from unsee.denoising.calls import Call, Trajectory
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import at_point_of, replay, rerun
from unsee.denoising.rows import single_rows
from unsee.edits.card import Card, settings_of
from unsee.errors import InputError
from unsee.io.images import read_picture
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Pipeline, model_name, said_options, variant_of
from unsee.progress import Progress, no_progress
from unsee.versions import versions


def card_of(
    method: str, settings: Any, concepts: tuple[Concept, ...], pipe: Pipeline, seed: int, kept: Sequence[str] = ()
) -> Card:
    """The card of an edit that is about to be made; `kept` are the words of preservation prompts."""
    base = (model_name(pipe), fingerprint(denoiser(pipe)[1]))
    return Card(
        method,
        settings_of(settings),
        concepts,
        *base,
        seed,
        versions(),
        tuple(kept),
        call=said_options(pipe),
        variant=variant_of(pipe),
    )


class Target(Protocol):
    """The target of a call that asks for a concept.

    asked  frozen prediction for the prompt that is asked (B, ...): the concept's, or that of `from_`
    c      frozen prediction for the concept's prompt
    u      frozen prediction for none, or for the anchor
    """

    def __call__(self, concept: Concept, asked: Tensor, c: Tensor, u: Tensor) -> Tensor: ...


def steer(start: Tensor, c: Tensor, u: Tensor, eta: float) -> Tensor:
    """start - eta (c - u): away from what the concept adds to the prediction. With start = u it is eq. 6 of ESD."""
    return start - eta * (c - u)


def esd_target(eta: float, concept: Concept, asked: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """ESD's target, eq. 6; with `from_` the step starts at the prediction for `from_`, as in the authors' code."""
    return steer(asked if concept.from_ else u, c, u, eta)


def apart(concept: Concept, asked: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """Both predictions of each row, u and c, (B, 2, ...): for a loss that reads them apart."""
    return torch.stack([u, c], 1)


def recorded(
    pipe: Pipeline, prompts: Sequence[str], runs: Runs, rng: torch.Generator, progress: Progress, **options: Any
) -> Trajectory:
    """One run for each prompt, with a random seed each; options are those of `record`."""
    if not prompts:
        return []
    seeds = torch.randint(2**31, (len(prompts),), generator=rng).tolist()
    return record(pipe, prompts, seeds=seeds, runs=runs, progress=progress, **options)


@dataclass(frozen=True)
class Erasing:
    """How calls that ask for a concept are made.

    runs       how they are recorded
    target     what the edited model should predict there
    templates  prompts that ask for the concept as it is; {} is its name
    contexts   prompts that ask for it beside context words, where the target is that of the context: they replace the
               templates where a concept is a name
    with_whole prompt of `from_` and of the concept in it, "{} with a {}": what a concept adds is then what it adds to
               `from_`, and half of the runs ask for both. "": it is what it adds to nothing, as in the paper
    """

    runs: Runs
    target: Target
    templates: Sequence[str]
    contexts: Sequence[str] = ()
    with_whole: str = ""

    @torch.no_grad()
    def calls(
        self,
        pipe: Pipeline,
        concept: Concept,
        count: int,
        rng: torch.Generator,
        progress: Progress = no_progress,
        at: Sequence[int] | None = None,
        frozen: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> list[Call]:
        """Calls that ask for the concept in `count` runs.

        at, frozen  while the model is being edited: the steps to record, and a context in which it is the frozen one
        """
        if not count:
            return []
        _, net = denoiser(pipe)
        named = not (concept.from_ or concept.image)  # else there is no name alone, whose context stays
        pairs = list(product((named and self.contexts) or self.templates, concept.names))
        pairs = [pairs[k] for k in islice(cycle(torch.randperm(len(pairs), generator=rng).tolist()), count)]
        prompts = [template.format(concept.from_ or name) for template, name in pairs]
        image = read_picture(concept.image) if concept.image else None
        added = [template.format(name) for template, name in pairs]
        rest = [" ".join(template.format(concept.anchor or "").split()) for template, _ in pairs]
        wholes = prompts if concept.from_ and self.with_whole else []
        if wholes:
            added = [self.with_whole.format(whole, name) for whole, (_, name) in zip(wholes, pairs)]
            rest = [self.with_whole.format(whole, concept.anchor) if concept.anchor else whole for whole in wholes]
            prompts = [*wholes[::2], *added[1::2]]
            added, rest, wholes = ([*some[::2], *some[1::2]] for some in (added, rest, wholes))
        trajectory = recorded(pipe, prompts, self.runs, rng, progress, at=at, image=image)
        asked = partial(conditions, pipe, answered=False)
        names, whole = asked(added) if concept.from_ else None, asked(wholes) if wholes else None
        alone = torch.tensor([template in self.templates and not (concept.anchor or wholes) for template, _ in pairs])
        anchor = asked(rest) if not alone.all() else None
        calls = []
        with frozen():
            for step in trajectory if frozen is nullcontext else map(partial(rerun, net), trajectory):
                start = replay(net, whole, like=step.concept) if whole else step.concept.output
                c = replay(net, names, like=step.concept) if names else step.concept.output
                u = step.null.output.clone()
                if anchor:
                    u[~alone] = replay(net, anchor, like=step.concept)[~alone]
                calls.append(replace(step.concept, output=self.target(concept, start, c, u)))
        return calls

    def rows(
        self,
        pipe: Pipeline,
        concepts: Sequence[Concept],
        count: int,
        rerecord: int,
        rng: torch.Generator,
        progress: Progress = no_progress,
    ) -> Callable[[int, torch.Generator, Callable[[], AbstractContextManager[None]]], list[Call]]:
        """(update, rng, frozen) -> the rows to learn from, of `count` runs of each concept.

        The runs are of the frozen model, recorded now. With `rerecord` they are recorded every `rerecord` updates, from
        the model as it is then, for one concept after the other; `frozen` is a context in which it is the frozen one.
        """
        check_rerecord(pipe, rerecord)
        first = () if rerecord else concepts
        rows, _ = training_rows([call for one in first for call in self.calls(pipe, one, count, rng, progress)])

        def at(update: int, rng: torch.Generator, frozen: Callable[[], AbstractContextManager[None]]) -> list[Call]:
            self.renew(rows, pipe, concepts, count, rerecord, update, rng, frozen)
            return rows

        return at

    def renew(
        self,
        rows: list[Call],
        pipe: Pipeline,
        concepts: Sequence[Concept],
        count: int,
        rerecord: int,
        update: int,
        rng: torch.Generator,
        frozen: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Every `rerecord` updates put new rows in the place of `rows`; never if it is 0.

        They are `rerecord` random steps of `count` runs with the model as it is being edited, for one concept after the
        other; targets are of the frozen model.
        """
        if not rerecord or update % rerecord:
            return
        concept = concepts[update // rerecord % len(concepts)]
        at = torch.randperm(self.runs.steps, generator=rng)[:rerecord].tolist()
        rows[:] = training_rows(self.calls(pipe, concept, count, rng, no_progress, at, frozen))[0]


def recording(
    concepts: Sequence[Concept], count: int, steps: int, contexts: bool = False, *, parts: bool = False
) -> int:
    """Denoiser passes of `Erasing.calls` for `count` runs of `steps` of each concept.

    contexts, parts  whether there are contexts, and a prompt of a part with its whole
    """
    each = [
        5 if parts and c.from_ else 2 + bool(c.anchor or (contexts and not (c.from_ or c.image))) + bool(c.from_)
        for c in concepts
    ]
    return count * steps * sum(each)


def renewing(rerecord: int, updates: int, count: int, steps: int) -> int:
    """Denoiser passes of `Erasing.renew` over so many updates, on average over the steps that it draws at random."""
    if not rerecord:
        return 0
    last = min(rerecord, steps) * (steps + 1) / (min(rerecord, steps) + 1)  # mean of the largest
    return round(-(-updates // rerecord) * count * 2 * (last + min(rerecord, steps)))


def check_rerecord(pipe: Pipeline, rerecord: int) -> None:
    """Raise InputError where runs of the edited model cannot be recorded: steps could be the other denoiser's."""
    if rerecord and len(denoisers(pipe)) > 1:
        raise InputError("rerecord is for pipelines with one denoiser: set it to 0")


@torch.no_grad()
def preserving(
    pipe: Pipeline, prompts: Sequence[str], runs: Runs, rng: torch.Generator, progress: Progress = no_progress
) -> tuple[list[Call], list[Call]]:
    """Calls with preservation prompts, and the same without any prompt; targets are the frozen predictions."""
    trajectory = recorded(pipe, prompts, runs, rng, lambda _, *done: progress("keep", *done))
    return [step.concept for step in trajectory], [step.null for step in trajectory]


@torch.no_grad()
def without_implicit(
    pipe: Pipeline, kept: Sequence[Call], prompts: Sequence[str], concepts: Sequence[Concept], target: Target
) -> tuple[list[Call], list[Call]]:
    """Calls with preservation prompts k whose targets have lost what each concept c adds to them.

        e(x_t, k) - eta [e(x_t, k with c) - e(x_t, k)]                                   SLD's direction, learned

    An implicit concept appears though no prompt names it. Returned second: calls that ask for "k, c", same targets.
    """
    if not prompts:
        return list(kept), []
    _, net = denoiser(pipe)
    with_names = [
        conditions(pipe, [f"{k}, {c}" for k, c in zip(prompts, cycle(concept.names))], answered=False)
        for concept in concepts
    ]
    lost, beside = [], []
    for call in kept:
        goal = k = call.output
        for concept, with_name in zip(concepts, with_names, strict=True):
            goal = goal + target(concept, k, replay(net, with_name, like=call), k) - k
        lost.append(replace(call, output=goal))
        beside += [replace(at_point_of(net, with_name, call), output=goal) for with_name in with_names]
    return lost, beside


def training_rows(calls: Sequence[Call], held_out: int = 0) -> tuple[list[Call], list[Call]]:
    """The rows of calls, without those of the last `held_out` runs; of these, every fourth step is returned second."""
    steps = [single_rows(call) for call in calls]
    return [row for step in steps for row in step[: len(step) - held_out]], [
        row for step in steps[::4] for row in step[len(step) - held_out :]
    ]


def sampled(rows: Sequence[Call], count: int, rng: torch.Generator) -> list[Call]:
    """`count` random rows, with replacement."""
    return [rows[k] for k in torch.randint(len(rows), (count,), generator=rng).tolist()]
