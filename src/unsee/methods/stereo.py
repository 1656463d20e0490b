r"""STEREO: search for texts that bring a concept back from an erased model, then erase all of them once, from the base.

Srivatsan, Shamshad, Naseer, Patel, Nandakumar: "STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing
from Text-to-Image Diffusion Models", CVPR 2025, arXiv:2408.16807.

    1. search   a few rounds: ESD-u (esd.py, eq. 6) of the text that was found last, at first the concept's prompt, on
                the weights as they are; then a new token v_i with which this model draws the concept (CCE,
                arXiv:2308.01508). Of all this the tokens alone are kept
    2. erase    from the frozen weights, for the concept's prompt and for every v_i alike:
                    e_theta(x_t, v)  <-  e(x_t) + [e(x_t, a) - e(x_t)] - eta mean_i [e(x_t, v_i) - e(x_t)]
                where v_0 is the concept's prompt and a an anchor: a prompt for something else, which is to stay

e is the frozen model, e_theta the edited one. Away from everything that was found, towards the anchor.

Departures from the paper
- x_t comes from guided runs of the frozen model for the concept, recorded once, in both stages. The paper draws it anew
  for each update with the model being edited, and with the text of that update.
- In the first stage, targets are the frozen model's. The code's are those of the model of the round before.
- The search asks for what the frozen model answers to the concept at recorded steps, so it needs no pictures; it is
  `searches` updates of fit/search.py where the code takes 3,000. Where a prompt is read by more than one text encoder,
  all that the denoiser reads is learned in a token's place.
- Anchors are the concept's `anchor`, or its `keep`, or else the words of `anchors`, one for each run. The paper has
  sentences about what appears beside the concept, which a language model wrote.
- eta counts as in esd.py. The authors' code sets "compositional_guidance_scale", which counts from one with the sign:
  its 2 is 1 for the anchor and eta = 3 here. The optimizer is matrix-adam; the paper's is AdamW.
`STEREO.presets["paper"]` takes back the numbers. Nothing else preserves other concepts, as in the paper: on the
miniature the default leaves half of the churches and loses more than half of all else (docs/LOG.md). `robust` does
better there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of, to_keep
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import asked
from unsee.denoising.intercept import over
from unsee.denoising.record import Runs, conditions
from unsee.denoising.replay import replay
from unsee.denoising.rows import single_rows, stack
from unsee.edits.edit import Edit
from unsee.errors import InputError, one_line
from unsee.fit.loop import Learned, Optimisation, TrainBatch, fit, trainable
from unsee.fit.memory import FitMemory
from unsee.fit.resume import ResumeFile
from unsee.fit.search import ROWS, Learnable, any_of, learn, soft, tokens
from unsee.methods.closed_form import named_only
from unsee.methods.presets import Count, NotNegative, Templates
from unsee.methods.prompts import NEUTRAL, in_templates, preserved_words
from unsee.methods.settings import FitSettings
from unsee.methods.targets import Erasing, apart, card_of, recording, sampled, steer
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.weights import temporary_values
from unsee.progress import Progress, no_progress

WAYS = ("a {}", "{}", "a picture of a {}")
"""Prompts with new tokens, one round after another."""


def composed(u: Tensor, a: Tensor, away: Sequence[Tensor], eta: float) -> Tensor:
    """u + (a - u) - eta mean_i (v_i - u): the target of the second stage; `away` are the v_i."""
    return steer(a, torch.stack(list(away)).mean(0), u, eta)


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class STEREO(FitSettings):
    """Erase concepts and the tokens that bring them back, with STEREO; the formula is at the top of its file.

    eta       how far to steer away from all that was found
    updates   updates of each fit; each round has a fit, and one follows the last
    rounds    rounds of erasing and search
    searches  updates of one search
    anchors   anchor words for a concept that has neither `anchor` nor `keep`

    All other settings are ESD's. Calling it with a pipeline and one or more concepts returns an Edit and leaves the
    pipeline as it was. Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.STEREO(updates=2, rounds=1, searches=2)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    select: str = "noncross"
    eta: NotNegative = 1.0
    updates: Count = 60
    rounds: Count = 2
    searches: Count = 60
    runs: Count = 16
    templates: Templates = ("{}",)
    rerecord: Literal[0] = 0
    budget: None = None
    anchors: tuple[str, ...] = NEUTRAL

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # The authors' code; its rate in the first stage is 5e-6.
        "paper": {
            "eta": 3.0, "updates": 200, "searches": 3000, "lr": 2e-5, "optimizer": "adam", "schedule": "constant",
            "batch": 1, "record_steps": 50, "sampler": "DDIMScheduler",
        },
    }  # fmt: skip

    def passes(self, concepts: Sequence[Concept]) -> tuple[int, int]:
        """About how many rows a denoiser answers in all, without a gradient and with one."""
        rows = len(concepts) * self.runs * self.record_steps
        found = recording(concepts, self.runs, self.record_steps) + rows * (1 + self.rounds)
        fits, searches = self.rounds + 1, len(concepts) * self.rounds * self.searches * ROWS
        found += fits * (self.batch + 1)  # each fit finds its rates, and the memory of a row, anew
        return found, fits * (self.updates * self.batch + 1) + searches

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
        concepts, (key, net) = named_only("stereo", concepts_of(concepts)), denoiser(pipe)
        weights, card = self.weights(net), card_of("stereo", self, concepts, pipe, seed)
        rng = torch.Generator().manual_seed(seed)
        row = conditions(pipe, [concepts[0].erase], answered=False)
        memory = FitMemory(pipe, row, self.gradient_checkpointing, alone=False)
        goals = [Goal.of(pipe, concept, self, rng, progress) for concept in concepts]
        how = Optimisation(self.updates, self.lr, self.optimizer, self.schedule)

        def fitted(rows: Sequence[Call], turn: int, state: ResumeFile | None = None) -> None:
            def make_batch(update: int) -> TrainBatch:
                rng = torch.Generator().manual_seed(1_000_003 * seed + turn * self.updates + update)
                return TrainBatch.mean(stack(sampled(rows, self.batch, rng)))

            fit(net, Learned(weights), make_batch, how, resume=state, memory=memory, progress=progress)

        with trainable(weights) as frozen, memory:
            for turn in range(self.rounds):
                fitted([row for goal in goals for row in goal.last(self.eta)], turn)
                for goal in goals:
                    text = _open(pipe, WAYS[turn % len(WAYS)], rng)
                    list(learn(pipe, text, any_of(goal.knows()), [self.searches], rng))
                    with temporary_values(weights, frozen):
                        goal.add(net, text.fixed())
            for name, weight in weights.items():
                weight.data.copy_(frozen[name])
            state = resume and resume.of(card.to_json(), self.updates)  # what was found is found again
            fitted([row for goal in goals for row in goal.all(self.eta)], self.rounds, state)
            return Edit.between(key, frozen, weights, card)


