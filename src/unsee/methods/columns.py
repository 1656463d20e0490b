"""What closed forms share: what layers read in names, in what takes their place, and in what must stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of, to_keep
from unsee.denoising.activations import inputs, means, second_moments
from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError
from unsee.fit.resume import ResumeFile
from unsee.methods.presets import Contexts, Number, Templates
from unsee.methods.prompts import (
    CONTEXTS,
    NEUTRAL,
    TEMPLATES,
    known_words,
    other_words,
    preservation_prompts,
    preserved_words,
    random_words,
    stand_ins,
    unlike,
    with_contexts,
)
from unsee.methods.rece import brought_back
from unsee.methods.targets import card_of
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.distributed import whole_tensor
from unsee.models.model import Pipeline
from unsee.models.weights import is_full_precision, text_input_weights
from unsee.progress import Progress, no_progress

CALLED = ("a {}", "{} in * style", "a * and a {}")
"""How a known word is read: by itself, which comes first, and beside random words."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """What layers that read one tensor read, float64. Features are those of that tensor.

    layers  names of the layers
    c, a    (n, features) of each name by itself, then of each beside other words: means over the tokens that it
            changes, and over the same tokens with another word in its place
    C       (features, features) sum over the names of E[c c^T], both ways of asking alike
    P       (features, features) E[p p^T] over tokens of preservation prompts
    words   known words; x (ways * words, features) what is read in each way of CALLED, all words by themselves first
    firm    (ways * words,) whether a user named it to be kept
    kept    every word that must stay
    """

    layers: tuple[str, ...]
    c: Tensor
    a: Tensor
    C: Tensor
    P: Tensor
    words: tuple[str, ...]
    x: Tensor
    firm: Tensor
    kept: tuple[str, ...]

    def own(self, G: Tensor) -> Tensor:
        """(ways * words,) the squared length of what only a word has: its distance to the mean of all words.

        G  (features, features), with |x|^2 = x^T G x
        """
        alone = self.x[: len(self.words)]
        alone = alone - alone.mean(0)
        own = (alone @ G * alone).sum(-1)
        return own.clamp(min=0.01 * float(own.median())).repeat(len(CALLED))

    def joined(self, c: Tensor, a: Tensor) -> Columns:
        """With more names c, a (m, features): those by themselves, then those beside other words, as in `self`."""
        both = (
            torch.cat([x for pair in zip(old.chunk(2), new.chunk(2), strict=True) for x in pair])
            for old, new in ((self.c, c), (self.a, a))
        )
        return dataclasses.replace(self, c=next(both), a=next(both), C=self.C + c.T @ c / 2)


class Solution(NamedTuple):
    """The change of each layer's matrix; and the words that it hurts most, with the share that each loses."""

    deltas: Mapping[str, Delta]
    hurt: Mapping[str, float]


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
        return Edit(deltas, dataclasses.replace(card, hurt=dict(solution.hurt)))


def whole(weight: Tensor) -> Tensor:
    """A matrix in float64, not on its device; all of one that is spread over processes."""
    return whole_tensor(weight).detach().double().cpu()


