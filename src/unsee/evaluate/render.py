"""Draw each distinct picture once, many at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object
from PIL.Image import Image

from unsee.denoising.guidance import for_pictures
from unsee.errors import InputError
from unsee.models.distributed import processes, share
from unsee.models.memory import SMALLER, Portions, spread
from unsee.models.model import Model, Pipeline, raw
from unsee.models.sampling import draw
from unsee.progress import Progress, no_progress


@dataclass(frozen=True)
class Shot:
    """One picture that is asked for.

    size      width and height in pixels; None is the pipeline's own
    guidance  scale; None is that of the sampling
    """

    prompt: str
    seed: int
    size: tuple[int, int] | None = None
    guidance: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: sampler steps, and guidance scale g of u + g (c - u); 1 is none.

    Raises InputError for a number that is out of range.
    """

    steps: int = 50
    guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} sampler steps draw nothing: at least 1 is needed")
        if not 0 <= self.guidance_scale < math.inf:
            raise InputError(f"the guidance scale is {self.guidance_scale:g}: it must be 0 or more; 1 is no guidance")


def sampling_of(pipe: Pipeline, steps: int | None = None, guidance_scale: float | None = None) -> Sampling:
    """How to draw with a model: as given, else as its card says, else with diffusers' usual numbers."""
    card, usual = Model.of(pipe).card, Sampling()
    return Sampling(
        next(value for value in (steps, card.steps, usual.steps) if value is not None),
        next(value for value in (guidance_scale, card.guidance_scale, usual.guidance_scale) if value is not None),
    )


def render(
    pipe: Pipeline, shots: Iterable[Shot], sampling: Sampling, *, batch: int = 32, progress: Progress = no_progress
) -> dict[Shot, Image]:
    """A picture for every distinct shot. Each has a generator of its own, so it does not depend on its batch.

    Of many processes, each draws its share, and all return the whole.
    """
    todo = list(dict.fromkeys(shots))
    pictures: dict[Shot, Image] = {}
    progress("render", 0, len(todo))
    for drawn in batches(pipe, todo, sampling, batch):
        pictures.update(drawn)
        progress("render", min(len(pictures) * processes().num_processes, len(todo)), len(todo))  # others are as far
    whole = {shot: picture for part in gather_object([pictures]) for shot, picture in part.items()}
    return {shot: whole[shot] for shot in todo}


def render_pair(
    pipe: Pipeline,
    change: AbstractContextManager[None],
    shots: Sequence[Shot],
    sampling: Sampling,
    *,
    batch: int = 32,
    progress: Progress = no_progress,
) -> tuple[dict[Shot, Image], dict[Shot, Image]]:
    """Pictures of a model, and again within `change`, such as `edit.applied(pipe)`; one stage of `progress`."""

    def half(offset: int) -> Progress:
        return lambda stage, done, total: progress(stage, done + offset * total, 2 * total)

    before = render(pipe, shots, sampling, batch=batch, progress=half(0))
    with change:
        return before, render(pipe, shots, sampling, batch=batch, progress=half(1))


def batches(
    pipe: Pipeline, shots: Sequence[Shot], sampling: Sampling, batch: int
) -> Iterator[list[tuple[Shot, Image]]]:
    """Shots with their pictures, up to `batch` of one size and guidance at a time, fewer if memory does not hold them.

    Of many processes, each draws its share of every size and guidance: all ask their denoisers equally often, as they
    must where the weights are spread over them.
    """
    portions = Portions(batch, "pictures", SMALLER, fixed=spread(pipe))
    for size, guidance in dict.fromkeys((shot.size, shot.guidance) for shot in shots):
        same = share([shot for shot in shots if (shot.size, shot.guidance) == (size, guidance)])
        options = for_pictures(pipe, sampling.guidance_scale if guidance is None else guidance)
        options |= {"width": size[0], "height": size[1]} if size else {}

        def drawn(
            rows: slice, shots: Sequence[Shot] = same, options: dict[str, Any] = options
        ) -> list[tuple[Shot, Image]]:
            now = shots[rows]
            with sliced(pipe):
                found = draw(
                    pipe, [shot.prompt for shot in now], [shot.seed for shot in now], sampling.steps, **options
                )
            return list(zip(now, found.images, strict=True))

        yield from portions.each(drawn, len(same))


@contextmanager
def sliced(pipe: Pipeline) -> Iterator[None]:
    """Within the context latents are decoded one by one: all at once take more memory than drawing them."""
    vae: Any = getattr(raw(pipe), "vae", None)
    if getattr(vae, "use_slicing", True):  # on already, or none to turn on
        yield
        return
    vae.enable_slicing()
    try:
        yield
    finally:
        vae.disable_slicing()
