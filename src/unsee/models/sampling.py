"""Draw with a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size

from unsee.errors import InputError, Unsupported, unknown
from unsee.models.borrow import borrowed
from unsee.models.encoding import each_text_once
from unsee.models.model import Pipeline, kind, raw


def draw(pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], steps: int, **options: Any) -> Any:
    """What a pipeline returns for prompts and seeds, B of each, and other options of its call.

    A text for one prompt (negative_prompt) goes to each of them. The pipeline is `borrowed`: no checker blacks pictures
    out. Raises InputError, in one line, for what the pipeline does not take.
    """
    each = {key: [value] * len(prompts) for key, value in options.items() if "prompt" in key and isinstance(value, str)}
    try:
        with borrowed(pipe), each_text_once(pipe):
            return raw(pipe)(
                prompt=list(prompts),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                **{**options, **each},
            )
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind(pipe).__name__} cannot be run so: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:
        if should_reduce_batch_size(error):  # of a CPU and of MPS, to run out of memory is a plain RuntimeError
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Unsupported(f"{kind(pipe).__name__} is not supported: it raises {said}") from error


@contextmanager
def sampled_by(pipe: Pipeline, sampler: str) -> Iterator[None]:
    """Within the context a pipeline has another scheduler: "pipeline" is its own, else the name of one of diffusers.

    Raises InputError for one that cannot stand in for its own.
    """
    own, place = pipe.scheduler, raw(pipe)
    known = {kind.__name__: kind for kind in own.compatibles}
    if sampler != "pipeline" and sampler not in known:
        raise unknown("sampler", sampler, ["pipeline", *known])
    other = own if sampler in ("pipeline", type(own).__name__) else known[sampler].from_config(own.config)
    place.scheduler = other
    try:
        yield
    finally:
        place.scheduler = own
