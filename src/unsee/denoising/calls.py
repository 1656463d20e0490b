"""A denoiser's calls and their outputs, as rows.

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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from unsee.errors import InputError, Unsupported

Path = tuple[str | int, ...]
"""Where a value is in a call's arguments: a name, and keys and places in the dicts, lists and tuples that it holds."""
Rows = Mapping[Path, int]
"""Which dimension of an argument counts the rows, by its path. Of a list with an item for each row it is dimension 0.
What has no entry is shared by all rows."""


@dataclass(frozen=True)
class Call:
    """One denoiser call for one condition: its arguments by name, B rows each, and its output (B, ...).

    The output is what the denoiser answered, or what it should learn to answer.
    rows  where the arguments have their rows; None: in dimension 0 of every tensor
    """

    arguments: dict[str, Any]
    output: Tensor
    rows: Rows | None = None

    def to(self, device: torch.device | str, **_: object) -> Call:
        """The call with its tensors on a device."""
        return replace(self, arguments=send_to_device(self.arguments, device), output=self.output.to(device))

    def dimension(self, path: Path, value: Any) -> int | None:
        """The dimension that counts the rows of an argument; None if it is shared."""
        if self.rows is None:
            return 0 if isinstance(value, Tensor) and value.ndim else None
        return self.rows.get(path)


@dataclass(frozen=True)
class Step:
    """One sampler step of B guided runs: the call with each run's prompt, and the call without it, at one (x, t)."""

    concept: Call
    null: Call


Trajectory = list[Step]
"""The steps of B guided runs, noisiest first."""


def latent_and_time(denoiser_class: type[nn.Module]) -> tuple[str, str]:
    """The names under which a denoiser class takes its latent and its time."""
    parameters = list(inspect.signature(denoiser_class.forward).parameters)[1:]
    time = next((name for name in parameters if name in ("timestep", "timesteps", "t")), None)
    if time is None:
        raise InputError(f"{denoiser_class.__name__} is not supported: its forward takes no timestep")
    return parameters[0], time


def bind_arguments(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a module's call, by the names of its parameters; omitted ones have their defaults."""
    signature = inspect.signature(type(module).forward)
    given = signature.bind(module, *args, **kwargs)
    given.apply_defaults()
    _, *found = given.arguments.items()
    arguments = dict(found)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            arguments.pop(parameter.name)
    return arguments


def call_from_forward(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Call:
    """A denoiser's call with its arguments by name and a time for each row."""
    latent, time = latent_and_time(type(module))
    arguments = bind_arguments(module, args, kwargs)
    if isinstance(arguments[latent], list) and not all(isinstance(row, Tensor) for row in arguments[latent]):
        raise Unsupported(f"{type(module).__name__} is not supported: its {latent} is not one tensor for each prompt")
    output = predicted(result, arguments[latent])
    # Some families pass one time for the whole batch; one for each row lets rows of different times be stacked.
    t = torch.as_tensor(arguments[time], device=output.device)
    if t.ndim == 1 and len(t) not in (1, len(output)):
        raise Unsupported(
            f"{type(module).__name__} is not supported: with several prompts at once, its {time} has {len(t)} rows and "
            f"its latent has {len(output)}"
        )
    arguments[time] = t if t.ndim > 1 else t.expand(output.shape[0])  # some have a time for each token
    return Call(arguments | ({"return_dict": False} if "return_dict" in arguments else {}), output)


def output_of(result: Any) -> Tensor:
    """What a denoiser's call returned, as one tensor (rows, ...): a tuple's first part, or the output's sample."""
    if not isinstance(result, tuple | Tensor | list):
        result = result.sample
    return stacked(result[0] if isinstance(result, tuple) else result)


def predicted(result: Any, x: Any) -> Tensor:
    """What a denoiser predicts for the latent x: of twice the channels, the first half.

    The second is then the variance that it has learned. No pipeline guides it: PixArt's drops it, DeepFloyd's hands it
    on as it is. So it is no part of eq. 6, and a fit that followed it would spend weights on what no picture shows.
    """
    output, x = output_of(result), stacked(x)
    return output[:, : x.shape[1]] if x.ndim == 4 and output.shape[1] == 2 * x.shape[1] else output


def stacked(rows: Any) -> Tensor:
    """Some families pass a latent as a list of rows."""
    return torch.stack(list(rows)) if isinstance(rows, list) else rows


def replace_prediction(result: Any, output: Tensor) -> Any:
    """A denoiser's return value with another prediction in it; a learned variance stays behind it."""
    bare = isinstance(result, Tensor | list)
    old = result if bare else result[0] if isinstance(result, tuple) else result.sample
    new = list(output) if isinstance(old, list) else torch.cat([output.to(old.dtype), old[:, output.shape[1] :]], 1)
    if bare:
        return new
    return (new, *result[1:]) if isinstance(result, tuple) else replace(result, sample=new)
