"""Completion: the base draws the first steps of a run, the attacked model the rest.

(Lu et al., "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025: 5 and 10 of 50 steps.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.calls import bind_arguments, latent_and_time
from unsee.models.denoisers import denoiser


@contextmanager
def begun(context: AttackContext, steps: int) -> Iterator[None]:
    """Within the context the base draws the first steps of each run."""
    _, net = denoiser(context.pipe)
    run: Any = None
    seen: list[float] = []

    with ExitStack() as base:

        def swap(module: Any, args: Any, kwargs: Any) -> None:
            nonlocal run
            now = context.pipe.scheduler.timesteps
            if run is not now:  # every run sets its own
                run = now
                seen.clear()
                base.close()
                base.enter_context(context.base())
            time = float(bind_arguments(module, args, kwargs)[latent_and_time(type(module))[1]].flatten()[0])
            if time not in seen:
                seen.append(time)
            if len(seen) > steps:
                base.close()

        handle = net.register_forward_pre_hook(swap, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def search(context: AttackContext) -> Iterator[Found]:
    for share in (0.1, 0.2, 0.4):
        steps = max(1, round(share * context.steps))
        row = f"{steps} of {context.steps} steps"
        yield Found(row, (context.prompt,), applied=partial(begun, context, steps))


ATTACK = Attack(
    "completion",
    "pictures",
    frozenset({"name", "base"}),
    "The base draws the first steps of a run, the attacked model the rest.",
    search,
    rows=(3, 3),
)
