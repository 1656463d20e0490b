"""Record what a pipeline asks of its denoiser and what it answers.

A forward hook sees each call whole. So nothing here knows a model: the pipeline encodes the prompt, prepares the latent
and draws the run, the hook listens. Letters are those of calls.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object, send_to_device
from diffusers import AutoPipelineForImage2Image
from PIL.Image import Image
from torch import Tensor, nn

from unsee.calls import Call, Step, Trajectory, bound, named, pick, point, replay, split, stack
from unsee.errors import InputError, unknown
from unsee.memory import SMALLER, Portions, spread
from unsee.pipelines import call_options, calling, denoiser, denoisers, draw, guided, processes, unguided

T = TypeVar("T")


Watch = Callable[[str, int, int], None]
"""Told (stage, done, total) as work goes on."""


def quiet(stage: str, done: int, total: int) -> None:
    """The Watch that says nothing."""


def record(
    pipe: Any,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 50,
    guidance_scale: float = 3.0,
    sampler: str = "pipeline",
    at: Sequence[int] | None = None,
    image: Image | None = None,
    batch: int = 24,
    watch: Watch = quiet,
) -> Trajectory:
    """Draw guided runs, one for each prompt and seed, and return every denoiser call of theirs.

    prompts         B texts
    seeds           B seeds of the initial noise; a run is the same whatever runs beside it
    steps           sampler steps S
    guidance_scale  > 1; x of the next step follows u + guidance_scale (c - u)
    sampler         "pipeline" (its own), or the name of a diffusers scheduler that can stand in for it
    at              which steps to return, counted from 0, the noisiest; runs stop after the last of them. Default all.
                    Of two denoisers, one answers the noisy steps and one the rest: these are of that in focus
    image           x of every step is this picture with the step's noise, instead of what the runs have come to
    batch           how many runs are drawn side by side; fewer where memory does not hold them
    Under `torchrun` or `accelerate launch` each process draws its share, and all of them return the whole.
    Nothing is decoded. Raises InputError for an unknown sampler, for a pipeline that does not guide in this
    way, and for an image where the family has no image-to-image pipeline.
    """
    wanted = sorted(set(range(steps) if at is None else at))
    length = len(wanted) if image else wanted[-1] + 1
    everyone = processes()
    batch = min(batch, -(-len(prompts) // everyone.num_processes))
    batches = [slice(start, start + batch) for start in range(0, len(prompts), batch)]
    mine = share(batches)
    recorded: list[list[Call]] = []
    watch("record", 0, len(mine) * length)
    with _scheduler(pipe, sampler):
        first = conditions(pipe, prompts[:1], seeds=seeds[:1], steps=steps)
        twin = _image_to_image(pipe) if image else None
        image = _fitted(image, pipe, first) if image else None
        portions = Portions(batch, "runs", SMALLER, fixed=spread(pipe))
        for rows in mine:

            def tick(done: int) -> None:
                watch("record", len(recorded) * length + done, len(mine) * length)

            def calls_of(
                part: slice, prompts: Sequence[str] = prompts[rows], seeds: Sequence[int] = seeds[rows]
            ) -> list[Call]:
                some = (prompts[part], seeds[part], steps)
                if twin is None:
                    return _guided_calls(pipe, *some, length, guidance_scale, tick)
                noised: list[Call] = []
                for done, k in enumerate(wanted, start=1):
                    # It begins at the picture with the noise of this step; nothing more of it is drawn.
                    # A fraction, since pipelines round steps * strength down.
                    options = {"image": [image] * len(prompts[part]), "strength": Fraction(steps - k, steps)}
                    noised += _guided_calls(twin, *some, 1, guidance_scale, lambda _: None, options)
                    tick(done)
                return noised

            parts = list(portions.each(calls_of, len(prompts[rows])))
            recorded.append([stack(same) for same in zip(*parts, strict=True)] if len(parts) > 1 else parts[0])
    calls = [stack(same) for same in zip(*gathered(recorded, len(batches)), strict=True)]
    # Which of a step's two calls holds the prompt differs by family: it is the one that answers as an unguided run.
    elsewhere = image or len(denoisers(pipe)) > 1
    asked = replay(denoiser(pipe)[1], first, like=pick(calls[0], slice(0, 1))) if elsewhere else first.output
    c = prompted(asked, calls[:2])
    chosen = range(length) if image else [k for k in wanted if k < len(calls) // 2]
    return [Step(calls[2 * k + c], calls[2 * k + 1 - c]) for k in chosen]


def share(items: Sequence[T]) -> list[T]:
    """What of some items this process makes: every n-th of n processes.

    All have equally many: who would have less makes the first one too. Where weights are spread over processes (FSDP),
    each call of the denoiser is one of all of them.
    """
    everyone = processes()
    mine = list(items[everyone.process_index :: everyone.num_processes])
    return mine if len(mine) * everyone.num_processes >= len(items) else [*mine, items[0]]


def gathered(parts: list[T], count: int) -> list[T]:
    """The first `count` of the parts that all processes made, each its `share`, in their order."""
    everyone = processes()
    if everyone.num_processes == 1:
        return parts
    whole = gather_object(send_to_device([(everyone.process_index, k, part) for k, part in enumerate(parts)], "cpu"))
    ordered = [part for _, _, part in sorted(whole, key=lambda item: (item[1], item[0]))]
    here: list[T] = send_to_device(ordered[:count], everyone.device)
    return here


def prompted(asked: Tensor, calls: Sequence[Call]) -> int:
    """Which of two calls holds the prompt, 0 or 1: that which answers most like `asked`, an unguided run (1, ...)."""
    distance = [(call.output[:1] - asked).abs().mean() for call in calls]
    return int(distance[1] < distance[0])


def _image_to_image(pipe: Any) -> Any:
    """The image-to-image pipeline of a pipeline's family, of the same parts."""
    try:
        twin: Any = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError as error:
        raise InputError(f"{type(pipe).__name__} takes no image: diffusers has no image-to-image for it") from error
    twin.set_progress_bar_config(disable=True)
    taken = inspect.signature(type(twin).__call__).parameters
    return calling(twin, **{name: value for name, value in call_options(pipe).items() if name in taken})


