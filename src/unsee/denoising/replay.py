"""Replay: repeat a recorded call of the denoiser, or its conditioning at the x and t of another call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, Step, latent_and_time, predicted
from unsee.denoising.rows import single_rows, stack
from unsee.errors import InputError, Unsupported
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline, call_options, kind


def replay(denoiser: nn.Module, call: Call, like: Call | None = None) -> Tensor:
    """The denoiser's answer now to a recorded call, (B, ...); at the latent and time of the call `like` if given."""
    arguments = at_point_of(denoiser, call, like).arguments if like else call.arguments
    return predicted(denoiser(**arguments), arguments[latent_and_time(type(denoiser))[0]])


def at_point_of(denoiser: nn.Module, call: Call, like: Call) -> Call:
    """A call at the latent and time of another one."""
    there = {name: like.arguments[name] for name in latent_and_time(type(denoiser))}
    return replace(call, arguments=call.arguments | there)


@contextmanager
def checkpointed(denoiser: nn.Module, call: Call) -> Iterator[None]:
    """Within the context activations are computed again on the way back, not kept: less memory, more time.

    call  any call; the denoiser must answer it as before
    Raises InputError if it does not (Chroma in diffusers 0.42 then forgets a mask), or has no gradient checkpointing.
    """
    name = type(denoiser).__name__
    if not getattr(denoiser, "_supports_gradient_checkpointing", False):
        raise InputError(f"{name} has no gradient checkpointing")
    before = bool(denoiser.is_gradient_checkpointing)
    with torch.no_grad():
        expected = replay(denoiser, call)
    denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    try:
        with torch.enable_grad():
            error = (replay(denoiser, call).detach() - expected).norm() / expected.norm()
        if error > torch.finfo(expected.dtype).eps ** 0.5:
            raise InputError(
                f"{name} predicts something else with gradient checkpointing ({100 * error:.1f} % away), a fault of "
                "its own: turn gradient checkpointing off"
            )
        yield
    finally:
        if not before:
            denoiser.disable_gradient_checkpointing()  # type: ignore[operator]


def rerun(denoiser: nn.Module, step: Step) -> Step:
    """A recorded step as the denoiser answers it now."""
    return Step(*(replace(call, output=replay(denoiser, call)) for call in (step.concept, step.null)))


_CHECKED: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""Denoisers that have passed `checked`, each with the call options and the dtype with which it did."""


def checked(pipe: Pipeline, step: Sequence[Call]) -> None:
    """Repeat the last row of both calls of a recorded step, together in one call; once for each denoiser.

    Raises InputError unless the denoiser answers as it did: then rows are not what they are taken for, or it answers by
    more than its arguments, and nothing could be learned from what is recorded.
    """
    _, net = denoiser(pipe)
    if _CHECKED.get(net) == (way := f"{call_options(pipe)} {step[0].output.dtype}"):
        return
    rows = stack([single_rows(call)[-1] for call in step])
    with torch.no_grad():
        error = float((replay(net, rows) - rows.output).float().norm() / rows.output.float().norm())
    if not error < tolerance(rows.output):
        raise Unsupported(
            f"{kind(pipe).__name__} is not supported: its {type(net).__name__} predicts something else when a call "
            f"is repeated ({100 * error:.2g} % away)"
        )
    _CHECKED[net] = way


def tolerance(output: Tensor) -> float:
    """How far two outputs that should be equal may be apart, relative to their norm: the root of the precision.

    Accelerators round float32 to a mantissa of 10 bits (TF32) by default.
    """
    eps = torch.finfo(output.dtype).eps
    return math.sqrt(eps if output.device.type == "cpu" else max(eps, 2.0**-10))
