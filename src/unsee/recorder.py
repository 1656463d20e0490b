"""Record what a pipeline asks of its denoiser and what it answers; ask again.

This is the only file that hooks a denoiser. Every diffusers pipeline calls its `unet` or `transformer` with a latent, a
time and conditioning; a forward hook sees that call whole, whatever the family, prediction type or packing. So nothing
here knows a model: the pipeline encodes the prompt, prepares the latent and draws the run, the hook listens.

    B     runs drawn side by side, one prompt and one seed each
    x     the latent as the denoiser gets it (B, ...), scaled by the sampler where it does so
    t     the time as the denoiser gets it: (B,)
    c, u  its predictions with the prompt and without it, in the network's own output (eps, v, flow or x0), without the
          channels of a learned variance that some networks put behind them
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object, send_to_device
from diffusers import AutoPipelineForImage2Image
from PIL.Image import Image
from torch import Tensor, nn

from unsee.errors import InputError, unknown
from unsee.pipelines import call_options, denoiser, denoisers, draw, guided, processes, unguided

T = TypeVar("T")
Watch = Callable[[str, int, int], None]
"""Told (stage, done, total) as work goes on."""


def quiet(stage: str, done: int, total: int) -> None:
    """The Watch that says nothing."""


@dataclass(frozen=True)
class Call:
    """One denoiser call for one condition: its arguments by name, B rows each, and its output (B, ...).

    The output is what the denoiser answered, or what it should learn to answer.
    """

    arguments: dict[str, Any]
    output: Tensor

    def to(self, device: torch.device | str, **_: object) -> Call:
        """The call with its tensors on a device."""
        return Call(send_to_device(self.arguments, device), self.output.to(device))


@dataclass(frozen=True)
class Step:
    """One sampler step of B guided runs: the call with each run's prompt, and the call without it, at one (x, t)."""

    concept: Call
    null: Call


Trajectory = list[Step]
"""The steps of B guided runs, noisiest first."""


def _names(denoiser_class: type[nn.Module]) -> tuple[str, str]:
    """The names under which a denoiser class takes its latent and its time."""
    parameters = list(inspect.signature(denoiser_class.forward).parameters)[1:]
    return parameters[0], next(name for name in parameters if name in ("timestep", "timesteps", "t"))


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
    batch           how many runs are drawn side by side
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
    with _scheduler(pipe, sampler):
        first = conditions(pipe, prompts[:1], seeds=seeds[:1], steps=steps)
        twin = _image_to_image(pipe) if image else None
        image = _fitted(image, pipe, first) if image else None
        for rows in mine:

            def tick(done: int) -> None:
                watch("record", len(recorded) * length + done, len(mine) * length)

            some = (prompts[rows], seeds[rows], steps)
            if twin is None:
                recorded.append(_guided_calls(pipe, *some, length, guidance_scale, tick))
                continue
            noised: list[Call] = []
            for done, k in enumerate(wanted, start=1):
                # It begins at the picture with the noise of this step; nothing more of it is drawn.
                options = {"image": [image] * len(prompts[rows]), "strength": (steps - k) / steps}
                noised += _guided_calls(twin, *some, 1, guidance_scale, lambda _: None, options)
                tick(done)
            recorded.append(noised)
    calls = [stack(same) for same in zip(*gathered(recorded, len(batches)), strict=True)]
    # Which of a step's two calls holds the prompt differs by family: it is the one that answers as an unguided run.
    elsewhere = image or len(denoisers(pipe)) > 1
    asked = replay(denoiser(pipe)[1], first, like=pick(calls[0], slice(0, 1))) if elsewhere else first.output
    c = _prompted(asked, calls[:2])
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


def _prompted(asked: Tensor, calls: Sequence[Call]) -> int:
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
    return twin


