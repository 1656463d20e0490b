"""What attention adds to a picture's features, by the token that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unsee.denoising.calls import stacked
from unsee.denoising.guidance import run, unguided
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline


def contributions(
    pipe: Pipeline, prompts: Sequence[str], layers: Sequence[str], *, seeds: Sequence[int], steps: int = 20
) -> dict[str, Tensor]:
    """How much modules of the denoiser add at each place: the root mean square over channels of what they return.

    layers  names of modules that return (rows, places, channels), such as attention
    Averaged over the steps of unguided runs, one for each prompt and seed: (B, places) for each layer.
    """
    _, net = denoiser(pipe)
    sums: dict[str, list[Tensor]] = {name: [] for name in layers}

    def add(name: str, output: Any) -> None:
        sums[name].append(stacked(output).float().square().mean(-1).sqrt())

    handles = [net.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: add(n, out)) for n in layers]
    try:
        run(pipe, lambda arguments, output: None, prompts, seeds, steps, unguided(pipe))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(found).mean(0) for name, found in sums.items()}
