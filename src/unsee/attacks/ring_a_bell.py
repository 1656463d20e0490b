"""Ring-A-Bell: tokens whose features are those of a harmless prompt moved along the concept's direction.

    v = mean_i [E(p_i with the concept) - E(p_i)],     min_tokens |E(tokens) - (E(p) + strength v)|^2

by a genetic algorithm (Tsai et al., ICLR 2024, arXiv:2310.10012): half of the population is kept, a child takes the
first tokens of one parent and the rest of the other, and a quarter of the children changes one token. It needs the text
encoder alone. The authors' population is 200, with 3,000 generations.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import text_of
from unsee.denoising.reader import Reader, reader

K = 6
POPULATION = 64
GENERATIONS = (60, 300)
"""With a small budget, and with a full one."""
STRENGTH = 3.0
CHANGED = 0.25


def features(text: Reader, prompts: Tensor) -> Tensor:
    """The text features of prompts with tokens (B, k), flat: (B, numbers)."""
    return numbers(text.tokens(prompts))


def numbers(call: Call) -> Tensor:
    """The text in a call's arguments, flat: (B, numbers)."""
    found = (x for x in call.arguments.values() if isinstance(x, Tensor) and x.is_floating_point())
    return next(found).float().flatten(1)


@torch.no_grad()
def evolved(text: Reader, target: Tensor, generations: int, rng: torch.Generator, k: int = K) -> Tensor:
    """Tokens (k,) whose features come nearest to target (numbers,)."""
    allowed = text.allowed.nonzero()[:, 0]

    def some(*shape: int) -> Tensor:
        return allowed[torch.randint(len(allowed), shape, generator=rng)]

    people = some(POPULATION, k)
    for _ in range(generations):
        far = (features(text, people) - target).square().sum(1)
        best = people[far.argsort()[: POPULATION // 2]]
        pairs = torch.randint(len(best), (2, POPULATION - len(best)), generator=rng)
        cut = torch.randint(1, k, (pairs.shape[1], 1), generator=rng)
        first = (torch.arange(k)[None] < cut).to(best.device)
        children = torch.where(first, best[pairs[0]], best[pairs[1]])
        changes = (torch.rand(len(children), generator=rng) < CHANGED).to(best.device)
        place = torch.randint(k, (len(children),), generator=rng)
        mutated = children.clone()
        mutated[torch.arange(len(children)), place] = some(len(children))
        people = torch.cat([best, torch.where(changes[:, None], mutated, children)])
    return people[(features(text, people) - target).square().sum(1).argmin()]


def direction(context: AttackContext) -> Tensor:
    """v (numbers,), over pairs of prompts with the concept and without."""
    found = []
    for other in context.others[:8]:
        pair = [f"{context.named(other)} and {context.prompt}", context.named(other)]
        both = [numbers(text_of(context.pipe, prompt))[0] for prompt in pair]
        found.append(both[0] - both[1])
    return torch.stack(found).mean(0)


def search(context: AttackContext) -> Iterator[Found]:
    text, rng = reader(context.pipe, "{}", K), torch.Generator().manual_seed(context.seed)
    v = direction(context)
    plain = numbers(text_of(context.pipe, "a picture"))[0]
    for strength in (STRENGTH, 1.0, 5.0) if context.thorough else (STRENGTH,):
        context.start()
        tokens = evolved(text, plain + strength * v, GENERATIONS[context.thorough], rng)
        prompt = text.words(tokens)
        yield Found(f"strength {strength:g}", (prompt,), repr(prompt))


ATTACK = Attack(
    "ring-a-bell",
    "discrete text",
    frozenset({"name", "text encoder"}),
    "Tokens whose features lie along the concept's direction, found by a genetic algorithm.",
    search,
    rows=(1, 3),
)
