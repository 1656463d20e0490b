r"""ESD: regress the model onto its frozen self, steered away from the concept.

Gandikota, Materzynska, Fiotto-Kaufman, Bau: "Erasing Concepts from Diffusion Models", ICCV 2023, arXiv:2303.07345.

    e_theta(x_t, c, t)  <-  e(x_t, t) - eta [e(x_t, c, t) - e(x_t, t)]                                  (eq. 6)

e is the frozen model, e_theta the edited one, c the concept's prompt; the loss is the mean squared error. The factors
of the target sum to one, so it holds for eps, v, x0 and flow predictions alike. Three variants:

    anchor a:          e(x_t, a) - eta [e(x_t, c) - e(x_t, a)]      with eta = 0, concept ablation (Kumari et al., 2023)
    c taken from b:    e(x_t, b) - eta [e(x_t, c) - e(x_t)]         for the prompt b; from the authors' code
    memorised image:   x_t is that image with the noise of step t                                       (Sec. 5.4)

Which weights change (Sec. 4.1): "cross" is ESD-x, for what prompts name; "noncross" is ESD-u, for what appears unnamed.

Departures from the paper
- x_t comes from guided runs of the frozen model, recorded once before the first update; each update trains on `batch`
  of their steps. The paper draws x_t with the model being edited before each update: `rerecord = 1`.
- The optimizer is matrix-adam (fit/optimizers.py), whose rate is a share of what a layer puts out. The paper's is Adam.
- The sampler of these runs is the pipeline's own, with 6 steps. The paper's is DDIM with 50.
- eta counts as in the paper. The authors' present code counts from one: its negative_guidance = 2 is eta = 1 here.
  The guidance scale 3 of recorded runs is from that code.
`ESD.presets["paper"]` takes the first three back. As in the paper, nothing here preserves other concepts; hybrid.py
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from unsee.concepts import Concept, concepts_of
from unsee.denoising.record import Runs, conditions
from unsee.denoising.rows import stack
from unsee.edits.edit import Edit
from unsee.errors import one_line
from unsee.fit.loop import Learned, Optimisation, TrainBatch, fit, trainable
from unsee.fit.memory import FitMemory
from unsee.fit.monitor import Loss, squared
from unsee.fit.resume import ResumeFile
from unsee.methods.presets import Count, NotNegative, Templates
from unsee.methods.settings import FitSettings
from unsee.methods.targets import Erasing, Target, card_of, esd_target, recording, renewing, sampled
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.weights import temporary_values
from unsee.progress import Progress, no_progress


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ESD(FitSettings):
    """Erase concepts as the ESD paper does (arXiv:2303.07345): the target is u - eta (c - u), eq. 6.

    eta        how far to steer away; 0 maps the concept to the unconditional prediction. Paper: 1
    updates    number of updates; on the miniature 60 erase, 30 erase half, 100 damage other words. Paper: 1000
    runs       recorded runs of each concept
    templates  prompts that ask for the concept; {} is its name

    All other settings are `FitSettings`, those of every fit.
    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.ESD(updates=4)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    eta: NotNegative = 1.0
    updates: Count = 60
    runs: Count = 16
    templates: Templates = ("{}",)

    name: ClassVar[str] = "esd"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {  # Sec. 5 and the authors' first code
            "updates": 1000, "lr": 1e-5, "optimizer": "adam", "schedule": "constant", "batch": 1, "runs": 1,
            "record_steps": 50, "sampler": "DDIMScheduler", "rerecord": 1,
        },
    }  # fmt: skip

    def passes(self, concepts: Sequence[Concept]) -> tuple[int, int]:
        """About how many rows a denoiser answers in all, without a gradient and with one."""
        recorded = recording(concepts, 0 if self.rerecord else self.runs, self.record_steps)
        renewed = renewing(self.rerecord, self.updates, self.runs, self.record_steps)
        return recorded + renewed, self.updates * self.batch

    def regression(self) -> tuple[Target, Loss]:
        """The target of each recorded row whose prompt asks for a concept, and the loss to it."""
        return partial(esd_target, self.eta), squared

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
        concepts, (key, net) = concepts_of(concepts), denoiser(pipe)
        weights, card = self.weights(net), card_of(self.name, self, concepts, pipe, seed)
        row = conditions(pipe, [concepts[0].erase], answered=False)
        memory = FitMemory(pipe, row, self.gradient_checkpointing, alone=not self.rerecord)

        target, loss = self.regression()
        runs = Runs(self.record_steps, self.record_guidance, self.sampler, 2 * self.batch)
        erasing = Erasing(runs, target, self.templates)
        rng = torch.Generator().manual_seed(seed)
        rows = erasing.rows(pipe, concepts, self.runs, self.rerecord, rng, progress)
        with trainable(weights) as frozen, memory:

            def make_batch(update: int) -> TrainBatch:
                rng = torch.Generator().manual_seed(1_000_003 * seed + update)
                some = sampled(rows(update, rng, partial(temporary_values, weights, frozen)), self.batch, rng)
                return TrainBatch.mean(stack(some), loss)

            how = Optimisation(self.updates, self.lr, self.optimizer, self.schedule, self.budget)
            state = resume and resume.of(card.to_json(), max(1, self.rerecord))
            fit(net, Learned(weights), make_batch, how, resume=state, memory=memory, progress=progress)
            return Edit.between(key, frozen, weights, card)
