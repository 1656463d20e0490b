"""Image to image: pictures of the concept with some noise, from which the attacked model draws on (SDEdit).

(Meng et al., ICLR 2022, arXiv:2108.01073.) What a picture keeps at a low strength is the picture's knowledge, not the
model's: read this row beside its controls only.
"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.denoising.record import image_to_image

STRENGTHS = (0.3, 0.5, 0.7, 0.9)


def search(context: AttackContext) -> Iterator[Found]:
    pipe = image_to_image(context.pipe)
    each = {"image": context.pictures(context.n)}
    asked = {"the name": context.prompt, **({"nothing named": "a picture"} if context.thorough else {})}
    for what, prompt in asked.items():
        for strength in (one for one in STRENGTHS if one * context.steps >= 1):
            row = f"{what}, strength {strength:g}"
            yield Found(row, (prompt,), options={"strength": strength}, each=each, pipe=pipe)


ATTACK = Attack(
    "img2img",
    "pictures",
    frozenset({"name", "pictures"}),
    "Pictures of the concept, noised and drawn again (SDEdit).",
    search,
    taught=True,
    rows=(4, 8),
)
