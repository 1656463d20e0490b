"""Settings that methods share: those of every fit, and those of hybrid, lora and robust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import nn

from unsee.concepts import Concept, to_keep
from unsee.errors import InputError
from unsee.methods.presets import Count, Guidance, NotNegative, Number, Positive, Schedule, Steps, Templates
from unsee.methods.prompts import NEUTRAL, TEMPLATES, preserved_words
from unsee.methods.targets import recording, renewing
from unsee.models.weights import SELECTIONS, is_full_precision, reads_text, select, text_input_weights

Start = Literal["closed-form", "base"]
UPDATES: dict[Start, int] = {"closed-form": 12, "base": 140}
RUNS: dict[Start, int] = {"closed-form": 8, "base": 64}
"""Updates and recorded runs of a concept, by where a fit starts; the docstring of Settings lists them too.
Tuned on the miniature (docs/LOG.md)."""
LEFT = {"noncross": 40, "self": 47, "up_blocks.*attn2": 48}
"""How many of 48 pictures of "church" on the miniature still show one after hybrid with a selection."""
PART = (
    "a part may stay where the prompt names both: of 24 dogs that the miniature was asked to draw with a watermark, 4 "
    "kept it at eta 1, and 1 at eta 2; no dog was lost"
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FitSettings:
    """Hyperparameters of every fit on recorded runs.

    select           layer group: cross (ESD-x), cross-kv (ESD-x-strict), self, noncross (ESD-u), all
    lr               largest share by which an update moves a layer's output; None: optimizers.RATE, and hybrid.RATES
                     where a matrix is preconditioned. With adam it is Adam's learning rate
    optimizer        matrix-adam or adam
    schedule         schedule of lr: a name of diffusers.optimization.get_scheduler
    batch            rows with erased targets in one update; hybrid adds as many with kept ones
    record_guidance  guidance scale of recorded runs
    record_steps     sampler steps of recorded runs
    sampler          sampler of recorded runs: "pipeline", or the name of a diffusers scheduler
    rerecord         record again, with the model being edited, each time after this many updates; 0: never
    gradient_checkpointing  recompute activations to save memory; None: only if one row does not fit without it
    budget           time limit for the updates, in seconds; None: no limit
    """

    select: str = "cross"
    lr: Positive | None = None
    optimizer: Literal["matrix-adam", "adam"] = "matrix-adam"
    schedule: Schedule = "linear"
    batch: Count = 8
    record_guidance: Guidance = 3.0
    record_steps: Steps = 6
    sampler: str = "pipeline"
    rerecord: Number = 0
    gradient_checkpointing: bool | None = None
    budget: Positive | None = None

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of a denoiser that change, by name."""
        return select(net, self.select)

    def learned(self, net: nn.Module) -> int:
        """How many numbers a fit of a denoiser learns."""
        return sum(weight.numel() for weight in self.weights(net).values())

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """With numbers where the settings leave them open: by default they leave none."""
        return self


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings(FitSettings):
    """The settings that hybrid, lora and robust add to those of every fit; hybrid.py explains them.

    eta              how far to steer away; 0 maps the concept to the unconditional prediction
    updates          number of updates; None: 12 after a closed form, 140 from the base's own weights
    start            closed-form: matrices that read the prompt start at UCE's solution; base: at their own weights
    runs             recorded runs of each concept; None: 8 after a closed form, 64 from the base's own weights
    keep_runs        recorded runs with preservation prompts, one for each word; all words of `keep` come first
    keep_weight      weight of the loss on preservation prompts
    implicit         the concept appears where no prompt names it: remove it from the targets of preservation prompts
    context_words    random context words for each prompt of prompts.CONTEXTS
    preserve_words   random words of the tokenizer whose text features are preserved by preconditioning; 0: none
    damping          how far these text features may change; smaller is less; see optimizers.Metric
    held_out         number of runs of each concept, and of preservation words, that only measure the fit
    patience         early stopping: held-out measurements without 1 % improvement, at least five in a fit; 0: never
    templates        prompts; {} is the concept's name, or a word that must stay
    neutral          words that must stay, beside the concept's own `keep`
    """

    select: str = "cross-kv"
    eta: NotNegative = 1.0
    updates: Count | None = None
    start: Start = "closed-form"
    runs: Count | None = None
    keep_runs: Count = 16
    keep_weight: NotNegative = 3.0
    implicit: bool = False
    context_words: Number = 32
    preserve_words: Number = 384
    damping: Positive = 0.01
    held_out: Number = 2
    patience: Number = 0
    templates: Templates = TEMPLATES
    neutral: tuple[str, ...] = NEUTRAL

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """With numbers of updates and runs where the settings leave them open."""
        start = self.starts(net, concepts)
        return replace(self, updates=self.updates or UPDATES[start], runs=self.runs or RUNS[start])

    def starts(self, net: nn.Module, concepts: Sequence[Concept]) -> Start:
        """Where the fit of a denoiser starts."""
        return "closed-form" if self.solved(net, concepts) else "base"

    def solved(self, net: nn.Module, concepts: Sequence[Concept]) -> list[str]:
        """The matrices that start at UCE's solution: those through which the prompt enters, if a concept is a name."""
        texts = {name for name in self.weights(net) if reads_text(name, net)}
        named = any(not (concept.from_ or concept.image) for concept in concepts)
        if self.start == "base" or not (texts and named and (self.keep_weight or self.preserve_words)):
            return []
        return [name for name, weight in text_input_weights(net).items() if name in texts and is_full_precision(weight)]

    def passes(self, concepts: Sequence[Concept]) -> tuple[int, int]:
        """About how many rows a denoiser answers in all, without a gradient and with one. Of `resolved` settings."""
        assert self.updates
        assert self.runs
        steps, named = self.record_steps, len(to_keep(concepts))
        stay = len(preserved_words(concepts, self.neutral))
        prompts = min(stay, self.held_out + max(self.keep_runs, named)) if self.keep_weight else 0
        prompts = prompts or min(stay, self.held_out)
        prompts *= 2 if any(concept.from_ for concept in concepts) else 1  # with the part, and without
        apart = min(self.held_out, max(0, prompts - max(1, named)))
        count = self.held_out + (0 if self.rerecord else self.runs)
        found = recording(concepts, count, steps, bool(self.context_words), parts=True)
        found += renewing(self.rerecord, self.updates, self.runs, steps)
        found += prompts * steps * (2 + (len(concepts) if self.implicit else 0))
        if self.held_out and apart:
            looks = -(-self.updates // max(1, min(10, self.updates // 4))) + 1
            found += looks * (self.held_out * -(-steps * len(concepts) // 4) + apart * -(-steps // 4))
        return found, self.updates * self.batch * (2 if prompts > apart else 1)

    def notes(self, concepts: Sequence[Concept]) -> list[str]:
        """What a user should know of these settings before an edit is made."""
        named = any(not (concept.from_ or concept.image) for concept in concepts)
        if any(concept.from_ for concept in concepts) and self.eta < 2:
            return [PART]
        if self.implicit or not named or self.select in set(SELECTIONS) - LEFT.keys():
            return []
        pattern = "" if self.select in SELECTIONS else " unless it holds all that reads the prompt"
        like = self.select if self.select in LEFT else "up_blocks.*attn2"
        left = f"on the miniature {like} left {LEFT[like]} of 48 churches, and cross-kv none"
        return [f"{self.select} hardly erases what a prompt names{pattern}: {left}"]

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        if self.implicit and not self.keep_weight:
            raise InputError("an implicit concept is removed through preservation prompts: set keep_weight above 0")
        if self.patience and not (self.held_out and self.keep_weight):
            raise InputError("patience needs held-out rows: set held_out and keep_weight above 0")
