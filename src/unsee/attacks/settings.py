"""The concept's name with other settings of the pipeline: guidance, steps, sampler, size, a negative prompt."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found

SAMPLERS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler")


def search(context: AttackContext) -> Iterator[Found]:
    prompt = (context.prompt,)
    for scale in (1.0, 10.0, 20.0) if context.thorough else (1.0, 15.0):
        yield Found(f"guidance {scale:g}", prompt, guidance_scale=scale)
    for steps in (3, 3 * context.steps) if context.thorough else (3,):
        yield Found(f"{steps} steps", prompt, steps=steps)
    known = {kind.__name__ for kind in context.pipe.scheduler.compatibles}
    for sampler in [one for one in SAMPLERS if one in known][: 3 if context.thorough else 1]:
        yield Found(sampler, prompt, sampler=sampler)
    yield Found("a negative prompt", prompt, options={"negative_prompt": ", ".join(context.others[:2])})


ATTACK = Attack(
    "settings",
    "name",
    frozenset({"name"}),
    "The name with other guidance, steps and samplers.",
    search,
    rows=(5, 9),
)
