"""Draw with conditioning that no prompt need give: what attacks on text act through. Letters are those of calls.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from unsee.denoising.calls import Call, bound, named, point, predicted
from unsee.denoising.intercept import guidance_of, over, told
from unsee.denoising.record import conditions
from unsee.denoising.rows import split, stack
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline


def condition(pipe: Pipeline, prompt: str) -> Call:
    """What a prompt conditions: the unanswered first call of an unguided run, one row."""
    return conditions(pipe, [prompt], seeds=[0], answered=False)


def text_of(pipe: Pipeline, prompt: str) -> Call:
    """Of a prompt's call, one row, the arguments that hold its text: those that differ from another prompt's."""
    other = "a dog on a beach" if prompt != "a dog on a beach" else "a church"
    return told(condition(pipe, prompt), condition(pipe, other))


def asked(net: nn.Module, text: Call, rows: Call) -> Tensor:
    """The denoiser's answers (B, ...) to the x and t of rows with the text of a call of one row, see `text_of`."""
    arguments = over(rows.arguments, stack([text] * len(rows.output)).arguments)
    return predicted(net(**arguments), arguments[point(type(net))[0]])


@contextmanager
def conditioned(pipe: Pipeline, prompt: str, text: Call, guided: bool = True) -> Iterator[None]:
    """Within the context runs for `prompt` are given other text where they ask with their prompt.

    text    one row, see `text_of`
    guided  whether the runs are; unguided ones ask with their prompt alone
    Raises InputError for guided runs of a pipeline without classifier-free guidance.
    """
    _, net = denoiser(pipe)
    alone = conditions(pipe, [prompt], seeds=[0])
    way = guidance_of(pipe, alone, prompt) if guided else None
    run: Any = None
    count = 0

    def instead(module: nn.Module, args: Any, kwargs: Any) -> Any:
        nonlocal run, count
        if run is not pipe.scheduler.timesteps:  # every run sets its own
            run, count = pipe.scheduler.timesteps, 0
        place, count = count, count + 1
        x = named(module, args, kwargs)[point(type(module))[0]]
        call = replace(bound(module, args, kwargs, (x,)), rows=way.null.rows if way else alone.rows)
        halves = split(call, 2) if way and way.calls == 1 else [call]
        if way and way.calls == 2 and place % 2 != way.c:
            return None
        c = way.c if len(halves) == 2 and way else 0
        new = over(halves[c].arguments, stack([text] * len(halves[c].output)).arguments)
        halves[c] = replace(halves[c], arguments=new)
        return (), (stack(halves) if len(halves) == 2 else halves[0]).arguments

    handle = net.register_forward_pre_hook(instead, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
