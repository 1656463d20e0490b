"""Draw each distinct picture once, many at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from unsee.recorder import Watch, quiet


@dataclass(frozen=True)
class Shot:
    """One picture that is asked for."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: sampler steps, and guidance scale (1 is none)."""

    steps: int = 50
    guidance_scale: float = 7.5


def render(
    pipe: Any, shots: Iterable[Shot], sampling: Sampling, *, batch: int = 32, watch: Watch = quiet
) -> dict[Shot, Image]:
    """A picture for every distinct shot. Each has a generator of its own, so it does not depend on its batch."""
    todo = list(dict.fromkeys(shots))
    pictures: dict[Shot, Image] = {}
    for start in range(0, len(todo), batch):
        now = todo[start : start + batch]
        drawn = pipe(
            prompt=[shot.prompt for shot in now],
            generator=[torch.Generator().manual_seed(shot.seed) for shot in now],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
        ).images
        pictures.update(zip(now, drawn, strict=True))
        watch("render", len(pictures), len(todo))
    return pictures
