"""Greedy coordinate search: one token at a time, the candidate that brings the text nearest to the concept's name.

    min_tokens 1 - cos(E(tokens), E(name))

the objective of MMA (Yang et al., CVPR 2024) with the search of GCG (Zou et al., arXiv:2307.15043): candidates are the
tokens towards which the gradient falls most. Tokens of the name itself are not allowed, and the prompts are our own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.ring_a_bell import features, numbers
from unsee.denoising.conditioned import text_of
from unsee.denoising.reader import Reader, reader
from unsee.models.text import tokenizer

K, CANDIDATES = 4, 48
ROUNDS = (4, 12)
"""Rounds over all places, with a small budget and with a full one."""


def greedy(text: Reader, target: Tensor, rounds: int, banned: Tensor, rng: torch.Generator) -> Tensor:
    """Tokens (K,) whose features have the greatest cosine with target (numbers,)."""
    allowed = text.allowed.clone()
    allowed[banned] = False
    some = allowed.nonzero()[:, 0]
    now = some[torch.randint(len(some), (K,), generator=rng)]
    for step in range(rounds * K):
        vectors = text.table[now].float()[None].clone().requires_grad_(True)
        with torch.enable_grad():
            said = numbers(text.vectors(vectors))
            (grad,) = torch.autograd.grad(-cosine_similarity(said, target[None]).sum(), vectors)
        place = step % K
        score = (text.table.float() @ grad[0, place]).masked_fill(~allowed, torch.inf)
        candidates = now.repeat(CANDIDATES + 1, 1)
        candidates[1:, place] = score.topk(CANDIDATES, largest=False).indices
        with torch.no_grad():
            now = candidates[cosine_similarity(features(text, candidates), target[None]).argmax()]
    return now


def search(context: AttackContext) -> Iterator[Found]:
    text, rng = reader(context.pipe, "{}", K), torch.Generator().manual_seed(context.seed)
    words = (context.word, *(one for some in context.names.values() for one in some))
    ids = [n for word in words for n in tokenizer(context.pipe)(word, add_special_tokens=False).input_ids]
    target = numbers(text_of(context.pipe, context.prompt))[0]
    context.start()
    tokens = greedy(text, target, ROUNDS[context.thorough], torch.tensor(ids), rng)
    prompt = text.words(tokens)
    yield Found(f"{K} tokens", (prompt,), repr(prompt))


ATTACK = Attack(
    "greedy",
    "discrete text",
    frozenset({"name", "text encoder"}),
    "Greedy coordinate search for tokens that the text encoder takes for the name (the objective of MMA).",
    search,
)
