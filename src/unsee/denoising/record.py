"""Record the calls that a pipeline makes to its denoiser, and their outputs.

A forward hook sees each call whole. So nothing here knows a model: the pipeline encodes the prompt, prepares the latent
and draws the run, the hook listens. Letters are those of calls.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers import AutoPipelineForImage2Image
from PIL.Image import Image
from torch import Tensor

from unsee.denoising.calls import Call, Rows, Step, Trajectory, latent_and_time
from unsee.denoising.guidance import Enough, guided, run, unguided
from unsee.denoising.replay import checked, replay
from unsee.denoising.rows import rows_of, select_rows, split, spread, stack
from unsee.errors import InputError, Unsupported
from unsee.models import memory
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.distributed import gathered, processes, share
from unsee.models.memory import SMALLER, Portions
from unsee.models.model import Model, Pipeline, call_options, kind, raw
from unsee.models.sampling import sampled_by
from unsee.progress import Progress, no_progress


@dataclass(frozen=True)
class Runs:
    """How runs are drawn.

    steps           sampler steps S
    guidance_scale  > 1; x of the next step follows u + guidance_scale (c - u)
    sampler         "pipeline" (its own), or the name of a diffusers scheduler that can stand in for it
    batch           how many runs are drawn side by side; fewer where memory does not hold them
    """

    steps: int = 50
    guidance_scale: float = 3.0
    sampler: str = "pipeline"
    batch: int = 24


def record(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    runs: Runs = Runs(),
    at: Sequence[int] | None = None,
    image: Image | None = None,
    progress: Progress = no_progress,
) -> Trajectory:
    """Draw guided runs, one for each prompt and seed, and return every denoiser call of theirs.

    prompts  B texts
    seeds    B seeds of the initial noise; a run is the same whatever runs beside it
    at       which steps to return, counted from 0, the noisiest; runs stop after the last of them. Default all.
             With two denoisers, only steps that the denoiser in focus answers are returned
    image    x of every step is this picture with the noise of that step, instead of what the runs have come to

    Under `torchrun` or `accelerate launch` each process draws its share, and all of them return the whole.
    Nothing is decoded. Raises InputError for an unknown sampler, for a pipeline that does not guide in this way or
    answers otherwise when it is asked again, and for an image where the family has no image-to-image pipeline.
    """
    steps = runs.steps
    wanted = sorted(set(range(steps) if at is None else at))
    length = len(wanted) if image else wanted[-1] + 1
    everyone = processes()
    batch = min(runs.batch, -(-len(prompts) // everyone.num_processes))
    batches = [slice(start, start + batch) for start in range(0, len(prompts), batch)]
    mine = share(batches)
    recorded: list[list[Call]] = []
    progress("record", 0, len(mine) * length)
    with sampled_by(pipe, runs.sampler):
        first = conditions(pipe, prompts[:1], seeds=seeds[:1], steps=steps)
        guidance = guided(pipe, runs.guidance_scale)
        rows_at = row_places(pipe, prompts[0], seeds[0], steps, guidance)
        twin = image_to_image(pipe) if image else None
        image = _fitted(image, pipe, first) if image else None
        portions = Portions(batch, "runs", SMALLER, fixed=memory.spread(pipe))
        for rows in mine:

            def tick(done: int) -> None:
                progress("record", len(recorded) * length + done, len(mine) * length)

            def calls_of(
                part: slice, prompts: Sequence[str] = prompts[rows], seeds: Sequence[int] = seeds[rows]
            ) -> list[Call]:
                some = (prompts[part], seeds[part], steps)
                if twin is None:
                    return _guided_calls(pipe, *some, length, guidance, rows_at, tick)
                noised: list[Call] = []
                for done, k in enumerate(wanted, start=1):
                    # It begins at the picture with the noise of this step; nothing more of it is drawn.
                    # A fraction, since pipelines round steps * strength down.
                    noise = {"image": [image] * len(prompts[part]), "strength": Fraction(steps - k, steps)}
                    noised += _guided_calls(twin, *some, 1, guidance | noise, rows_at, lambda _: None)
                    tick(done)
                return noised

            parts = list(portions.each(calls_of, len(prompts[rows])))
            recorded.append([stack(same) for same in zip(*parts, strict=True)] if len(parts) > 1 else parts[0])
    checked(pipe, recorded[0][:2])
    calls = [stack(same) for same in zip(*gathered(recorded, len(batches)), strict=True)]
    # Which of a step's two calls holds the prompt differs by family: it is the one that answers as an unguided run.
    elsewhere = image or len(denoisers(pipe)) > 1
    asked = replay(denoiser(pipe)[1], first, like=select_rows(calls[0], slice(0, 1))) if elsewhere else first.output
    c = prompted(asked, calls[:2])
    chosen = range(length) if image else [k for k in wanted if k < len(calls) // 2]
    return [Step(calls[2 * k + c], calls[2 * k + 1 - c]) for k in chosen]


def prompted(asked: Tensor, calls: Sequence[Call]) -> int:
    """Which of two calls holds the prompt, 0 or 1: the one whose output is most like `asked`, an unguided run's."""
    if any(call.output.shape[1:] != asked.shape[1:] for call in calls):
        raise Unsupported(
            "this denoiser is not supported: its predictions with the prompt and without it have different shapes; "
            "methods that draw no guided runs may work"
        )
    distance = [(call.output[:1] - asked).abs().mean() for call in calls]
    return int(distance[1] < distance[0])


