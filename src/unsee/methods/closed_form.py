"""What closed forms share: their settings, and how an edit is made of what they solve for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of
from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError
from unsee.fit.resume import ResumeFile
from unsee.methods.columns import Columns, columns
from unsee.methods.presets import Contexts, Number, Templates
from unsee.methods.prompts import CONTEXTS, NEUTRAL, TEMPLATES
from unsee.methods.rece import brought_back
from unsee.methods.targets import card_of
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.model import Pipeline
from unsee.models.weights import is_full_precision, text_input_weights
from unsee.progress import Progress, no_progress


class Solution(NamedTuple):
    """The change of each layer's matrix; the words that it hurts most, with the share that each loses; and the words
    whose pictures it would have taken along, with the share of each prediction."""

    deltas: Mapping[str, Delta]
    hurt: Mapping[str, float]
    alike: Mapping[str, float] = {}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ClosedForm:
    """A method that solves for the values through which a prompt enters, and the settings that all of these have.

    context_words   random context words for each prompt of `contexts`; 0: names by themselves
    preserve_words  random words of the tokenizer that must stay; other names of a concept are left out
    rece            rounds that erase what still brings a name back through the edited matrices (rece.py)
    templates       prompts; {} is the concept's name, or a word that must stay
    contexts        prompts that put a random word, *, beside the name, {}
    neutral         words that must stay, beside the concept's own `keep`
    """

    context_words: Number = 8
    preserve_words: Number = 384
    rece: Number = 0
    templates: Templates = TEMPLATES
    contexts: Contexts = CONTEXTS
    neutral: tuple[str, ...] = NEUTRAL

    name: ClassVar[str]
    """Name of the method, for the card."""

    def solved(
        self,
        pipe: Pipeline,
        found: Sequence[Columns],
        weights: Mapping[str, Tensor],
        rng: torch.Generator,
        progress: Progress,
    ) -> Solution:
        """How the matrices `weights` (out, features) change, which are given by their layers."""
        raise NotImplementedError

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The matrices that change: values through which the prompt enters. Raises InputError if there is none."""
        return values(solvable(net))

    def resolved(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """Itself: its settings leave nothing open."""
        return self

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
        concepts = named_only(self.name, concepts_of(concepts))
        key, net = denoiser(pipe)
        rng = torch.Generator().manual_seed(seed)
        weights = {name.removesuffix(".weight"): weight for name, weight in self.weights(net).items()}
        found = columns(pipe, concepts, weights, self, rng, progress)
        card = card_of(self.name, self, concepts, pipe, seed, found[0].kept)
        solution = self.solved(pipe, found, weights, rng, progress)
        names = [(one.c, one.a) for one in found]
        for _ in range(self.rece):
            for k, (c, a) in enumerate(names):
                frozen = {layer: whole(weights[layer]) for layer in found[k].layers}
                back = brought_back(changed_by(solution.deltas, frozen), frozen, c, found[k].P)
                found[k] = found[k].joined(back, a)
            solution = self.solved(pipe, found, weights, rng, progress)
        deltas = {f"{key}.{layer}.weight": solution.deltas[layer] for layer in weights}
        return Edit(deltas, dataclasses.replace(card, hurt=dict(solution.hurt), alike=dict(solution.alike)))


def whole(weight: Tensor) -> Tensor:
    """A matrix in float64, not on its device; all of one that is spread over processes."""
    return whole_tensor(weight).detach().double().cpu()


def changed_by(deltas: Mapping[str, Delta], frozen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices `frozen` with their differences."""
    both = {layer: (W0, deltas[layer]) for layer, W0 in frozen.items()}
    return {layer: W0 + (D.dense(W0.shape) if isinstance(D, LowRank) else D).cpu() for layer, (W0, D) in both.items()}


def solvable(net: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices through which the prompt enters. Raises InputError if there is none, or where it is quantised."""
    found = text_input_weights(net)
    if packed := next((name for name, weight in found.items() if not is_full_precision(weight)), None):
        raise InputError(f"{packed} is quantised: nothing can be solved for it; use lora, or an unquantised model")
    return found


def values(weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The matrices through which the prompt enters that make values; all of them where none has that name."""
    found = {
        name: weight for name, weight in weights.items() if name.endswith(("_v.weight", ".v.weight", "v_proj.weight"))
    }
    return found or dict(weights)


def named_only(method: str, concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """The concepts, if all are names. Raises InputError for others, which a matrix that reads text cannot erase."""
    for concept in concepts:
        if concept.from_:
            raise InputError(
                f"{method} moves names, so it cannot erase {concept.erase!r} from {concept.from_!r}; use hybrid or lora"
            )
        if concept.image:
            raise InputError(f"{method} uses no image: use hybrid or lora to erase {concept.image}")
    return concepts
