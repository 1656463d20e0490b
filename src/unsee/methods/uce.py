r"""UCE: move what the model reads in the concept's name to what it reads without it; solved, not trained.

Gandikota, Orgad, Belinkov, Materzynska, Bau: "Unified Concept Editing in Diffusion Models", WACV 2024,
arXiv:2308.14761. For every matrix W0 through which the prompt enters (layers.entrance):

    W  =  argmin  sum_i |W c_i - W0 v_i|^2  +  s E |W p - W0 p|^2  +  lambda |W - W0|^2                 (eq. 7)
    v_i  =  a_i - eta (c_i - a_i)

c_i is the matrix's input for a name that is erased, a_i the one that takes its place, p a token of what must stay. With
D = W - W0, the columns c_i in C and v_i in V, and P = E[p p^T], the gradient is zero where

    (D C - W0 (V - C)) C^T + s D P + lambda D = 0,   so   D = [W0 (V - C)] [C^T (C C^T + s P + lambda I)^-1]

up = W0 (V - C) has a column for each name and the other bracket, down, a row for each: the product is the optimum
itself, of rank n for n names, and not an approximation of it. It is computed in float64 and kept as float32.

Departures from the paper
- Without an anchor, a is what any word would say there: random words of the tokenizer stand in for the name, of as many
  tokens, so that all other tokens keep their places. In the paper it is the empty prompt, of other tokens than c.
- eta steers beyond a, as ESD's does beyond the unconditional prediction. The paper's is 0.
- c is one column a name: the mean input over all tokens that the name changes, in all templates and beside many random
  words (settings.COMPANY), for in company a text encoder writes a name otherwise than alone; a is the mean over the
  same places of the same prompts with the other words there. The authors' code takes the last token of the
  name alone, and its first version all from there to the end of the padding. Where a text encoder looks back, the end
  mark and the padding say the name too, and a model may read it from those: on the miniature the last token of a bare
  name moves nothing (docs/LOG.md). The mean costs rank one, and fits any text encoder. For ""
  the authors' index of the last token points at the begin mark, which says nothing; here places are compared in pairs.
- What stays is a mean over all tokens of all words in the same company, not a sum over last tokens: s means the same
  for ten words and for a thousand. Half of it are those of `keep`, half random words of the tokenizer and neutral ones.
- lambda is in units of the mean square of C, so one number serves text encoders of any scale.
`UCE.presets["paper"]` takes back the words that stay and the weights, not these units, columns and words that stand in.

A name cannot be erased from another one (`from_`): a matrix sees no more than the tokens, and has no answer to steer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.card import Card, settings_of
from unsee.checkpoint import Checkpoint
from unsee.concepts import Concept, concepts_of
from unsee.edit import Edit, LowRank
from unsee.errors import InputError
from unsee.layers import entrance, stored_whole
from unsee.listening import inputs, second_moments
from unsee.methods.each import each_denoiser
from unsee.methods.settings import (
    NEUTRAL,
    TEMPLATES,
    NotNegative,
    Number,
    Positive,
    Templates,
    contexts,
    known_prompts,
    spared_words,
    stand_ins,
    staying,
)
from unsee.pipelines import denoiser, fingerprint, full, name, said_options
from unsee.recorder import Watch, quiet
from unsee.versions import versions


def solve(W0: Tensor, C: Tensor, V: Tensor, P: Tensor, s: float, ridge: float) -> LowRank:
    """The D that leads from W0 to the optimum of eq. 7, as up @ down.

    W0     (out, features)
    C, V   (features, n): inputs of n names, and what is to be read instead
    P      (features, features), the second moment of the inputs that must stay
    s      weight of P
    ridge  lambda over the mean square of C
    """
    W0, C, V, P = (tensor.detach().double().cpu() for tensor in (W0, C, V, P))
    ones = torch.eye(len(C), dtype=torch.double)
    down = torch.linalg.solve(C @ C.T + s * P + ridge * C.square().mean() * ones, C).T
    return LowRank((W0 @ (V - C)).float(), down.float().contiguous())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UCE:
    """Erase concepts with UCE; see the top of this file for the formula.

    eta          how far to steer beyond what takes the name's place
    keep_weight  s: how strictly what must stay does
    ridge        lambda: how much every other change costs
    company      random words that a name meets in each prompt of settings.COMPANY
    spared       random words of the tokenizer that must stay, but for other names of the concept; 0: none
    templates    prompts; {} is the concept's name, or a word that must stay
    neutral      words that must stay, beside the concept's own `keep`

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises pydantic's ValidationError, a ValueError, on a setting that is unknown or out of range.
    """

    eta: NotNegative = 0.7
    keep_weight: NotNegative = 0.3
    ridge: Positive = 0.03
    company: Number = 32
    spared: Number = 384
    templates: Templates = TEMPLATES
    neutral: tuple[str, ...] = NEUTRAL

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "eta": 0.0,
            "keep_weight": 1.0,
            "ridge": 0.1,
            "company": 0,
            "spared": 0,
            "templates": ("{}",),
            "neutral": (),
        },
    }

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The matrices that change: those through which the prompt enters. Raises InputError if there is none."""
        found = entrance(net)
        if packed := next((name for name, weight in found.items() if not stored_whole(weight)), None):
            raise InputError(f"{packed} is quantised: nothing can be solved for it; use lora, or an unquantised model")
        return found

    def settled(self, net: nn.Module, concepts: Sequence[Concept]) -> Self:
        """Itself: its settings leave nothing open."""
        return self

    @each_denoiser
    def __call__(
        self,
        pipe: Any,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        watch: Watch = quiet,
        checkpoint: Checkpoint | None = None,
    ) -> Edit:
        concepts = concepts_of(concepts)
        for concept in concepts:
            if concept.from_:
                raise InputError(
                    f"uce cannot erase {concept.erase!r} from {concept.from_!r}, it only moves names: use esd or lora"
                )
            if concept.image:
                raise InputError(f"uce sees no picture, it only moves names: use esd or lora to forget {concept.image}")
        key, net = denoiser(pipe)
        rng = torch.Generator().manual_seed(seed)
        weights = {name.removesuffix(".weight"): weight for name, weight in self.weights(net).items()}
        named = sum(len(concept.keep) for concept in concepts)
        kept = (*staying(concepts, self.neutral), *spared_words(pipe, self.spared, concepts, list(weights), rng))
        made = ("uce", settings_of(self), concepts, name(pipe), fingerprint(net), seed, versions(), kept)
        card = Card(*made, call=said_options(pipe))

        ways = contexts(pipe, self.templates, self.company, concepts, rng)
        known = known_prompts(kept, named, self.templates, ways, rng)
        moments = second_moments(pipe, known, list(weights)) if kept else {}
        found = optimum(
            pipe, concepts, weights, moments, ways, rng, eta=self.eta,
            keep_weight=self.keep_weight, ridge=self.ridge, watch=watch,
        )  # fmt: skip
        return Edit({f"{key}.{layer}.weight": delta for layer, delta in found.items()}, card)


