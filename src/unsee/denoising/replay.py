"""Asking the denoiser again: a recorded call, or its conditioning at the x and t of another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, Step, point, predicted
from unsee.errors import InputError


def replay(denoiser: nn.Module, call: Call, like: Call | None = None) -> Tensor:
    """The denoiser's answer now to a recorded call, (B, ...); at the latent and time of the call `like` if given."""
    arguments = placed(denoiser, call, like).arguments if like else call.arguments
    return predicted(denoiser(**arguments), arguments[point(type(denoiser))[0]])


def placed(denoiser: nn.Module, call: Call, like: Call) -> Call:
    """A call at the latent and time of another one."""
    there = {name: like.arguments[name] for name in point(type(denoiser))}
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
                f"{name} answers otherwise with gradient checkpointing (by {100 * error:.1f} %), which is a fault of "
                "its own: do without"
            )
        yield
    finally:
        if not before:
            denoiser.disable_gradient_checkpointing()  # type: ignore[operator]


def again(denoiser: nn.Module, step: Step) -> Step:
    """A recorded step as the denoiser answers it now."""
    return Step(*(replace(call, output=replay(denoiser, call)) for call in (step.concept, step.null)))