def _fitted(image: Image, pipe: Any, call: Call) -> Image:
    """A picture in the size that the pipeline draws, where its latents (B, channels, H, W) tell."""
    latent = call.arguments[_names(type(denoiser(pipe)[1]))[0]]
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
    _, time = _names(type(denoiser(pipe)[1]))
    refusal = InputError(
        f"{type(pipe).__name__} does not predict once with the prompt and once without at each step: its guidance is "
        "distilled into the network, is off, or has more terms; methods that draw no guided runs may serve"
    )

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        calls.extend(_split(Call(arguments, output), n := output.shape[0] // len(prompts)))
        if n > 2:
            raise refusal
        if len(calls) % 2 == 0:
            if not torch.equal(calls[-2].arguments[time], calls[-1].arguments[time]):
                raise refusal  # the second call is the next step's
            tick(len(calls) // 2)
        if len(calls) >= 2 * length:
            raise _Enough

    _run(pipe, listen, prompts, seeds, steps, {**guided(pipe, guidance_scale), **(options or {})})
    if len(denoisers(pipe)) > 1:
        if not calls:
            raise InputError(f"the {denoiser(pipe)[0]} answers none of the {steps} steps of a run: take more steps")
        length = len(calls) // 2
    if len(calls) != 2 * length:
        raise refusal
    return calls


def conditions(pipe: Any, prompts: Sequence[str], *, seeds: Sequence[int] | None = None, steps: int = 50) -> Call:
    """The first denoiser call of unguided runs: its arguments hold all that the prompts condition, B rows.

    Of two denoisers the one in focus answers it, whichever was asked.
    """
    calls: list[Call] = []

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        calls.append(Call(arguments, output))
        raise _Enough

    nets = list(denoisers(pipe).values())
    _run(pipe, listen, prompts, seeds or range(len(prompts)), steps, unguided(pipe), nets)
    if len(nets) == 1:
        return calls[0]
    with torch.no_grad():
        return replace(calls[0], output=replay(denoiser(pipe)[1], calls[0]))


def second_moments(pipe: Any, prompts: Sequence[str], layers: Sequence[str], *, batch: int = 64) -> dict[str, Tensor]:
    """E[x x^T] of the inputs x of linear layers of the denoiser, over all tokens of all prompts.

    layers  names of modules; the result has a (features, features) matrix for each, shared where they read one tensor
    Costs at most one unguided denoiser call for each prompt.
    """
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def add(name: str, x: Tensor) -> None:
        x = x.flatten(0, -2).float()
        sums[name] = sums.get(name, 0) + x.T @ x
        counts[name] += x.shape[0]

    together = _together(pipe, prompts[0], layers)
    for start in range(0, len(prompts), batch):
        _overhear(pipe, prompts[start : start + batch], list(together), add)
    found = {name: total / counts[name] for name, total in sums.items()}
    return {name: found[first] for first, names in together.items() for name in names}


def inputs(pipe: Any, prompts: Sequence[str], layers: Sequence[str]) -> dict[str, Tensor]:
    """The inputs (B, ..., features) of layers of the denoiser in one unguided call for B prompts, all at one latent."""
    heard: dict[str, Tensor] = {}
    together = _together(pipe, prompts[0], layers)
    _overhear(pipe, prompts, list(together), heard.__setitem__, seeds=[0] * len(prompts))
    return {name: heard[first] for first, names in together.items() for name in names}


def means(pipe: Any, prompts: Sequence[str], layer: str, *, batch: int = 64) -> Tensor:
    """The inputs of a layer of the denoiser for B prompts, each a mean over all tokens: (B, features)."""
    parts = [inputs(pipe, prompts[start : start + batch], [layer])[layer] for start in range(0, len(prompts), batch)]
    sizes = [min(batch, len(prompts) - start) for start in range(0, len(prompts), batch)]
    return torch.cat([x.reshape(n, -1, x.shape[-1]).float().mean(1) for n, x in zip(sizes, parts, strict=True)])


def _together(pipe: Any, prompt: str, layers: Sequence[str]) -> dict[str, list[str]]:
    """Layers that read one tensor, by the first of them: all cross-attention reads what the text encoder wrote."""
    heard: dict[str, Tensor] = {}  # holds what was read, so that no two tensors had one place in memory
    _overhear(pipe, [prompt], layers, heard.__setitem__)
    groups: dict[tuple[int, torch.Size], list[str]] = {}
    for name, x in heard.items():
        groups.setdefault((x.data_ptr(), x.shape), []).append(name)
    return {names[0]: names for names in groups.values()}


def _overhear(
    pipe: Any,
    prompts: Sequence[str],
    layers: Sequence[str],
    hear: Callable[[str, Tensor], None],
    seeds: Sequence[int] | None = None,
) -> None:
    """Make the first denoiser call of unguided runs, until `hear` has got each layer's name and input."""
    _, net = denoiser(pipe)
    silent = set(layers)

    def listen(name: str, x: Tensor) -> None:
        hear(name, x.detach())
        silent.discard(name)
        if not silent:
            raise _Heard

    handles = [
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: listen(name, args[0]))
        for name in layers
    ]
    try:
        with suppress(_Heard):
            conditions(pipe, prompts, seeds=seeds)
    finally:
        for handle in handles:
            handle.remove()


def contributions(
    pipe: Any, prompts: Sequence[str], layers: Sequence[str], *, seeds: Sequence[int], steps: int = 20
) -> dict[str, Tensor]:
    """How much modules of the denoiser add at each place: the root mean square over channels of what they return.

    layers  names of modules that return (rows, places, channels), such as attention
    Averaged over the steps of unguided runs, one for each prompt and seed: (B, places) for each layer.
    """
    _, net = denoiser(pipe)
    sums: dict[str, list[Tensor]] = {name: [] for name in layers}

    def add(name: str, output: Any) -> None:
        sums[name].append(_stacked(output).float().square().mean(-1).sqrt())

    handles = [net.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: add(n, out)) for n in layers]
    try:
        _run(pipe, lambda arguments, output: None, prompts, seeds, steps, unguided(pipe))
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(found).mean(0) for name, found in sums.items()}


