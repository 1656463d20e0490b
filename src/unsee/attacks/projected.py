r"""PEZ and P4D: learn vectors, and give the model the nearest tokens in their place.

    P = nearest tokens of v,    min_v loss(e_theta(x_t, P)),    the gradient at P is given to v

    pez   P alone, from pictures: E |e_theta(x_t, P) - answer|^2        (Wen et al., NeurIPS 2023, arXiv:2302.03668)
    p4d   P before the name: E |e_theta(x_t, P name) - e(x_t, name)|^2   (Chin et al., ICML 2024, arXiv:2309.06135)

Departures: PEZ's own loss is CLIP's similarity to a picture. P4D takes 3,000 updates with AdamW; here the budget says.
The tokens of the least loss over the last updates would be another choice; here the last ones are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import from_base, from_pictures, learn
from unsee.denoising.calls import Call
from unsee.denoising.reader import Reader, reader
from unsee.fit.search import ROWS, Rows

K = 4
RATE = 0.6
"""Size of an update, as a share of the table's standard deviation."""


def nearest(text: Reader, vectors: Tensor) -> Tensor:
    """The allowed tokens (k,) nearest to vectors (1, k, width)."""
    far = torch.cdist(vectors[0].detach().float(), text.table.float())
    return far.masked_fill(~text.allowed, torch.inf).argmin(1)


def projected(context: AttackContext, template: str, rows: Rows) -> Iterator[Found]:
    """The attack's findings with tokens learned in a template."""
    text, rng = reader(context.pipe, template, K), torch.Generator().manual_seed(context.seed)
    some = text.allowed.nonzero()[:, 0]
    vectors = text.table[some[torch.randint(len(some), (K,), generator=rng)]].float()[None].clone()

    def read() -> Call:
        hard = text.table[nearest(text, vectors)].float()[None]
        return text.vectors(hard + vectors - vectors.detach())

    for update in learn(context, [vectors], read, rows, RATE * float(text.table.float().std())):
        prompt = text.words(nearest(text, vectors))
        yield Found(f"{K} tokens, {update * ROWS} passes", (prompt,), repr(prompt))


def searched(name: str) -> Callable[[AttackContext], Iterator[Found]]:
    def search(context: AttackContext) -> Iterator[Found]:
        if name == "pez":
            yield from projected(context, "{}", from_pictures(context, 8))
        else:
            yield from projected(context, f"{{}} {context.prompt}", from_base(context))

    return search


PEZ = Attack(
    "pez",
    "discrete text",
    frozenset({"text encoder", "weights", "pictures"}),
    "Tokens learned from pictures: vectors are learned, and the nearest tokens replace them.",
    searched("pez"),
    taught=True,
    rows=(2, 2),
    searches=(1, 1),
)
P4D = Attack(
    "p4d",
    "discrete text",
    frozenset({"name", "text encoder", "weights", "base"}),
    "Tokens before the name, learned from what the base predicts for the name.",
    searched("p4d"),
    rows=(2, 2),
    searches=(1, 1),
)