def changed_by(deltas: Mapping[str, Delta], frozen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices `frozen` with their differences."""
    both = {layer: (W0, deltas[layer]) for layer, W0 in frozen.items()}
    return {layer: W0 + (D.dense(W0.shape) if isinstance(D, LowRank) else D).cpu() for layer, (W0, D) in both.items()}


def gram(layers: Mapping[str, Tensor], P: Tensor) -> Tensor:
    """G with |x|^2 = x^T G x: how much of x the layers put out, each as a share of what it usually does."""
    return sum((W.T @ W / (W @ P * W).sum() for W in layers.values()), torch.zeros_like(P))


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


@torch.no_grad()
def columns(
    pipe: Pipeline,
    concepts: Sequence[Concept],
    weights: Mapping[str, Tensor],
    asked: ClosedForm,
    rng: torch.Generator,
    progress: Progress,
) -> list[Columns]:
    """The Columns of each tensor that layers read.

    weights  matrices (out, features) by the names of their layers
    """
    layers, firm = list(weights), to_keep(concepts)
    stay = preserved_words(concepts, asked.neutral)
    others = other_words(pipe, asked.preserve_words, concepts, layers, rng, progress)
    listed = unlike(pipe, known_words(pipe, concepts), concepts, layers, progress)
    known = tuple(dict.fromkeys([*firm, *(listed or (*stay, *others))]))
    styles = [word.removesuffix(" style") for word in known if word.endswith(" style")]
    around = [
        *with_contexts(pipe, (), asked.context_words, concepts, rng, asked.contexts),
        *(CALLED[1].replace("*", style) for style in styles if asked.context_words),
    ]
    prompts = preservation_prompts((*stay, *others), len(firm), asked.templates, [*asked.templates, *around], rng)
    P = second_moments(pipe, prompts, layers, progress=progress)

    read: dict[tuple[str, ...], list[tuple[Tensor, Tensor, Tensor]]] = {}  # of each tensor, by the layers that read it
    for ways in (asked.templates, around or asked.templates):
        for heard in read_names(pipe, concepts, weights, ways, rng, progress):
            for together, (c, a) in heard.items():
                read.setdefault(together, []).append((c.mean(0).cpu(), a.mean(0).cpu(), (c.T @ c / len(c) / 2).cpu()))

    extra = random_words(pipe, 2 * len(known), concepts, rng) or ["thing"]
    company = dict(zip(CALLED, ([""], styles or extra, extra), strict=True))
    called = [
        way.replace("*", company[way][k % len(company[way])]).format(word)
        for way in CALLED
        for k, word in enumerate(known)
    ]
    alone = means(pipe, called, [together[0] for together in read], progress=progress)
    return [
        Columns(
            layers=together,
            c=torch.stack([c for c, _, _ in found]),
            a=torch.stack([a for _, a, _ in found]),
            C=torch.stack([C for _, _, C in found]).sum(0),
            P=P[together[0]].double().cpu(),
            words=known,
            x=alone[together[0]].double().cpu(),
            firm=torch.tensor([word in firm for word in known] * len(CALLED)),
            kept=(*stay, *others),
        )
        for together, found in read.items()
    ]


def read_names(
    pipe: Pipeline,
    concepts: Sequence[Concept],
    weights: Mapping[str, Tensor],
    ways: Sequence[str],
    rng: torch.Generator,
    progress: Progress = no_progress,
) -> Iterator[dict[tuple[str, ...], tuple[Tensor, Tensor]]]:
    """For each name, by the layers that read one tensor: what they read in the name and in what takes its place.

    That is two (n, features), float64: the tokens that the name changes in prompts that ask for it in `ways`.
    """
    pairs = [(word, concept.anchor) for concept in concepts for word in concept.names]
    progress("names", 0, len(pairs))
    for done, (word, anchor) in enumerate(pairs):
        others = [anchor] * len(ways) if anchor else stand_ins(pipe, word, len(ways), concepts, rng)
        prompts = [way.format(word) for way in ways] + [way.format(o) for way, o in zip(ways, others, strict=True)]
        heard = inputs(pipe, prompts, list(weights))
        groups: dict[int, list[str]] = {}
        for layer, x in heard.items():
            groups.setdefault(id(x), []).append(layer)
        other, found = anchor or "any other word", {}
        for together in map(tuple, groups.values()):
            W, x = whole_tensor(weights[together[0]]), heard[together[0]]
            found[together] = changed(word, other, W, *x.chunk(2))
        yield found
        progress("names", done + 1, len(pairs))


def changed(word: str, other: str, W: Tensor, c: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that W reads differently in two sets of inputs (prompts, tokens, features): two (n, features)."""
    y, change = (nn.functional.linear(x.float(), W.detach().to(x).float()) for x in (c, c - a))
    differs = change.norm(dim=-1) > 1e-3 * y.square().sum(-1).mean().sqrt()
    if not differs.any():
        raise InputError(f"the model reads {word!r} and {other!r} as the same: nothing to erase")
    return c[differs].double(), a[differs].double()
