"""What layers read in names, in what takes their place, and in what must stay: what closed forms are solved from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unsee.concepts import Concept, to_keep
from unsee.denoising.activations import inputs, means, second_moments
from unsee.errors import InputError
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
from unsee.models.distributed import whole_tensor
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress

if TYPE_CHECKING:
    from unsee.methods.closed_form import ClosedForm

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
    slack   (ways * words,) the part of a limit that each may lose: a half where a user named it to be kept, or 1
    names   what is erased
    drawn   words that the model is known to draw: those of its card, and those that a user named to be kept
    kept    every word that must stay
    """

    layers: tuple[str, ...]
    c: Tensor
    a: Tensor
    C: Tensor
    P: Tensor
    words: tuple[str, ...]
    x: Tensor
    slack: Tensor
    names: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def own(self, G: Tensor) -> Tensor:
        """(ways * words,) the squared length of what only a word has: its distance to the mean of all words.

        G  (features, features), with |x|^2 = x^T G x
        """
        alone = self.x[: len(self.words)]
        alone = alone - alone.mean(0)
        own = (alone @ G * alone).sum(-1)
        return own.clamp(min=0.01 * float(own.median())).repeat(len(CALLED))

    def tightened(self, slack: Mapping[str, float]) -> Columns:
        """With no more than this slack for some words."""
        least = torch.tensor([slack.get(word, 1.0) for word in self.words] * len(CALLED)).double()
        return dataclasses.replace(self, slack=torch.minimum(self.slack, least))

    def joined(self, c: Tensor, a: Tensor) -> Columns:
        """With more names c, a (m, features): those by themselves, then those beside other words, as in `self`."""
        both = (
            torch.cat([x for pair in zip(old.chunk(2), new.chunk(2), strict=True) for x in pair])
            for old, new in ((self.c, c), (self.a, a))
        )
        return dataclasses.replace(self, c=next(both), a=next(both), C=self.C + c.T @ c / 2)


def gram(layers: Mapping[str, Tensor], P: Tensor) -> Tensor:
    """G with |x|^2 = x^T G x: how much of x the layers put out, each as a share of what it usually does."""
    return sum((W.T @ W / (W @ P * W).sum() for W in layers.values()), torch.zeros_like(P))


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
    beside = dict(zip(CALLED, ([""], styles or extra, extra), strict=True))
    called = [
        way.replace("*", beside[way][k % len(beside[way])]).format(word)
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
            slack=torch.tensor([0.5 if word in firm else 1.0 for word in known] * len(CALLED)).double(),
            names=tuple(name for concept in concepts for name in concept.names),
            drawn=known if listed else tuple(firm),
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
