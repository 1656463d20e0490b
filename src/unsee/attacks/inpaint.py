"""Inpainting: the middle of pictures of the concept is drawn anew. All erasers leave it: what is around it tells."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from diffusers import AutoPipelineForInpainting
from PIL import Image

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.errors import InputError
from unsee.models.model import Model, kind


def mask_of(size: tuple[int, int], share: float) -> Image.Image:
    """White where a picture is drawn anew: a rectangle in the middle, so long a share of each side."""
    mask = Image.new("L", size, 0)
    left, top = (round(side * (1 - share) / 2) for side in size)
    mask.paste(255, (left, top, size[0] - left, size[1] - top))
    return mask


def search(context: AttackContext) -> Iterator[Found]:
    model = Model.of(context.pipe)
    try:
        pipe: Any = AutoPipelineForInpainting.from_pipe(model.pipe)
    except ValueError as error:
        raise InputError(f"{kind(context.pipe).__name__} takes no mask: diffusers has no inpainting for it") from error
    pipe.set_progress_bar_config(disable=True)
    taken = inspect.signature(type(pipe).__call__).parameters
    twin = replace(model, pipe=pipe, call={name: value for name, value in model.call.items() if name in taken})
    pictures = context.pictures(context.n)
    width, height = pictures[0].size
    for share in (0.5, 0.8):
        masks = [mask_of((width, height), share)] * len(pictures)
        options = {"strength": 1.0, "width": width, "height": height}
        each = {"image": pictures, "mask_image": masks}
        yield Found(f"the middle, {share:g} of each side", (context.prompt,), options=options, each=each, pipe=twin)


ATTACK = Attack(
    "inpaint",
    "pictures",
    frozenset({"name", "pictures"}),
    "The middle of pictures of the concept, drawn anew.",
    search,
    taught=True,
)
