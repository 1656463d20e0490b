r"""Balance: a closed form that moves every name whole, and damages no known word beyond a limit. Solved, not trained.

UCE (uce.py; Gandikota et al., WACV 2024, arXiv:2308.14761) weighs what must go against what must stay, with two numbers
that a user sets. With many names no pair of numbers suits all, so here they are found. As in UCE, W = W0 (1 + B) with

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

Each name has two columns c_i: as it is asked for (`templates`), and beside other words (`contexts`), where it is
a smaller part of each token. Values change and keys do not, where the prompt enters through both: on the miniature,
changing the keys too takes twice as many others along (docs/LOG.md). So do OCE and SPEED (oce.py, speed.py).

What looks like a name need not be near it in text: on the miniature the castle is not among the six texts nearest to
the church. So the denoiser's predictions are compared too (alike.py). Where the prediction for a word goes the way that
a name's goes, by more than `along` of what is its own, that word's limit shrinks in proportion, and all is solved once
more; names then move as far as they did the first time.

A known word is one of `keep`, or of the list on the model's card; where the card lists none, of `neutral` or a random
word of the tokenizer. Half of `limit` holds for `keep`.
Which numbers were tried on the miniature: docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from unsee.concepts import Concept, to_keep
from unsee.edits.edit import LowRank
from unsee.errors import one_line
from unsee.fit.optimizers import root
from unsee.methods.alike import taken_along
from unsee.methods.closed_form import ClosedForm, Solution, changed_by, whole
from unsee.methods.columns import Columns, gram
from unsee.methods.presets import STYLED, Count, NotNegative, Number, Positive
from unsee.methods.prompts import known_words
from unsee.models.model import Pipeline
from unsee.progress import Progress

STEP = 0.001
"""Step of dual ascent, in the unit in which E[p p^T] is weighed."""
RELAX = 1.03
"""After a quarter of the rounds, `limit` grows by this factor a round while it does not hold for 98 % of the words."""
BESIDE = 1.5
"""How many times `limit` a word may lose beside other words, since it also loses a part of theirs."""
LIKE = 0.25
"""The largest part of all words whose limits shrink. If all shrink, none can hold, and all grow (docs/LOG.md)."""
LEAST = 0.2
"""A word that looks like a name keeps at least this part of `limit`."""


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Balance(ClosedForm):
    """Erase one or a hundred concepts in closed form; the formula is at the top of its file.

    strength     how far each name moves: 1 is all the way to what takes its place. Where `limit` does not allow it,
                 strength falls to 1 (0.9 beside other words), while `limit` grows by the same factor
    limit        the largest share that a known word may lose of what layers read in it
    keep_weight  s: how strictly all other text stays
    rounds       rounds of dual ascent
    looks        noises at which predictions are compared, each for two denoiser passes a known word; 0: none
    along        how far the prediction for a known word may go the way that a name's goes: a share of what is its own

    The other settings are those of all closed forms, `ClosedForm`. Where the model's card lists no words, the
    words that must stay are the known words.

    Calling it with a pipeline and one or more concepts returns an Edit and leaves the pipeline as it was.
    Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.Balance()(pipe, ["church", "castle", "fox"])
        >>> path = edit.save("three.safetensors")
    """

    strength: Positive = 1.4
    limit: Positive = 0.2
    keep_weight: NotNegative = 1000.0
    rounds: Count = 60
    looks: Number = 1
    along: Positive = 0.05

    name: ClassVar[str] = "balance"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # A style is in all tokens that follow: at the strength of an object its subjects go with it (docs/LOG.md).
        # Its name by itself draws no picture that others could be compared with.
        # Tuned on the miniature: strength 1, 1.1, 1.15, 1.2, 1.4.
        "style": {
            "strength": 1.2,
            "looks": 0,
            "templates": STYLED,
            "contexts": ("a * in {} style", "* in {} style", "* by {}", "a * in the style of {}"),
        }
    }

    def compared(self, pipe: Pipeline, concepts: Sequence[Concept]) -> int:
        """About how many rows a denoiser answers before all is solved once more."""
        drawn = {*to_keep(concepts), *known_words(pipe, concepts)}
        names = sum(len(concept.names) for concept in concepts)
        return 2 * self.looks * (names + len(drawn)) if drawn else 0

    def solved(
        self,
        pipe: Pipeline,
        found: Sequence[Columns],
        weights: Mapping[str, Tensor],
        rng: torch.Generator,
        progress: Progress,
    ) -> Solution:
        """B of each tensor that layers read; the sixteen words that lose most, and those that look most like a name."""
        first, strengths = self._solved(found, weights)
        drawn = found[0].drawn
        if not (self.looks and drawn):
            return first
        values = {
            f"{layer}.weight": W.to(weights[layer].device, weights[layer].dtype)
            for layer, W in changed_by(first.deltas, {layer: whole(weights[layer]) for layer in weights}).items()
        }
        shares = taken_along(pipe, found[0].names, drawn, values, noises=self.looks, progress=progress)
        most = max(self.along, float(shares.quantile(1 - LIKE)))
        alike = {word: share for word, share in zip(drawn, shares.tolist(), strict=True) if share > most}
        if not alike:
            return first
        slack = {word: max(LEAST, most / share) for word, share in alike.items()}
        again, _ = self._solved([one.tightened(slack) for one in found], weights, strengths)
        return again._replace(alike=first_of(alike))

    def _solved(
        self, found: Sequence[Columns], weights: Mapping[str, Tensor], strengths: Sequence[Tensor] = ()
    ) -> tuple[Solution, list[Tensor]]:
        """A solution, and how far names move of each tensor; strengths: how far they must move, if that is known."""
        deltas: dict[str, LowRank] = {}
        hurt: dict[str, float] = {}
        came_to = []
        for k, one in enumerate(found):
            layers = {layer: whole(weights[layer]) for layer in one.layers}
            shift, read, losses, strength = solve(one, gram(layers, one.P), self, *strengths[k : k + 1])
            came_to.append(strength)
            hurt |= {w: max(loss, hurt.get(w, 0.0)) for w, loss in zip(one.words, losses.tolist(), strict=True)}
            deltas |= {layer: LowRank((W0 @ shift).float(), read.float().contiguous()) for layer, W0 in layers.items()}
        return Solution(deltas, first_of(hurt)), came_to


def first_of(shares: Mapping[str, float]) -> dict[str, float]:
    """The sixteen words of the largest shares."""
    return {word: round(shares[word], 3) for word in sorted(shares, key=lambda word: -shares[word])[:16]}


def solve(
    it: Columns, G: Tensor, how: Balance, strength: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B as shift (features, n) @ read (n, features), what each word loses by itself (words,), how far names move (n,).

    it        what the layers read
    G         (features, features), the measure of lengths
    strength  how far names must move (n,), whatever `limit` grows to; default: `how.strength` where `limit` allows it
    """
    delta = it.a - it.c
    inner = delta @ G @ delta.T  # B x is a sum of these differences, so lengths need no more than their products
    own = it.own(G)
    f, multiplier = torch.ones(len(it.c)).double(), torch.zeros(len(it.x)).double()
    limit = how.limit * it.slack
    limit[len(it.words) :] *= BESIDE
    goal = torch.full((len(it.c),), how.strength).double() if strength is None else strength
    least = torch.tensor([1.0, 0.9]).double().repeat_interleave(len(it.c) // 2).clamp(max=how.strength)
    for k in range(how.rounds):
        hurt = it.x[multiplier > 0]
        S = it.C + how.keep_weight * (it.P + hurt.T * multiplier[multiplier > 0] @ hurt)
        read = torch.cholesky_solve(it.c.T, root(S)).T
        along = ((it.c @ read.T * f) * inner).sum(-1) / inner.diagonal()
        f = f * (goal / along.clamp(min=0.1)).clamp(0.5, 2.0)
        moved = it.x @ read.T * f
        lost = ((moved @ inner * moved).sum(-1).clamp(min=0) / own).sqrt()
        if k > how.rounds / 4 and (lost > 1.1 * limit).double().mean() > 0.02:
            limit, goal = limit * RELAX, torch.maximum(goal / RELAX, least) if strength is None else goal
        multiplier = (multiplier + STEP * ((lost / limit) ** 2 - 1)).clamp(min=0)
    return (f[:, None] * delta).T, read, lost[: len(it.words)], goal
