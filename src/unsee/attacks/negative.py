r"""The concept's name as the negative prompt: steering away twice may bring back what an edit steered away from.

The pipeline follows u + g (c - u). With the name in the place of u and nothing in that of c, this is

    u' + (1 - g) (c' - u')      with c' the name and u' nothing

which is negative guidance for the name: an edit whose target is u - eta (c - u) answers it with the concept.
"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found


def search(context: AttackContext) -> Iterator[Found]:
    negative = {"negative_prompt": context.prompt}
    for scale in (3.0, 5.0, 9.0) if context.thorough else (5.0,):
        row = f"nothing asked for, guidance {scale:g}"
        yield Found(row, ("",), guidance_scale=scale, options=negative)
    others = tuple(map(context.named, context.others[:4]))
    yield Found("another thing asked for", others, options=negative)


ATTACK = Attack(
    "negative",
    "name",
    frozenset({"name"}),
    "The concept's name as the negative prompt.",
    search,
    leak=True,
    rows=(2, 4),
)
