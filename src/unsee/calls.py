"""What a denoiser was asked and what it answered, as rows; and asking again.

Every diffusers pipeline calls its `unet` or `transformer` with a latent, a time and conditioning, whatever the family,
prediction type or packing. A Call holds all of that by name, so nothing here knows a model.

    B     rows, one prompt and one seed each
    x     the latent as the denoiser gets it (B, ...), scaled by the sampler where it does so
    t     the time as the denoiser gets it: (B,)
    c, u  its predictions with the prompt and without it, in the network's own output (eps, v, flow or x0), without the
          channels of a learned variance that some networks put behind them
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from unsee.errors import InputError


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


def point(denoiser_class: type[nn.Module]) -> tuple[str, str]:
    """The names under which a denoiser class takes its latent and its time."""
    parameters = list(inspect.signature(denoiser_class.forward).parameters)[1:]
    return parameters[0], next(name for name in parameters if name in ("timestep", "timesteps", "t"))


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


def named(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """What a module is called with, by the names of its parameters."""
    signature = inspect.signature(type(module).forward)
    _, *given = signature.bind(module, *args, **kwargs).arguments.items()
    return dict(given)


def bound(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Call:
    """A denoiser's call with its arguments by name and a time for each row."""
    latent, time = point(type(module))
    arguments = named(module, args, kwargs)
    output = predicted(result, arguments[latent])
    # Some families pass one time for the whole batch; one for each row lets rows of different times be stacked.
    t = torch.as_tensor(arguments[time], device=output.device)
    arguments[time] = t if t.ndim > 1 else t.expand(output.shape[0])  # some have a time for each token
    return Call({**arguments, "return_dict": False}, output)


def _output(result: Any) -> Tensor:
    return stacked(result[0] if isinstance(result, tuple) else result.sample)


def predicted(result: Any, x: Any) -> Tensor:
    """What a denoiser predicts for the latent x: of twice the channels, the first half.

    The second is then the variance that it has learned. No pipeline guides it: PixArt's drops it, DeepFloyd's hands it
    on as it is. So it is no part of eq. 6, and a fit that followed it would spend weights on what no picture shows.
    """
    output, x = _output(result), stacked(x)
    return output[:, : x.shape[1]] if x.ndim == 4 and output.shape[1] == 2 * x.shape[1] else output


def stacked(rows: Any) -> Tensor:
    """Some families pass a latent as a list of rows."""
    return torch.stack(list(rows)) if isinstance(rows, list) else rows


def answering(result: Any, output: Tensor) -> Any:
    """What a denoiser returned, with another output in its place; behind it a learned variance as it was."""
    old = result[0] if isinstance(result, tuple) else result.sample
    new = list(output) if isinstance(old, list) else torch.cat([output.to(old.dtype), old[:, output.shape[1] :]], 1)
    return (new, *result[1:]) if isinstance(result, tuple) else replace(result, sample=new)


def split(call: Call, n: int) -> list[Call]:
    """A call that batches n conditions, as n calls."""
    rows = call.output.shape[0] // n
    return [pick(call, slice(i * rows, (i + 1) * rows)) for i in range(n)]
