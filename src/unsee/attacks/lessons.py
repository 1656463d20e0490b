"""What attacks that learn share: rows to learn from, and the loop.

from pictures   |e_theta(x_t, v) - answer|^2, x_t and the answer being a picture with noise
from the base   |e_theta(x_t, v) - e(x_t, c)|^2, x_t being recorded steps of the base's runs for the concept c
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from unsee.attacks.context import AttackContext
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import condition
from unsee.denoising.noised import clock, encoded, noised
from unsee.denoising.record import Runs, record
from unsee.denoising.rows import single_rows
from unsee.fit import search
from unsee.fit.search import ROWS, Learnable, Rows, any_of

RUNS = 8
"""Recorded runs of the base."""
SEED = 5000
"""First seed of the base's recorded runs; no picture is drawn from it."""


def from_pictures(context: AttackContext, k: int, prompt: str = "") -> Rows:
    """Rows of k pictures of the concept, each with any noise at any time; asked with `prompt`."""
    return of_latents(context, encoded(context.pipe, context.pictures(k)), prompt)


def of_latents(context: AttackContext, z: Tensor, prompt: str) -> Rows:
    """The same for latents (k, C, H, W)."""
    text, time = condition(context.pipe, prompt), clock(context.pipe)
    total = int(context.pipe.scheduler.config.num_train_timesteps)

    def rows(rng: torch.Generator) -> Call:
        pick = torch.randint(len(z), (ROWS,), generator=rng)
        t = torch.randint(total, (ROWS,), generator=rng)
        e = torch.randn(z[pick].shape, generator=rng).to(z)
        x, answer = noised(context.pipe, z[pick], t.to(z.device), e)
        return time.at(text, x, t, answer)

    return rows


def from_base(context: AttackContext) -> Rows:
    """Rows of recorded runs of the base for the concept: what it answers there."""
    with context.base():
        steps = record(
            context.pipe,
            [context.prompt] * RUNS,
            seeds=range(SEED, SEED + RUNS),
            runs=Runs(context.steps, max(context.guidance_scale, 1.5)),
        )
    return any_of([row for step in steps for row in single_rows(step.concept)])


def looks(passes: int) -> list[int]:
    """Updates after which an attack is looked at: after a quarter of its passes, and after all of them."""
    return sorted({max(1, passes // ROWS // 4), max(1, passes // ROWS)})


def learn(
    context: AttackContext,
    parameters: Sequence[Tensor],
    text: Callable[[], Call],
    rows: Rows,
    rate: float,
    at: Sequence[int] | None = None,
) -> Iterator[int]:
    """fit.search.learn with the attack's seed and passes; yields how many updates are made, by default at `looks`."""
    yield from learned(context, Learnable("", parameters, text, rate), rows, at)


def learned(context: AttackContext, what: Learnable, rows: Rows, at: Sequence[int] | None = None) -> Iterator[int]:
    """The same of a text that can be learned."""
    rng = torch.Generator().manual_seed(context.seed)
    context.start()
    yield from search.learn(context.pipe, what, rows, at or looks(context.passes), rng)
