"""Which other words an edit takes along in pictures: predictions tell that a castle is like a church, texts do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.models.denoisers import denoiser
from unsee.models.memory import Portions, spread
from unsee.models.model import Pipeline
from unsee.models.weights import temporary_values
from unsee.progress import Progress, no_progress


@torch.no_grad()
def taken_along(
    pipe: Pipeline,
    names: Sequence[str],
    words: Sequence[str],
    values: Mapping[str, Tensor],
    *,
    noises: int = 2,
    batch: int = 64,
    progress: Progress = no_progress,
) -> Tensor:
    """How far the prediction for each word goes the way that a name's goes, as a share of what is its own: (words,).

        max_n <e'(w) - e(w), d_n> / |e(w) - mean e|,   d_n = e'(n) - e(n), of unit length

    e is the denoiser's prediction at the sampler's first step, and e' the one with `values`, which parameters of the
    denoiser hold for a while, by their names. The result is the mean over noises, each of which all words share.
    It takes 2 (names + words) denoiser passes for each noise.
    """
    prompts, net = [f"a {word}" for word in (*names, *words)], denoiser(pipe)[1]
    parameters, shares = dict(net.named_parameters()), []
    portions = Portions(batch, "prompts", "ask for fewer at once with a smaller batch", fixed=spread(pipe))
    for noise in range(noises):

        def ask(rows: slice, noise: int = noise) -> tuple[Tensor, Tensor]:
            call = conditions(pipe, prompts[rows], seeds=[noise] * len(prompts[rows]))
            with temporary_values(parameters, values):
                moved = replay(net, call) - call.output
            progress("look", noise * len(prompts) + rows.stop, noises * len(prompts))
            return call.output.flatten(1).double().cpu(), moved.flatten(1).double().cpu()

        e, moved = (torch.cat(parts) for parts in zip(*portions.each(ask, len(prompts)), strict=True))
        d, e = torch.nn.functional.normalize(moved[: len(names)], dim=-1), e[len(names) :]
        own = (e - e.mean(0)).norm(dim=-1).clamp(min=1e-12)
        shares.append((moved[len(names) :] @ d.T).amax(-1) / own)
    return torch.stack(shares).mean(0)
