"""A rehearsal: a model is timed, and draws with a denoiser that answers zeros and computes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from statistics import median_low
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unsee.denoising.calls import bind_arguments, latent_and_time, stacked
from unsee.denoising.guidance import for_pictures
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.denoising.rows import stack
from unsee.evaluate.context import Variant
from unsee.evaluate.render import Sampling, sliced
from unsee.evaluate.run import base
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.memory import Portions
from unsee.models.model import Model
from unsee.models.sampling import draw

SHORT = 0.25
"""The timed call gets more rows until it takes this many seconds: many rows at once take less time each."""
OFTEN, FEW = 3, 2.0
"""A call of less than FEW seconds is timed so often, and the middle time counts: other work may hold up one call."""


class Rehearsal:
    """A model that is timed once: what a pass and a picture of it take.

    batch  rows of a call at most; a slow model gets fewer
    """

    def __init__(self, model: Model, sampling: Sampling, batch: int):
        self.model, self.sampling, self.rows = model, sampling, 1
        found: list[Any] = []
        nets = list(denoisers(model).values())
        handles = [net.register_forward_hook(lambda _, args, result: found.append(result)) for net in nets]
        try:
            row = conditions(model, ["a picture"])
        finally:
            for handle in handles:
                handle.remove()
        self._result, net = found[0], denoiser(model)[1]

        def timed(rows: int) -> float:
            many, taken = stack([row] * rows), list[float]()
            with torch.no_grad():
                replay(net, many)
                _wait()
                while not taken or (len(taken) < OFTEN and taken[-1] < FEW):
                    start = time.perf_counter()
                    replay(net, many)
                    _wait()
                    taken.append(time.perf_counter() - start)
            return median_low(taken) / rows

        portions = Portions(batch)
        self.one_pass = portions.whole(timed, self.rows)
        while self.one_pass * self.rows < SHORT and 2 * self.rows <= portions.size:
            self.rows *= 2
            self.one_pass = portions.whole(timed, self.rows)

    def picture(self, variant: Variant, guidance: float | None = None) -> tuple[int, float, Image.Image]:
        """Passes of a picture of a variant, its seconds without them, and what a denoiser that answers zeros draws."""
        scale = self.sampling.guidance_scale if guidance is None else guidance
        options, n = for_pictures(self.model, scale), self.rows
        with variant.applied(self.model), silent(self.model, self._result) as answered, sliced(self.model):
            start = time.perf_counter()
            drawn = draw(self.model, ["a picture"] * n, list(range(n)), self.sampling.steps, **options)
            _wait()
        return math.ceil(answered[0] / n), (time.perf_counter() - start) / n, drawn.images[0]

    @cached_property
    def plain(self) -> tuple[int, float, Image.Image]:
        """The same for the base model."""
        return self.picture(base(()))


@contextmanager
def silent(model: Model, like: Any) -> Iterator[list[int]]:
    """Within the context denoisers compute nothing: they answer zeros, and count their rows in what is yielded.

    like  what a denoiser returned for some rows, for the type and the shape of a row
    """
    count = [0]
    with ExitStack() as stack:
        for net in denoisers(model).values():

            def forward(*args: Any, net: nn.Module = net, **kwargs: Any) -> Any:
                x = bind_arguments(net, args, kwargs)[latent_and_time(type(net))[0]]
                count[0] += len(stacked(x))
                return zeros(like, len(stacked(x)))

            own = net.__dict__.get("forward")  # what offloading has put there
            net.forward = forward
            stack.callback(_put_back, net, own)
        yield count


def _put_back(net: nn.Module, own: Any) -> None:
    if own is None:
        del net.forward
    else:
        net.forward = own


def zeros(like: Any, rows: int) -> Any:
    """What a denoiser returned, with so many rows of zeros in its place."""
    if isinstance(like, Tensor):
        return like.new_zeros(rows, *like.shape[1:])
    if isinstance(like, list):
        return [torch.zeros_like(like[0])] * rows
    if isinstance(like, tuple):
        return (zeros(like[0], rows), *like[1:])
    return replace(like, sample=zeros(like.sample, rows))


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
