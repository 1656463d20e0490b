"""Replace the denoiser's predictions in every guided run of a pipeline, for guards.

Letters are those of calls.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, call_from_forward, latent_and_time, replace_prediction, stacked
from unsee.denoising.guidance import Enough, guided, run
from unsee.denoising.record import conditions, prompted, row_places
from unsee.denoising.replay import replay
from unsee.denoising.rows import mask_of, same, split, stack
from unsee.errors import InputError
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline, kind


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


def guidance_of(pipe: Pipeline, alone: Call, prompt: str) -> _Guidance:
    """Found out by asking. Raises InputError if there is no guidance.

    alone  the call for `prompt` of an unguided run
    """
    sizes: list[int] = []
    calls: list[Call] = []
    options = guided(pipe, 3.0)
    rows = row_places(pipe, prompt, 0, 50, options)

    def listen(arguments: dict[str, Any], output: Tensor) -> None:
        sizes.append(output.shape[0])
        calls.extend(split(Call(arguments, output, rows), output.shape[0]))
        if len(calls) >= 2:
            raise Enough

    run(pipe, listen, [prompt], [0], 50, options)
    if len(calls) != 2 or not _same_point(pipe, *calls):
        raise InputError(f"{kind(pipe).__name__} has no classifier-free guidance for a guard to act on")
    c = prompted(alone.output, calls)
    return _Guidance(len(sizes), c, calls[1 - c])


def _same_point(pipe: Pipeline, one: Call, other: Call) -> bool:
    """Whether two calls ask about one latent at one time."""
    latent, time = latent_and_time(type(denoiser(pipe)[1]))
    pairs = [(one.arguments[name], other.arguments[name]) for name in (latent, time)]
    return all(torch.equal(stacked(a), stacked(b)) for a, b in pairs)


def text_arguments(call: Call, other: Call) -> Call:
    """A call with those arguments only that differ from another prompt's: what the text says, no sizes or places."""

    def differing(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in one.items():
            if isinstance(value, dict):
                found[name] = differing(value, two.get(name) or {})
            elif not same(value, two.get(name)):
                found[name] = value
        # The mask of a text goes with it, though that of the other prompt may be the same.
        return found | {mask: one[mask] for name in found if (mask := mask_of(name, one))}

    return replace(call, arguments=differing(call.arguments, other.arguments))


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Arguments with others in their place, also inside of dicts."""
    inner = {name: over(below[name], value) if isinstance(value, dict) else value for name, value in above.items()}
    return {**below, **inner}


@contextmanager
def steered(
    pipe: Pipeline,
    prompt: str,
    *,
    null: Callable[[Tensor], Tensor] | None = None,
    prompted: Callable[[int, Tensor, Tensor, Tensor], Tensor] | None = None,
    again: Callable[[Call, Call], Tensor] | None = None,
) -> Iterator[None]:
    """Within the context every guided run of the pipeline gets other predictions from its denoiser than it computes.

    With c and u the predictions with the run's prompt and without it, and s that for `prompt`, each (B, ...):

    null      s -> what stands for u
    prompted  (k, c, u, s) -> what stands for c in step k, counted from 0 in each run
    again     (call, other) -> what stands for c: the call that was answered with c, and the same with `prompt`, which
              the denoiser may be asked again; its output is still c

    The pipeline's own guidance does the rest, whether it asks for c and u in one call or in two. Where it asks for c
    first, u is computed once more, for the empty prompt. s costs one call of B rows a step. Raises InputError for a
    pipeline, and in the context for a run, without guidance.
    """
    _, net = denoiser(pipe)
    concept = conditions(pipe, [prompt], seeds=[0])
    way = guidance_of(pipe, concept, prompt)
    asked, empty = text_arguments(concept, way.null), text_arguments(way.null, concept)
    run: Any = None
    count = 0  # denoiser calls in this run
    known: dict[int, Call] = {}  # the two halves of this step, as far as they have been asked for
    asking = False  # our own questions go through the same hook

    def about(text: Call, like: Call) -> Call:
        """A call with another text."""
        return replace(like, arguments=over(like.arguments, stack([text] * like.output.shape[0]).arguments))

    def ask(question: Callable[[], Tensor], like: Call) -> Tensor:
        nonlocal asking
        asking = True
        try:
            with torch.no_grad():
                return question()
        except RuntimeError as error:
            x = latent_and_time(type(net))[0]
            if like.arguments[x].shape[1:] == concept.arguments[x].shape[1:]:
                raise
            raise InputError(
                f"{kind(pipe).__name__} ties its texts to the picture's size: a guard works only at the default size "
                "or that of the call, as in load(..., call={'height': ..., 'width': ...})"
            ) from error
        finally:
            asking = False

    def told_of(text: Call, like: Call) -> Tensor:
        return ask(lambda: replay(net, about(text, like)), like)

    def answer(half: int) -> Tensor:
        """What the pipeline gets for one of the two conditions."""
        call = known[half]
        if half == way.c and again:
            return ask(partial(again, call, about(asked, call)), call)
        if half == way.c and prompted:
            u = known[1 - half].output if 1 - half in known else told_of(empty, call)
            return prompted((count - 1) // way.calls, call.output, u, told_of(asked, call))
        return null(told_of(asked, call)) if half != way.c and null else call.output

    def hook(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        nonlocal run, count, known
        if asking:
            return None
        if run is not pipe.scheduler.timesteps:  # every run sets its own
            run, count = pipe.scheduler.timesteps, 0
        call = replace(call_from_forward(module, args, kwargs, result), rows=way.null.rows)
        first = count % way.calls
        count += 1
        parts = dict(enumerate(split(call, 2 // way.calls), start=first))
        known = {**(known if first else {}), **parts}
        if call.output.shape[0] % len(parts) or (len(known) == 2 and not _same_point(pipe, *known.values())):
            raise InputError("this run is not guided: a guard needs a guidance scale above 1")
        return replace_prediction(result, torch.cat([answer(half) for half in parts]))

    handle = net.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
