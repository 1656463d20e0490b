r"""Balance: a closed form that takes every name away whole, and no known word beyond a limit. Solved, not trained.

UCE (uce.py; Gandikota et al., WACV 2024, arXiv:2308.14761) weighs what must go against what must stay, with two numbers
that a user sets. With many names no pair of numbers suits them all. Here they are found. As in UCE, W = W0 (1 + B) with

    B  =  argmin  sum_i f_i |B c_i - (a_i - c_i)|^2  +  s ( E|B p|^2 + sum_w l_w |B x_w|^2 )

c_i is what the layers read in a name, a_i what they read with another word in its place, p tokens of what must stay,
x_w what they read in a word w that the model is known to draw. Where names are few beside the rest,

    B  =  sum_i f_i (a_i - c_i) c_i^T S^-1,      S  =  sum_i E[c c^T] + s ( E[p p^T] + sum_w l_w x_w x_w^T )

and the weights f_i >= 0 of names and l_w >= 0 of words are those for which

    every name moves all the way          <B c_i, a_i - c_i> = |a_i - c_i|^2
    no known word loses too much          |B x_w|  <=  limit |x_w - mean x|,      l_w = 0 where it loses less

l_w are the multipliers of these constraints, found by dual ascent (Arrow, Hurwicz, Uzawa, 1958). They are high for the
words that an edit would hurt most. To preserve those is the idea of Bui et al., "Erasing undesirable concepts in
diffusion models with adversarial preservation", NeurIPS 2024, arXiv:2410.15618, who search for them while they train.
Lengths are those of what the layers put out, so that the basis and scale of the text features do not matter. All layers
that read one tensor have one B: a hundred names are solved for once.

Each name has two columns c_i: as it is asked for (`templates`), and beside other words (prompts.CONTEXTS), where it is
a smaller part of each token. Values change and keys do not, where the prompt enters through both: on the miniature,
changing the keys too takes twice as many others along (docs/LOG.md). So do OCE and SPEED (oce.py, speed.py).

A known word is one of `keep`, or of the list on the model's card; where the card lists none, of `neutral` or a random
word of the tokenizer. Half of `limit` holds for `keep`.
Which numbers were tried on the miniature: docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of
from unsee.edits.edit import Edit, LowRank
from unsee.errors import one_line
from unsee.fit.resume import ResumeFile
from unsee.methods.columns import Columns, columns, named_only, solvable, values
from unsee.methods.presets import Count, NotNegative, Number, Positive, Templates
from unsee.methods.prompts import NEUTRAL, TEMPLATES
from unsee.methods.targets import card_of
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.denoisers import denoiser
from unsee.models.distributed import full
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress

STEP = 0.001
"""Of dual ascent, in the unit in which E[p p^T] is weighed."""
RELAX = 1.03
"""By how much `limit` grows a round, after a quarter of them, while it does not hold for 98 % of the words."""
BESIDE = 1.5
"""How many times `limit` a word may lose where it stands beside others, of which it loses a part too."""


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Balance:
    """Erase one or a hundred concepts by one solution; the formula is at the top of its file.

    strength     how far each name moves: 1 is all the way to what takes its place. Where not all of it can be had, it
                 falls to 1 (beside other words 0.9), while `limit` grows by the same factor
    limit        the share of what layers read in a known word that it may lose
    keep_weight  s: how strictly all other text stays
    rounds       of dual ascent
    context_words   random context words for each prompt of prompts.CONTEXTS
    preserve_words  random words of the tokenizer in p, but for other names of a concept
    templates    prompts; {} is the concept's name, or a word that must stay
    neutral      words in p

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.Balance()(pipe, ["church", "castle", "fox"])
        >>> path = edit.save("three.safetensors")
    """

    strength: Positive = 1.4
    limit: Positive = 0.2
    keep_weight: NotNegative = 1000.0
    rounds: Count = 60
    context_words: Number = 8
    preserve_words: Number = 384
    templates: Templates = TEMPLATES
    neutral: tuple[str, ...] = NEUTRAL

    presets: ClassVar[dict[str, dict[str, Any]]] = {}

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
        concepts = named_only("balance", concepts_of(concepts))
        key, net = denoiser(pipe)
        rng = torch.Generator().manual_seed(seed)
        weights = {name.removesuffix(".weight"): weight for name, weight in self.weights(net).items()}
        found = columns(pipe, concepts, weights, self, rng, progress)
        card = card_of("balance", self, concepts, pipe, seed, found[0].kept)
        deltas: dict[str, LowRank] = {}
        hurt: dict[str, float] = {}
        for one in found:
            layers = {layer: full(weights[layer]).detach().double().cpu() for layer in one.layers}
            shift, read, losses = solve(one, gram(layers, one.P), self)
            hurt |= {w: max(loss, hurt.get(w, 0.0)) for w, loss in zip(one.words, losses.tolist())}
            deltas |= {layer: LowRank((W0 @ shift).float(), read.float().contiguous()) for layer, W0 in layers.items()}
        worst = sorted(hurt, key=lambda word: -hurt[word])[:16]
        card = replace(card, hurt={word: round(hurt[word], 3) for word in worst})
        return Edit({f"{key}.{layer}.weight": deltas[layer] for layer in weights}, card)


def gram(layers: dict[str, Tensor], P: Tensor) -> Tensor:
    """G with |x|^2 = x^T G x: how much of x the layers put out, each as a share of what it usually does."""
    return sum((W.T @ W / (W @ P * W).sum() for W in layers.values()), torch.zeros_like(P))


def solve(it: Columns, G: Tensor, how: Balance) -> tuple[Tensor, Tensor, Tensor]:
    """B as shift (features, n) @ read (n, features), and the share that each word loses (words,).

    it  what the layers read
    G   (features, features), the measure of lengths
    """

    delta = it.a - it.c
    inner = delta @ G @ delta.T  # B x is a sum of these differences, so lengths need no more than their products
    own = it.own(lambda x: (x @ G * x).sum(-1))
    f, multiplier = torch.ones(len(it.c)).double(), torch.zeros(len(it.x)).double()
    limit = how.limit * torch.where(it.firm, 0.5, 1.0).double()
    limit[len(it.words) :] *= BESIDE
    goal = torch.full((len(it.c),), how.strength).double()
    least = torch.tensor([1.0, 0.9]).double().repeat_interleave(len(it.c) // 2).clamp(max=how.strength)
    for k in range(how.rounds):
        hurt = it.x[multiplier > 0]
        S = it.C + how.keep_weight * (it.P + hurt.T * multiplier[multiplier > 0] @ hurt)
        read = torch.cholesky_solve(it.c.T, torch.linalg.cholesky(S + it.ridge(S))).T
        along = ((it.c @ read.T * f) * inner).sum(-1) / inner.diagonal()
        f = f * (goal / along.clamp(min=0.1)).clamp(0.5, 2.0)
        moved = it.x @ read.T * f
        lost = ((moved @ inner * moved).sum(-1).clamp(min=0) / own).sqrt()
        if k > how.rounds / 4 and (lost > 1.1 * limit).double().mean() > 0.02:
            limit, goal = limit * RELAX, torch.maximum(goal / RELAX, least)
        multiplier = (multiplier + STEP * ((lost / limit) ** 2 - 1)).clamp(min=0)
    return (f[:, None] * delta).T, read, lost