def optimum(
    pipe: Any,
    concepts: Sequence[Concept],
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    ways: Sequence[str],
    rng: torch.Generator,
    *,
    eta: float = UCE.eta,
    keep_weight: float = UCE.keep_weight,
    ridge: float = UCE.ridge,
    watch: Watch = quiet,
) -> dict[str, LowRank]:
    """What leads each layer's matrix to the optimum of eq. 7.

    weights  the matrices by the names of their layers, (out, features)
    moments  of the layers' inputs for what must stay, (features, features); nothing stays where there is none
    """
    pairs = [(word, concept.anchor) for concept in concepts for word in concept.names]
    columns: dict[str, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in weights}
    for done, (word, anchor) in enumerate(pairs):
        others = [anchor] * len(ways) if anchor else stand_ins(pipe, word, len(ways), concepts, rng)
        prompts = [way.format(word) for way in ways] + [way.format(o) for way, o in zip(ways, others, strict=True)]
        for layer, x in inputs(pipe, prompts, list(weights)).items():
            columns[layer].append(_means(word, anchor or "any other word", *x.chunk(2)))
        watch("read", done + 1, len(pairs))
    deltas = {}
    for done, (layer, weight) in enumerate(weights.items()):
        C, A = (torch.stack(side, dim=1) for side in zip(*columns[layer], strict=True))
        P = moments.get(layer, torch.zeros(len(C), len(C)))
        deltas[layer] = solve(full(weight), C, A - eta * (C - A), P, keep_weight, ridge)
        watch("solve", done + 1, len(weights))
    return deltas


def _means(word: str, other: str, c: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Means of two sets of inputs (prompts, tokens, features) over the tokens in which they differ: two (features,)."""
    changed = (c - a).abs().amax(-1) > 1e-3 * c.float().square().mean().sqrt()
    if not changed.any():
        raise InputError(f"the model reads the same in {word!r} and in {other!r}: nothing to erase")
    return c[changed].double().mean(0), a[changed].double().mean(0)
