"""What closed forms solve for: what layers read in names, in what takes their place, and in what must stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from unsee.concepts import Concept, to_keep
from unsee.denoising.activations import inputs, means, second_moments
from unsee.errors import InputError
from unsee.fit.optimizers import ROUNDING
from unsee.methods.prompts import (
    known_words,
    other_words,
    preservation_prompts,
    preserved_words,
    random_words,
    stand_ins,
    unlike,
    with_contexts,
)
from unsee.models.distributed import full
from unsee.models.model import Pipeline
from unsee.models.weights import entrance, stored_whole
from unsee.progress import Progress

CALLED = ("a {}", "{} in * style", "a * and a {}")
"""How a known word is read: by itself, which comes first, and beside random words."""


class Asked(Protocol):
    """The settings that `columns` needs; see balance.Balance."""

    @property
    def context_words(self) -> int: ...
    @property
    def preserve_words(self) -> int: ...
    @property
    def templates(self) -> tuple[str, ...]: ...
    @property
    def neutral(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
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

    def own(self, squared: Callable[[Tensor], Tensor]) -> Tensor:
        """(ways * words,) how long what is a word's own is, by itself: its distance to the mean of all words, squared.

        squared  (rows, features) -> (rows,) squares of lengths
        """
        alone = self.x[: len(self.words)]
        own = squared(alone - alone.mean(0))
        return own.clamp(min=0.01 * float(own.median())).repeat(len(CALLED))

    def ridge(self, S: Tensor) -> Tensor:
        """What is added to S so that it can be inverted, a share of its diagonal."""
        return ROUNDING * S.diagonal().clamp(min=1e-30 * float(S.trace()) + 1e-300).diag()


def solvable(net: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices through which the prompt enters. Raises InputError if there is none, or where it is quantised."""
    found = entrance(net)
    if packed := next((name for name, weight in found.items() if not stored_whole(weight)), None):
        raise InputError(f"{packed} is quantised: nothing can be solved for it; use lora, or an unquantised model")
    return found


def values(weights: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Of the matrices through which the prompt enters, the values; all of them where none goes by that name."""
    found = {
        name: weight for name, weight in weights.items() if name.endswith(("_v.weight", ".v.weight", "v_proj.weight"))
    }
    return found or dict(weights)


def named_only(method: str, concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """The concepts, if all are names. Raises InputError for what a matrix that reads text has no answer to."""
    for concept in concepts:
        if concept.from_:
            raise InputError(
                f"{method} cannot take {concept.erase!r} out of {concept.from_!r}: it moves names; use hybrid or lora"
            )
        if concept.image:
            raise InputError(f"{method} uses no image: use hybrid or lora to erase {concept.image}")
    return concepts


@torch.no_grad()
def columns(
    pipe: Pipeline,
    concepts: Sequence[Concept],
    weights: Mapping[str, Tensor],
    asked: Asked,
    rng: torch.Generator,
    progress: Progress,
) -> list[Columns]:
    """The Columns of each tensor that layers read.

    weights  matrices (out, features) by the names of their layers
    """
    layers = list(weights)
    firm = to_keep(concepts)
    stay = preserved_words(concepts, asked.neutral)
    others = other_words(pipe, asked.preserve_words, concepts, layers, rng, progress)
    listed = unlike(pipe, known_words(pipe, concepts), concepts, layers, progress)
    known = tuple(dict.fromkeys([*firm, *(listed or (*stay, *others))]))
    styles = [word.removesuffix(" style") for word in known if word.endswith(" style")]
    around = [
        *with_contexts(pipe, (), asked.context_words, concepts, rng),
        *(CALLED[1].replace("*", style) for style in styles if asked.context_words),
    ]
    prompts = preservation_prompts((*stay, *others), len(firm), asked.templates, [*asked.templates, *around], rng)
    P = second_moments(pipe, prompts, layers, progress=progress)

    pairs = [(word, concept.anchor) for concept in concepts for word in concept.names]
    read: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}  # of each tensor, by the first layer that reads it
    together: dict[str, list[str]] = {}
    for ways in (asked.templates, around or asked.templates):
        progress("names", 0, len(pairs))
        for done, (word, anchor) in enumerate(pairs):
            other = [anchor] * len(ways) if anchor else stand_ins(pipe, word, len(ways), concepts, rng)
            both = [way.format(word) for way in ways] + [way.format(o) for way, o in zip(ways, other, strict=True)]
            heard = inputs(pipe, both, layers)
            groups: dict[int, list[str]] = {}
            for layer, x in heard.items():
                groups.setdefault(id(x), []).append(layer)
            together = {names[0]: names for names in groups.values()}
            for layer in together:
                c, a = changed(word, anchor or "any other word", full(weights[layer]), *heard[layer].chunk(2))
                read.setdefault(layer, []).append((c.mean(0).cpu(), a.mean(0).cpu(), (c.T @ c / len(c) / 2).cpu()))
            progress("names", done + 1, len(pairs))

    extra = random_words(pipe, 2 * len(known), concepts, rng) or ["thing"]
    company = dict(zip(CALLED, ([""], styles or extra, extra), strict=True))
    called = [
        way.replace("*", company[way][k % len(company[way])]).format(word)
        for way in CALLED
        for k, word in enumerate(known)
    ]
    alone = means(pipe, called, list(together), progress=progress)
    return [
        Columns(
            layers=tuple(names),
            c=torch.stack([c for c, _, _ in read[layer]]),
            a=torch.stack([a for _, a, _ in read[layer]]),
            C=torch.stack([C for _, _, C in read[layer]]).sum(0),
            P=P[layer].double().cpu(),
            words=known,
            x=alone[layer].double().cpu(),
            firm=torch.tensor([word in firm for word in known] * len(CALLED)),
            kept=(*stay, *others),
        )
        for layer, names in together.items()
    ]


def changed(word: str, other: str, W: Tensor, c: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Of two sets of inputs (prompts, tokens, features), the tokens that W reads otherwise: two (n, features)."""
    y, change = (nn.functional.linear(x.float(), W.detach().to(x).float()) for x in (c, c - a))
    differs = change.norm(dim=-1) > 1e-3 * y.square().sum(-1).mean().sqrt()
    if not differs.any():
        raise InputError(f"the model reads the same in {word!r} and in {other!r}: nothing to erase")
    return c[differs].double(), a[differs].double()