def _open(pipe: Pipeline, way: str, rng: torch.Generator) -> Learnable:
    """A new token, or all that the denoiser reads of a prompt where tokens cannot be learned."""
    with suppress(InputError):
        return tokens(pipe, way, 1, rng)
    return soft(pipe, "a picture")


@dataclasses.dataclass(frozen=True)
class Goal:
    """A concept, and what brings it back.

    calls    recorded steps of B runs for it; outputs are u and c (B, 2, ...)
    anchors  of each step the frozen model's answers to the anchor (B, ...)
    texts    one row each
    found    of each text, for each step, the frozen model's answers (B, ...)
    """

    calls: Sequence[Call]
    anchors: Sequence[Tensor]
    texts: list[Call] = dataclasses.field(default_factory=list)
    found: list[list[Tensor]] = dataclasses.field(default_factory=list)

    @classmethod
    @torch.no_grad()
    def of(cls, pipe: Pipeline, concept: Concept, how: STEREO, rng: torch.Generator, progress: Progress) -> Goal:
        """Recorded with the frozen model."""
        runs = Runs(how.record_steps, how.record_guidance, how.sampler, 2 * how.batch)
        plain = replace(concept, anchor=None)
        calls = Erasing(runs, apart, how.templates).calls(pipe, plain, how.runs, rng, progress)
        words = [concept.anchor] if concept.anchor else to_keep([concept]) or preserved_words([concept], how.anchors)
        some = list(islice(cycle(words or [""]), how.runs))
        anchors = conditions(
            pipe, [" ".join(one.split()) for one in in_templates(how.templates, some, rng)], answered=False
        )
        _, net = denoiser(pipe)
        return cls(calls, [replay(net, anchors, like=call) for call in calls])

    @torch.no_grad()
    def add(self, net: nn.Module, text: Call) -> None:
        """Remember a text. The denoiser is the frozen model."""
        self.texts.append(text)
        self.found.append([asked(net, text, call) for call in self.calls])

    def knows(self) -> list[Call]:
        """Rows that ask for the concept, with the frozen model's answers."""
        return [row for call in self.calls for row in single_rows(replace(call, output=call.output[:, 1]))]

    def last(self, eta: float) -> list[Call]:
        """Rows that ask with the text that was found last, at first with the concept's prompt; targets are ESD's."""
        c = self.found[-1] if self.found else [call.output[:, 1] for call in self.calls]
        goals = [steer(u, v, u, eta) for u, v in zip(self._u(), c, strict=True)]
        return self._rows(self.texts[-1] if self.texts else None, goals)

    def all(self, eta: float) -> list[Call]:
        """Rows that ask with the concept's prompt, and with each text that was found; targets are `composed`."""
        every = [[call.output[:, 1] for call in self.calls], *self.found]
        goals = [composed(*one, eta) for one in zip(self._u(), self.anchors, zip(*every, strict=True), strict=True)]
        return [row for text in (None, *self.texts) for row in self._rows(text, goals)]

    def _u(self) -> list[Tensor]:
        return [call.output[:, 0] for call in self.calls]

    def _rows(self, text: Call | None, goals: Sequence[Tensor]) -> list[Call]:
        rows = [
            row for call, goal in zip(self.calls, goals, strict=True) for row in single_rows(replace(call, output=goal))
        ]
        return [replace(row, arguments=over(row.arguments, text.arguments)) for row in rows] if text else rows
