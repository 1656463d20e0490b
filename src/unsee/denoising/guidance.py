"""Run a pipeline with and without classifier-free guidance; and find out how it counts its guidance scale.

    c, u   the denoiser's predictions with the prompt and without it
    s      the guidance scale, u + s (c - u) everywhere here: at 1 there is no guidance

Most pipelines follow u + s (c - u) and ask for c alone at 1. Some count from 0: they follow c + s (c - u), and ask for
c alone at 0 or at 1. Nothing says which, so two steps of a run are watched, once for each pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, bind_arguments, call_from_forward, latent_and_time, stacked
from unsee.errors import InputError, Unsupported
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.model import Pipeline, call_options, kind, raw
from unsee.models.sampling import draw

T = TypeVar("T")
LATENTS = 8
"""A side of the smallest latents, which a U-Net halves three times."""


class Enough(BaseException):
    """Raised through a pipeline to end a run early. It is not an Exception, so no pipeline catches it."""


def run(
    pipe: Pipeline,
    listen: Callable[[dict[str, Any], Tensor], None],
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    options: dict[str, Any],
    nets: Sequence[nn.Module] | None = None,
    *,
    ask: Callable[[Call], None] | None = None,
) -> None:
    """Run a pipeline without decoding; `listen` gets each denoiser call's arguments, bound by name, and its output.

    nets  whose calls; default those of `denoiser`
    ask   gets each call before it is answered: its output is then x
    """

    def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        call = call_from_forward(module, args, kwargs, result)
        listen(call.arguments, call.output)

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        if ask:
            x = bind_arguments(module, args, kwargs)[latent_and_time(type(module))[0]]
            ask(call_from_forward(module, args, kwargs, (x,)))

    nets = nets or [denoiser(pipe)[1]]
    handles = [net.register_forward_hook(hook, with_kwargs=True) for net in nets]
    handles += [net.register_forward_pre_hook(before, with_kwargs=True) for net in nets if ask]
    # What a run is without its prompt is the pipeline's own null: another negative prompt is a matter of pictures.
    kept = {name: value for name, value in call_options(pipe).items() if not name.startswith("negative_prompt")}
    try:
        with suppress(Enough), torch.no_grad():
            draw(pipe, prompts, seeds, steps, **{**kept, "output_type": "latent", **options})
    finally:
        for handle in handles:
            handle.remove()


def at_small_size(pipe: Pipeline, ask: Callable[[dict[str, Any]], T]) -> T:
    """What a question finds out whose answer does not depend on the size of pictures.

    ask  gets the options of a run; of SD 1.4, latents of 8 x 8 take a sixtieth of the time of its own 64 x 64. Where a
         pipeline refuses pictures so small, it is asked at its own size
    """
    if small := _small(pipe):
        with suppress(InputError):
            return ask(small)
    return ask({})


def _small(pipe: Pipeline) -> dict[str, Any]:
    """The options of small pictures; {} where a pipeline takes no size, or draws smaller ones already."""
    side = LATENTS * getattr(raw(pipe), "vae_scale_factor", 0)
    if not {"height", "width"} <= set(inspect.signature(kind(pipe).__call__).parameters) or not side:
        return {}
    return {name: min(side, call_options(pipe).get(name) or side) for name in ("height", "width")}


def guided(pipe: Pipeline, scale: float) -> dict[str, Any]:
    """The options that turn a pipeline's classifier-free guidance on: u + scale (c - u), with a scale above 1.

    Raises InputError for a scale that the pipeline does not guide at.
    """
    counts = _counts(pipe)
    own = scale - counts.offset
    if scale > 1 and counts.off is not None and own <= counts.off:
        least = counts.off + counts.offset
        raise InputError(f"{kind(pipe).__name__} does not guide at a scale of {scale:g}: take a scale above {least:g}")
    return {counts.option: own} | counts.more


def unguided(pipe: Pipeline) -> dict[str, Any]:
    """The options that turn it off. Guidance that is distilled into the network stays as it is.

    Raises InputError for a pipeline that always guides.
    """
    if _true_scale(pipe) is None and _distilled(pipe):
        return {}
    if _perturbed(pipe):
        raise Unsupported(
            f"{kind(pipe).__name__} is not supported: its guidance has a third term, perturbed attention; "
            "the call option pag_scale=0 leaves that term out"
        )
    counts = _counts(pipe)
    if counts.off is None:
        raise Unsupported(
            f"{kind(pipe).__name__} is not supported: it predicts more than once for each prompt even with guidance "
            "off; its guidance cannot be turned off, or has more terms"
        )
    return {counts.option: counts.off}


def for_pictures(pipe: Pipeline, scale: float) -> dict[str, Any]:
    """The options with which pictures are drawn at a guidance scale: those that turn it on, and those kept with it.

    A pipeline that leaves true_cfg_scale off by itself, as FLUX.1 does, has its guidance distilled into the network:
    the scale is then what the network reads, and real guidance comes with the call option true_cfg_scale.
    """
    own = _true_scale(pipe)
    read = "guidance_scale" in inspect.signature(kind(pipe).__call__).parameters
    left_off = _distilled(pipe) or (own is not None and own <= 1)
    options = {"guidance_scale": scale} if read and left_off else guided(pipe, scale)
    options |= call_options(pipe)
    return {"negative_prompt": "", **options} if options.get("true_cfg_scale", 1.0) > 1 else options


def _true_scale(pipe: Pipeline) -> float | None:
    """What a pipeline takes for true_cfg_scale if nothing is said; None if it has no such option."""
    option = inspect.signature(kind(pipe).__call__).parameters.get("true_cfg_scale")
    return None if option is None else float(option.default)


def _distilled(pipe: Pipeline) -> bool:
    """Whether the guidance scale is a number that the network reads."""
    return any(getattr(getattr(net, "config", None), "guidance_embeds", False) for net in denoisers(pipe).values())


def _perturbed(pipe: Pipeline) -> bool:
    """Whether a prediction with perturbed attention is a term of a pipeline's guidance, with its call options."""
    option = inspect.signature(kind(pipe).__call__).parameters.get("pag_scale")
    return option is not None and call_options(pipe).get("pag_scale", option.default) > 0