@dataclass(frozen=True)
class _Guidance:
    """How a pipeline asks for the two predictions that its guidance mixes.

    calls  denoiser calls in a step: 1 if both predictions are batched, 2 if not
    c      which of the two is the prompt's: 0 or 1
    null   the call without the prompt, one row
    """

    calls: int
    c: int
    null: Call


def _guidance(pipe: Any, alone: Call, prompt: str) -> _Guidance:
    """Found out by asking. Raises InputError if there is no guidance.

    alone  the call for `prompt` of an unguided run
    """
    sizes: list[int] = []
    calls: list[Call] = []

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        sizes.append(output.shape[0])
        calls.extend(_split(Call(arguments, output), output.shape[0]))
        if len(calls) >= 2:
            raise _Enough

    _run(pipe, listen, [prompt], [0], 50, guided(pipe, 3.0))
    if len(calls) != 2 or not _same_point(pipe, *calls):
        raise InputError(f"{type(pipe).__name__} has no classifier-free guidance for a guard to act on")
    c = _prompted(alone.output, calls)
    return _Guidance(len(sizes), c, calls[1 - c])


def _same_point(pipe: Any, one: Call, other: Call) -> bool:
    """Whether two calls ask about one latent at one time."""
    latent, time = _names(type(denoiser(pipe)[1]))
    pairs = [(one.arguments[name], other.arguments[name]) for name in (latent, time)]
    return all(torch.equal(_stacked(a), _stacked(b)) for a, b in pairs)


