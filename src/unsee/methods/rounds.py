r"""Adversarial rounds: record what an attack found, and regress on it beside everything else.

    1. attack   for texts v that bring back what the base answers for the concept:
                    min_v E |e_theta(x_t, v) - e(x_t, c)|^2
    2. fit      some updates on the concept's targets at those texts

and again, a few times. An attack is a search of fit/search.py: new tokens (CCE, arXiv:2308.01508), all that a denoiser
reads of a prompt, or the closed form of denoising/mapped.py. Training on what inversion found is STEREO's first stage
(arXiv:2408.16807), on found embeddings AdvUnlearn's (arXiv:2405.15234); theirs are found in the model as it is before
each update, and thrown away. Here all that was found stays until the end.

The empty prompt is among the texts: what a model knows of the concept's pictures without any text goes too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unsee.concepts import Concept
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import text_of
from unsee.denoising.intercept import over
from unsee.denoising.mapped import mapped, matrices
from unsee.denoising.replay import replay
from unsee.errors import InputError
from unsee.fit.search import Learnable, any_of, learn, soft, tokens
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline

WAYS = ("a {}", "{}", "a picture of a {}")
"""Prompts with new tokens."""
STARTS = ("a picture", "", "a house")
"""Prompts at which a soft prompt starts."""


@dataclass(frozen=True)
class Rounds:
    """Settings of adversarial rounds.

    every     updates of the weights from one round to the next
    searches  updates of one search
    """

    every: int
    searches: int

    @torch.no_grad()
    def begin(self, pipe: Pipeline, concepts: Sequence[Concept], erase: Sequence[Call]) -> Found:
        """Before anything is changed. erase: the concept's rows of one row each; their outputs are targets."""
        _, net = denoiser(pipe)
        knows = [replace(row, output=replay(net, row)) for row in erase]
        texts = [text_of(pipe, "")]
        return Found(self, pipe, [name for one in concepts for name in one.names], knows, matrices(pipe), texts)


@dataclass
class Found:
    """What attacks found until now.

    knows   the concept's rows, with what the base answers to them
    before  the base's matrices through which the prompt enters
    texts   one row each; the first is the empty prompt
    """

    how: Rounds
    pipe: Pipeline
    names: Sequence[str]
    knows: Sequence[Call]
    before: Mapping[str, Tensor]
    texts: list[Call]

    def rows(self, rows: Sequence[Call], rng: torch.Generator) -> list[Call]:
        """Rows of the concept: a third with their own prompts, a third with no prompt, a third with found texts."""
        asked, many = list(rows), len(self.texts)
        for k in range(len(rows)):
            if k % 3:
                pick = int(torch.randint(1, many, (1,), generator=rng)) if k % 3 == 2 and many > 1 else 0
                asked[k] = replace(rows[k], arguments=over(rows[k].arguments, self.texts[pick].arguments))
        return asked

    def renew(self, update: int, rng: torch.Generator) -> None:
        """Attack the weights as they are, every `every` updates. What the pipeline cannot take is left out."""
        if update % self.how.every:
            return
        pipe, turn = self.pipe, update // self.how.every
        start, name = STARTS[turn % len(STARTS)], self.names[turn % len(self.names)]
        way, other = (WAYS[(turn + k) % len(WAYS)] for k in range(2))
        searches: list[Callable[[], Learnable]] = [
            lambda: soft(pipe, start),
            lambda: tokens(pipe, way, 1, rng),
            lambda: tokens(pipe, other, 4, rng),
        ]
        for made in searches:
            with suppress(InputError):
                text = made()
                list(learn(pipe, text, any_of(self.knows), [self.how.searches], rng))
                self.texts.append(text.fixed())
        with suppress(InputError):
            now = matrices(pipe)
            self.texts += [mapped(pipe, f"a {name}", now, self.before, damping) for damping in (1e-1, 1e-2)]