@dataclass(frozen=True)
class _Counts:
    """How a pipeline counts its guidance scale.

    option  the name of the scale in its call
    off     the value at which there is no guidance; None if there is none
    offset  what is to be taken from s to get its own scale: 1 for c + scale (c - u), 0 for u + scale (c - u)
    more    other options that guidance of several prompts needs
    """

    option: str
    off: float | None
    offset: float
    more: dict[str, Any]


_COUNTED: WeakKeyDictionary[Any, _Counts] = WeakKeyDictionary()
"""The counts of each pipeline, as long as it lives."""


def _counts(pipe: Pipeline) -> _Counts:
    """Found out by running two steps, once for each pipeline."""
    own = raw(pipe)
    if own not in _COUNTED:
        taken = inspect.signature(kind(pipe).__call__).parameters
        option = next((name for name in ("true_cfg_scale", "guidance_scale") if name in taken), None)
        if option is None:
            raise Unsupported(f"{kind(pipe).__name__} is not supported: its call takes no guidance_scale")
        values = () if _perturbed(pipe) else (1.0, 0.0)
        off = next((value for value in values if len(_first_step(pipe, {option: value}, 1)[1]) == 1), None)
        scale, offset, more = 3.0 if off is None else off + 2, 0.0, {}
        # Some guide only if they get a negative prompt; in others that would be another null than their own.
        for options in ({}, {"negative_prompt": ""}):
            with suppress(InputError):
                x, answers = _first_step(pipe, {option: scale} | options, 2)
                if len(answers) == 4:
                    found, more = _offset(x, answers[0], answers[2], scale), options
                    ways = [{option: value} | options for value in (off, scale, scale + 1)]
                    offset = _noisy_offset(pipe, ways, scale) if found is None and off is not None else found or 0.0
                    break
        _COUNTED[own] = _Counts(option, off, offset, more)
    return _COUNTED[own]


def _first_step(pipe: Pipeline, options: dict[str, Any], n: int) -> tuple[list[Tensor], list[Tensor]]:
    """The first step of runs for n prompts: the first one's x of this step and the next, and all rows of answers."""
    return at_small_size(pipe, lambda size: _step(pipe, options | size, n))


def _step(pipe: Pipeline, options: dict[str, Any], n: int) -> tuple[list[Tensor], list[Tensor]]:
    """The same, with options that say how large pictures are."""
    asked: list[tuple[Tensor, Tensor]] = []
    answers: list[Tensor] = []

    def ask(call: Call) -> None:
        latent, time = latent_and_time(type(nets[0]))
        asked.append((stacked(call.arguments[latent])[0], call.arguments[time].flatten()[0]))
        if asked[-1][1] != asked[0][1]:
            raise Enough

    nets = list(denoisers(pipe).values())
    run(pipe, lambda _, output: answers.extend(output), ["cat"] * n, range(n), 50, options, nets, ask=ask)
    if not asked:
        raise Unsupported(f"{kind(pipe).__name__} is not supported: it never calls its {', '.join(denoisers(pipe))}")
    if not all(bool(row.isfinite().all()) for row in answers):
        raise Unsupported(
            f"{kind(pipe).__name__} is not supported: its {' or '.join(denoisers(pipe))} predicts numbers that are "
            f"not finite in {str(answers[0].dtype).removeprefix('torch.')}"
        )
    return [asked[0][0], asked[-1][0]], answers


def _offset(x: list[Tensor], one: Tensor, other: Tensor, scale: float) -> float | None:
    """Which of c + scale (c - u) and u + scale (c - u) a sampler steps along: 1 or 0; None where it adds noise.

    x           of a step and of the next one
    one, other  c and u, in either order
    The next x is, along its last dimension, a mixture of this x with one of the two: samplers are affine in it, and
    where a pipeline scales its prediction once more, it does so for each place. What the mixture leaves over is smaller
    for the right one.
    """
    now, following, one, other = (value.double().cpu() for value in (*x, one, other))
    if not now.shape == following.shape == one.shape:
        return 0.0

    def left(c: Tensor, u: Tensor, s: float) -> float:
        known = torch.stack([now, u + s * (c - u)], -1).reshape(-1, now.shape[-1], 2)
        wanted = following.reshape(-1, now.shape[-1], 1)
        return float((wanted - known @ (torch.linalg.pinv(known) @ wanted)).square().sum())

    rest = [min(left(one, other, scale + offset), left(other, one, scale + offset)) for offset in (0, 1)]
    if min(rest) > 1e-3 * float(following.square().sum()):
        return None
    return 1.0 if rest[1] < 0.25 * rest[0] else 0.0


def _noisy_offset(pipe: Pipeline, ways: list[dict[str, Any]], scale: float) -> float:
    """The same of a sampler that adds noise, which one seed has at every scale, and so goes out in differences.

    ways  options of runs without guidance, at scale, and at scale + 1: from the first to the second x moves by
          scale - 1 + offset times what it moves by to the third
    """
    none, here, more = (_first_step(pipe, way, 1)[0][1].double() for way in ways)
    by_one = more - here
    moved = float((here - none).flatten() @ by_one.flatten() / by_one.square().sum())
    return 1.0 if moved > scale - 0.5 else 0.0
