"""Options of a pipeline's calls, and drawing with them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from pydantic_core import to_jsonable_python

from unsee.errors import InputError, Unsupported, unknown
from unsee.models.borrow import borrowed
from unsee.models.encoding import each_text_once

OURS = {"prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict"}
"""Options of a pipeline's call that this tool gives by itself."""


def calling(pipe: Any, /, **options: Any) -> Any:
    """Keep options that every call of a pipeline here shall have, such as height, width or num_frames; returns it.

    Runs are recorded and pictures drawn with them; a negative prompt is for pictures only. Raises InputError for one
    that the pipeline does not take, and for those that have an option of their own here.
    """
    taken = inspect.signature(type(pipe).__call__).parameters
    ours = OURS - ({"guidance_scale"} if "true_cfg_scale" in taken else set())
    for name in options:
        if name in ours:
            raise InputError(f"{name} is no option to keep with {type(pipe).__name__}: it is set for each call")
        if name not in taken:
            raise unknown(f"option of {type(pipe).__name__}", name, set(taken) - {"self"} - ours)
    pipe.unsee_options = {**call_options(pipe), **options}
    return pipe


def call_options(pipe: Any) -> dict[str, Any]:
    """The options that were kept with a pipeline by `calling`."""
    return dict(getattr(pipe, "unsee_options", {}))


def said_options(pipe: Any) -> dict[str, Any]:
    """The same for a card, as JSON has them; of a picture and the like only what it is."""
    said: dict[str, Any] = to_jsonable_python(call_options(pipe), fallback=lambda value: type(value).__name__)
    return said


def draw(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, **options: Any) -> Any:
    """What a pipeline returns for prompts and seeds, B of each, and other options of its call.

    A text for one prompt (negative_prompt) goes to each of them. The pipeline is `borrowed`: no checker blacks pictures
    out. Raises InputError, in one line, for what the pipeline does not take.
    """
    each = {key: [value] * len(prompts) for key, value in options.items() if "prompt" in key and isinstance(value, str)}
    try:
        with borrowed(pipe), each_text_once(pipe):
            return pipe(
                prompt=list(prompts),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                **{**options, **each},
            )
    except (InputError, FloatingPointError, MemoryError, torch.OutOfMemoryError):
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{type(pipe).__name__} cannot be run so: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:
        if should_reduce_batch_size(error):  # of a CPU and of MPS, to run out of memory is a plain RuntimeError
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Unsupported(f"{type(pipe).__name__} is not supported: it raises {said}") from error
