"""Draw with conditioning that comes from no prompt, for attacks on text. Letters are those of calls.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from unsee.denoising.calls import Call, Rows, bind_arguments, call_from_forward, latent_and_time, predicted
from unsee.denoising.intercept import guidance_of, over, text_arguments
from unsee.denoising.record import conditions
from unsee.denoising.rows import split, stack
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline


def condition(pipe: Pipeline, prompt: str) -> Call:
    """The conditioning of a prompt: the first call of an unguided run, one row, without a prediction."""
    return conditions(pipe, [prompt], seeds=[0], answered=False)


def text_of(pipe: Pipeline, prompt: str) -> Call:
    """The arguments of a prompt's call, one row, that hold its text: those that differ from another prompt's."""
    other = "a dog on a beach" if prompt != "a dog on a beach" else "a church"
    return text_arguments(condition(pipe, prompt), condition(pipe, other))


def asked(net: nn.Module, text: Call, rows: Call) -> Tensor:
    """The denoiser's answers (B, ...) to the x and t of rows with the text of a call of one row, see `text_of`."""
    arguments = over(rows.arguments, stack([text] * len(rows.output)).arguments)
    return predicted(net(**arguments), arguments[latent_and_time(type(net))[0]])


@dataclass(frozen=True)
class Door:
    """The calls in which a pipeline's runs for a prompt read its text, found out once.

    rows   where the denoiser's arguments have their rows
    calls  denoiser calls of a step: 1 if the predictions with the prompt and without it come together, 2 if not
    c      which of the two is the prompt's; None where runs are not guided, and ask with their prompt alone
    """

    pipe: Pipeline
    rows: Rows | None
    calls: int = 1
    c: int | None = None

    @contextmanager
    def given(self, text: Call) -> Iterator[None]:
        """Within the context runs read other text where they ask with their prompt; text: one row, see `text_of`."""
        _, net = denoiser(self.pipe)
        run: Any = None
        count = 0

        def instead(module: nn.Module, args: Any, kwargs: Any) -> Any:
            nonlocal run, count
            if run is not self.pipe.scheduler.timesteps:  # every run sets its own
                run, count = self.pipe.scheduler.timesteps, 0
            place, count = count, count + 1
            if self.calls == 2 and place % 2 != self.c:
                return None
            x = bind_arguments(module, args, kwargs)[latent_and_time(type(module))[0]]
            call = replace(call_from_forward(module, args, kwargs, (x,)), rows=self.rows)
            both = self.c is not None and self.calls == 1
            parts, own = (split(call, 2), self.c or 0) if both else ([call], 0)
            new = over(parts[own].arguments, stack([text] * len(parts[own].output)).arguments)
            parts[own] = replace(parts[own], arguments=new)
            return (), (stack(parts) if both else parts[0]).arguments

        handle = net.register_forward_pre_hook(instead, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def door(pipe: Pipeline, prompt: str, guided: bool = True) -> Door:
    """Where runs for a prompt take in its text. Raises InputError for guided runs of a pipeline without guidance."""
    alone = conditions(pipe, [prompt], seeds=[0])
    if not guided:
        return Door(pipe, alone.rows)
    way = guidance_of(pipe, alone, prompt)
    return Door(pipe, way.null.rows, way.calls, way.c)