def _told(call: Call, other: Call) -> Call:
    """A call with those arguments only that differ from another prompt's: what the text says, no sizes or places."""

    def differing(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in one.items():
            if isinstance(value, dict):
                found[name] = differing(value, two.get(name) or {})
            elif not _same(value, two.get(name)):
                found[name] = value
        # The mask of a text goes with it, though that of the other prompt may be the same.
        return found | {mask: one[mask] for name in found if (mask := f"{name}_mask") in one}

    return Call(differing(call.arguments, other.arguments), call.output)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Arguments with others in their place, also inside of dicts."""
    inner = {name: _over(below[name], value) if isinstance(value, dict) else value for name, value in above.items()}
    return {**below, **inner}


@contextmanager
def steered(
    pipe: Any,
    prompt: str,
    *,
    null: Callable[[Tensor], Tensor] | None = None,
    prompted: Callable[[int, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Iterator[None]:
    """Within the context every guided run of the pipeline gets other predictions from its denoiser than it computes.

    With c and u the predictions with the run's prompt and without it, and s that for `prompt`, each (B, ...):

    null      s -> what stands for u
    prompted  (k, c, u, s) -> what stands for c in step k, counted from 0 in each run

    The pipeline's own guidance does the rest, whether it asks for c and u in one call or in two. Where it asks for c
    first, u is computed once more, for the empty prompt. s costs one call of B rows a step. Raises InputError for a
    pipeline, and in the context for a run, without guidance.
    """
    _, net = denoiser(pipe)
    concept = conditions(pipe, [prompt], seeds=[0])
    way = _guidance(pipe, concept, prompt)
    asked, empty = _told(concept, way.null), _told(way.null, concept)
    run: Any = None
    count = 0  # denoiser calls in this run
    known: dict[int, Call] = {}  # the two halves of this step, as far as they have been asked for
    asking = False  # our own questions go through the same hook

    def ask(about: Call, like: Call) -> Tensor:
        nonlocal asking
        asking = True
        try:
            with torch.no_grad():
                arguments = _over(like.arguments, stack([about] * like.output.shape[0]).arguments)
            return _predicted(net(**arguments), like.arguments[_names(type(net))[0]])
        except RuntimeError as error:
            x = _names(type(net))[0]
            if like.arguments[x].shape[1:] == concept.arguments[x].shape[1:]:
                raise
            raise InputError(
                f"{type(pipe).__name__} ties its texts to the picture's size: a guard works at one size there, its own "
                "or what unsee.pipelines.calling(pipe, height=..., width=...) keeps with it"
            ) from error
        finally:
            asking = False

    def answer(half: int) -> Tensor:
        """What the pipeline gets for one of the two conditions."""
        call = known[half]
        if half == way.c and prompted:
            u = known[1 - half].output if 1 - half in known else ask(empty, call)
            return prompted((count - 1) // way.calls, call.output, u, ask(asked, call))
        return null(ask(asked, call)) if half != way.c and null else call.output

    def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        nonlocal run, count, known
        if asking:
            return None
        if run is not pipe.scheduler.timesteps:  # every run sets its own
            run, count = pipe.scheduler.timesteps, 0
        call = _bound(module, args, kwargs, result)
        first = count % way.calls
        count += 1
        parts = dict(enumerate(_split(call, 2 // way.calls), start=first))
        known = {**(known if first else {}), **parts}
        if call.output.shape[0] % len(parts) or (len(known) == 2 and not _same_point(pipe, *known.values())):
            raise InputError("this run is not guided: a guard needs a guidance scale above 1")
        return _like(result, torch.cat([answer(half) for half in parts]))

    handle = net.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def replay(denoiser: nn.Module, call: Call, like: Call | None = None) -> Tensor:
    """The denoiser's answer now to a recorded call, (B, ...); at the latent and time of the call `like` if given."""
    arguments, names = call.arguments, _names(type(denoiser))
    if like is not None:
        arguments = {**arguments, **{name: like.arguments[name] for name in names}}
    return _predicted(denoiser(**arguments), arguments[names[0]])


@contextmanager
def checkpointed(denoiser: nn.Module, call: Call) -> Iterator[None]:
    """Within the context activations are computed again on the way back, not kept: less memory, more time.

    call  any call; the denoiser must answer it as before
    Raises InputError if it does not (Chroma in diffusers 0.42 then forgets a mask), or cannot checkpoint at all.
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


def single(call: Call) -> list[Call]:
    """A call of B rows as B calls of one."""
    return [pick(call, slice(row, row + 1)) for row in range(call.output.shape[0])]


def pick(call: Call, rows: slice) -> Call:
    """Some rows of a call. What has no row for each output (position ids, sizes) is shared by all."""
    count = call.output.shape[0]

    def part(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: part(inner) for key, inner in value.items()}
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == count:
            return value[rows]
        if isinstance(value, list) and len(value) == count:
            return value[rows]
        return value

    return Call({name: part(value) for name, value in call.arguments.items()}, call.output[rows])


def stack(calls: Sequence[Call]) -> Call:
    """Calls of one kind as one call, rows below rows.

    Where a pipeline cuts its texts to the longest of each batch, shorter ones are padded, and masks say so. Raises
    InputError where texts of different lengths have no mask.
    """

    def joined(name: str, values: Sequence[Any], counts: Sequence[int]) -> Any:
        first = values[0]
        if isinstance(first, dict):
            return {key: joined(key, [value[key] for value in values], counts) for key in first}
        if isinstance(first, Tensor) and first.ndim and first.shape[0] == counts[0]:
            if len({value.shape[1:] for value in values}) > 1:
                raise InputError(
                    f"prompts of different lengths cannot be learned together here: {name} has no mask; use equal ones"
                )
            return torch.cat(list(values))
        if isinstance(first, list) and len(first) == counts[0]:
            return [item for value in values for item in value]
        return first

    counts = [call.output.shape[0] for call in calls]
    rows = _padded([call.arguments for call in calls])
    arguments = {name: joined(name, [row[name] for row in rows], counts) for name in rows[0]}
    return Call(arguments, torch.cat([call.output for call in calls]))


def _padded(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments in which each text (B, tokens, features) that has a mask (B, tokens) is as long as the longest."""
    calls = [dict(call) for call in calls]
    for name in [name for name in calls[0] if isinstance(calls[0].get(f"{name}_mask", 0), Tensor | None)]:
        lengths = [call[name].shape[1] for call in calls]
        masked = [call[f"{name}_mask"] is not None for call in calls]
        if len(set(lengths)) == len(set(masked)) == 1:
            continue
        for call, length in zip(calls, lengths, strict=True):
            text, mask = call[name], call[f"{name}_mask"]
            mask = torch.ones(text.shape[:2], device=text.device, dtype=torch.bool) if mask is None else mask
            more = max(lengths) - length
            call[name] = nn.functional.pad(text, (0, 0, 0, more))
            call[f"{name}_mask"] = nn.functional.pad(mask.bool(), (0, more))
    return calls


class _Enough(Exception):
    """Raised through a pipeline to end a run early."""


class _Heard(Exception):
    """Raised through a pipeline once all layers were heard."""


def _run(
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
        call = _bound(module, args, kwargs, result)
        listen(call.arguments, call.output)

    handles = [net.register_forward_hook(hook, with_kwargs=True) for net in nets or [denoiser(pipe)[1]]]
    # What a run is without its prompt is the pipeline's own null: another negative prompt is a matter of pictures.
    kept = {name: value for name, value in call_options(pipe).items() if not name.startswith("negative_prompt")}
    try:
        with torch.no_grad():
            draw(pipe, prompts, seeds, steps, **{**kept, "output_type": "latent", **options})
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _bound(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Call:
    """A denoiser's call with its arguments by name and a time for each row."""
    signature = inspect.signature(type(module).forward)
    latent, time = _names(type(module))
    arguments = dict(signature.bind(module, *args, **kwargs).arguments)
    del arguments[next(iter(signature.parameters))]
    output = _predicted(result, arguments[latent])
    # Some families pass one time for the whole batch; one for each row lets rows of different times be stacked.
    t = torch.as_tensor(arguments[time], device=output.device)
    arguments[time] = t if t.ndim > 1 else t.expand(output.shape[0])  # some have a time for each token
    return Call({**arguments, "return_dict": False}, output)


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


def _output(result: Any) -> Tensor:
    return _stacked(result[0] if isinstance(result, tuple) else result.sample)


def _predicted(result: Any, x: Any) -> Tensor:
    """What a denoiser predicts for the latent x: of twice the channels, the first half.

    The second is then the variance that it has learned. No pipeline guides it: PixArt's drops it, DeepFloyd's hands it
    on as it is. So it is no part of eq. 6, and a fit that followed it would spend weights on what no picture shows.
    """
    output, x = _output(result), _stacked(x)
    return output[:, : x.shape[1]] if x.ndim == 4 and output.shape[1] == 2 * x.shape[1] else output


def _stacked(rows: Any) -> Tensor:
    """Some families pass a latent as a list of rows."""
    return torch.stack(list(rows)) if isinstance(rows, list) else rows


def _like(result: Any, output: Tensor) -> Any:
    """What a denoiser returned, with another output in its place; behind it a learned variance as it was."""
    old = result[0] if isinstance(result, tuple) else result.sample
    new = list(output) if isinstance(old, list) else torch.cat([output.to(old.dtype), old[:, output.shape[1] :]], 1)
    return (new, *result[1:]) if isinstance(result, tuple) else replace(result, sample=new)


def _split(call: Call, n: int) -> list[Call]:
    """A call that batches n conditions, as n calls."""
    rows = call.output.shape[0] // n
    return [pick(call, slice(i * rows, (i + 1) * rows)) for i in range(n)]