def image_to_image(pipe: Pipeline) -> Model:
    """The image-to-image pipeline of a pipeline's family, of the same parts, with those call options that it takes."""
    model = Model.of(pipe)
    try:
        twin: Any = AutoPipelineForImage2Image.from_pipe(model.pipe)
    except ValueError as error:
        raise InputError(f"{kind(pipe).__name__} takes no image: diffusers has no image-to-image for it") from error
    twin.set_progress_bar_config(disable=True)
    taken = inspect.signature(type(twin).__call__).parameters
    return replace(model, pipe=twin, call={name: value for name, value in model.call.items() if name in taken})


def _fitted(image: Image, pipe: Pipeline, call: Call) -> Image:
    """A picture in the size that the pipeline draws, where its latents (B, channels, H, W) tell."""
    latent = call.arguments[latent_and_time(type(denoiser(pipe)[1]))[0]]
    if latent.ndim != 4:
        return image
    factor = raw(pipe).vae_scale_factor
    return image.resize((latent.shape[3] * factor, latent.shape[2] * factor))


def _guided_calls(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    length: int,
    options: Mapping[str, Any],
    rows: Rows,
    tick: Callable[[int], None],
) -> list[Call]:
    """The first `length` steps of a guided run, two calls a step, in the order in which the pipeline makes them."""
    calls: list[Call] = []
    _, time = latent_and_time(type(denoiser(pipe)[1]))
    refusal = Unsupported(
        f"{kind(pipe).__name__} does not predict once with the prompt and once without at each step: its guidance is "
        "distilled into the network, is off, or has more terms; methods that draw no guided runs may work"
    )

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        n, over = divmod(output.shape[0], len(prompts))
        if over or n not in (1, 2):
            raise refusal
        with _supported(pipe):
            calls.extend(split(spread(Call(arguments, output, rows)), n))
        if len(calls) % 2 == 0:
            if not torch.equal(calls[-2].arguments[time], calls[-1].arguments[time]):
                raise refusal  # the second call is the next step's
            tick(len(calls) // 2)
        if len(calls) >= 2 * length:
            raise Enough

    run(pipe, listen, prompts, seeds, steps, dict(options))
    if len(denoisers(pipe)) > 1:
        if not calls:
            raise InputError(f"none of the {steps} steps of a run calls the {denoiser(pipe)[0]}: take more steps")
        length = len(calls) // 2
    if len(calls) != 2 * length:
        raise refusal
    return calls


def _unanswered(
    pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], steps: int, options: dict[str, Any]
) -> Call:
    """The first denoiser call of a run, for the price of encoding the prompts; its output is x."""
    calls: list[Call] = []

    def ask(call: Call) -> None:
        calls.append(call)
        raise Enough

    run(pipe, lambda *_: None, prompts, seeds, steps, options, list(denoisers(pipe).values()), ask=ask)
    if not calls:
        raise Unsupported(f"{kind(pipe).__name__} is not supported: it never calls its {', '.join(denoisers(pipe))}")
    return calls[0]


def row_places(pipe: Pipeline, prompt: str, seed: int, steps: int, options: dict[str, Any]) -> Rows:
    """Where the denoiser's arguments have their rows: what doubles when a prompt is drawn twice.

    A pipeline is asked once for the same options: a prompt has no part in it, and asking encodes it twice.
    """
    known, key = _ROWS.setdefault(raw(pipe), {}), repr((sorted(options.items()), sorted(call_options(pipe).items())))
    if key not in known:
        one, two = (_unanswered(pipe, [prompt] * n, [seed] * n, steps, options) for n in (1, 2))
        with _supported(pipe):
            known[key] = rows_of(one, two)
    return known[key]


_ROWS: WeakKeyDictionary[Pipeline, dict[str, Rows]] = WeakKeyDictionary()
"""What `row_places` has found, by the options of a run and those of all calls."""


@contextmanager
def _supported(pipe: Pipeline) -> Iterator[None]:
    """Within the context, what is wrong is that a pipeline is not supported."""
    try:
        yield
    except InputError as error:
        raise Unsupported(f"{kind(pipe).__name__} is not supported: {error}") from error


def conditions(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int] | None = None,
    steps: int = 50,
    answered: bool = True,
) -> Call:
    """The first denoiser call of unguided runs: its arguments hold all that the prompts condition, B rows.

    answered  False does without the denoiser's answer, and so costs only the prompts' encoding: the output is then x
    Of two denoisers the one in focus answers it, whichever was asked.
    """
    seeds, options = seeds or range(len(prompts)), unguided(pipe)
    calls: list[Call] = []

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        calls.append(Call(arguments, output))
        raise Enough

    nets = list(denoisers(pipe).values())
    if answered and len(nets) == 1:
        run(pipe, listen, prompts, seeds, steps, options)
    else:
        calls.append(_unanswered(pipe, prompts, seeds, steps, options))
    rows = row_places(pipe, prompts[0], seeds[0], steps, options)
    if len(calls[0].output) != len(prompts):
        raise Unsupported(
            f"{kind(pipe).__name__} is not supported: it calls its denoiser with {len(calls[0].output)} rows for "
            f"{len(prompts)} prompts even without guidance"
        )
    with _supported(pipe):
        call = spread(replace(calls[0], rows=rows))
    if len(nets) == 1 or not answered:
        return call
    with torch.no_grad():
        return replace(call, output=replay(denoiser(pipe)[1], call))