def _fitted(image: Image, pipe: Any, call: Call) -> Image:
    """A picture in the size that the pipeline draws, where its latents (B, channels, H, W) tell."""
    latent = call.arguments[point(type(denoiser(pipe)[1]))[0]]
    if latent.ndim != 4:
        return image
    return image.resize((latent.shape[3] * pipe.vae_scale_factor, latent.shape[2] * pipe.vae_scale_factor))


def _guided_calls(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    length: int,
    guidance_scale: float,
    tick: Callable[[int], None],
    options: Mapping[str, Any] | None = None,
) -> list[Call]:
    """The first `length` steps of a guided run, two calls a step, in the order in which the pipeline makes them."""
    calls: list[Call] = []
    _, time = point(type(denoiser(pipe)[1]))
    refusal = InputError(
        f"{type(pipe).__name__} does not predict once with the prompt and once without at each step: its guidance is "
        "distilled into the network, is off, or has more terms; methods that draw no guided runs may serve"
    )

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        calls.extend(split(Call(arguments, output), n := output.shape[0] // len(prompts)))
        if n > 2:
            raise refusal
        if len(calls) % 2 == 0:
            if not torch.equal(calls[-2].arguments[time], calls[-1].arguments[time]):
                raise refusal  # the second call is the next step's
            tick(len(calls) // 2)
        if len(calls) >= 2 * length:
            raise Enough

    run(pipe, listen, prompts, seeds, steps, {**guided(pipe, guidance_scale), **(options or {})})
    if len(denoisers(pipe)) > 1:
        if not calls:
            raise InputError(f"the {denoiser(pipe)[0]} answers none of the {steps} steps of a run: take more steps")
        length = len(calls) // 2
    if len(calls) != 2 * length:
        raise refusal
    return calls


def conditions(
    pipe: Any, prompts: Sequence[str], *, seeds: Sequence[int] | None = None, steps: int = 50, answered: bool = True
) -> Call:
    """The first denoiser call of unguided runs: its arguments hold all that the prompts condition, B rows.

    answered  False does without the denoiser's answer, and so costs only the prompts' encoding: the output is then x
    Of two denoisers the one in focus answers it, whichever was asked.
    """
    calls: list[Call] = []

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        calls.append(Call(arguments, output))
        raise Enough

    def ask(net: nn.Module, args: Any, kwargs: Any) -> None:
        x = named(net, args, kwargs)[point(type(net))[0]]
        call = bound(net, args, kwargs, (x,))
        listen(call.arguments, call.output)

    nets = list(denoisers(pipe).values())
    handles = [] if answered else [net.register_forward_pre_hook(ask, with_kwargs=True) for net in nets]
    try:
        run(pipe, listen, prompts, seeds or range(len(prompts)), steps, unguided(pipe), nets)
    finally:
        for handle in handles:
            handle.remove()
    if len(nets) == 1 or not answered:
        return calls[0]
    with torch.no_grad():
        return replace(calls[0], output=replay(denoiser(pipe)[1], calls[0]))


class Enough(Exception):
    """Raised through a pipeline to end a run early."""


def run(
    pipe: Any,
    listen: Callable[[dict[str, Any], Tensor], None],
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    options: dict[str, Any],
    nets: Sequence[nn.Module] | None = None,
) -> None:
    """Run a pipeline without decoding; `listen` gets each denoiser call's arguments, bound by name, and its output.

    nets  whose calls; default those of `denoiser`
    """

    def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        call = bound(module, args, kwargs, result)
        listen(call.arguments, call.output)

    handles = [net.register_forward_hook(hook, with_kwargs=True) for net in nets or [denoiser(pipe)[1]]]
    # What a run is without its prompt is the pipeline's own null: another negative prompt is a matter of pictures.
    kept = {name: value for name, value in call_options(pipe).items() if not name.startswith("negative_prompt")}
    try:
        with torch.no_grad():
            draw(pipe, prompts, seeds, steps, **{**kept, "output_type": "latent", **options})
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


class _scheduler:
    """Within the context a pipeline samples with another scheduler."""

    def __init__(self, pipe: Any, sampler: str):
        self.pipe, self.before = pipe, pipe.scheduler
        known = {kind.__name__: kind for kind in pipe.scheduler.compatibles}
        if sampler != "pipeline" and sampler not in known:
            raise unknown("sampler", sampler, ["pipeline", *known])
        own = sampler in ("pipeline", type(pipe.scheduler).__name__)
        self.scheduler = pipe.scheduler if own else known[sampler].from_config(pipe.scheduler.config)

    def __enter__(self) -> None:
        self.pipe.scheduler = self.scheduler

    def __exit__(self, *_: object) -> None:
        self.pipe.scheduler = self.before
