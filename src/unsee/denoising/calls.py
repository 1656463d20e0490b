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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
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


def point(denoiser_class: type[nn.Module]) -> tuple[str, str]:
    """The names under which a denoiser class takes its latent and its time."""
    parameters = list(inspect.signature(denoiser_class.forward).parameters)[1:]
    time = next((name for name in parameters if name in ("timestep", "timesteps", "t")), None)
    if time is None:
        raise InputError(f"{denoiser_class.__name__} is not supported: it takes no time")
    return parameters[0], time


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


def rows_of(one: Call, two: Call) -> Rows:
    """Where arguments have their rows: what doubles from a call with one prompt to one with that prompt twice.

    The mask of a text has a row for each, also where a pipeline leaves it out as long as nothing is padded. Raises
    InputError where something grows otherwise.
    """
    rows = dict(_doubled(one.arguments, two.arguments))
    masks = (mask_of(str(path[0]), one.arguments) for path in rows if len(path) == 1)
    return {(mask,): 0 for mask in masks if mask} | rows


def _doubled(one: Any, two: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        yield from chain.from_iterable(_doubled(one[key], two[key], (*path, key)) for key in one)
        return
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.ndim == two.ndim:
        grown = [k for k, (few, many) in enumerate(zip(one.shape, two.shape, strict=True)) if few != many]
        if not grown or (len(grown) == 1 and two.shape[grown[0]] == 2 * one.shape[grown[0]]):
            yield from ((path, dimension) for dimension in grown)
            return
    elif isinstance(one, list | tuple) and type(one) is type(two):
        if len(two) == 2 * len(one) > 0:
            yield path, 0
            return
        if len(two) == len(one):
            yield from chain.from_iterable(_doubled(*pair, (*path, k)) for k, pair in enumerate(zip(one, two)))
            return
    elif type(one) is type(two) and not isinstance(one, Tensor | dict):
        return
    raise InputError(f"{_written(path)} has neither a row for each prompt nor one value for all")


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments, also in dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        yield from chain.from_iterable(map(tensors, value.values() if isinstance(value, dict) else value))


def _written(path: Path) -> str:
    return str(path[0]) + "".join(f"[{key!r}]" for key in path[1:])


def single(call: Call) -> list[Call]:
    """A call of B rows as B calls of one."""
    return [pick(call, slice(row, row + 1)) for row in range(call.output.shape[0])]


def pick(call: Call, rows: slice) -> Call:
    """Some rows of a call."""

    def part(_: Path, value: Any, dimension: int) -> Any:
        return value[(slice(None),) * dimension + (rows,)] if isinstance(value, Tensor) else value[rows]

    return replace(call, arguments=_changed(call, part), output=call.output[rows])


def spread(call: Call) -> Call:
    """A call in which what has rows has as many as its output; one row is spread over all.

    Raises InputError where there are others.
    """
    count = len(call.output)

    def part(path: Path, value: Any, dimension: int) -> Any:
        size = value.shape[dimension] if isinstance(value, Tensor) else len(value)
        if size == 1 and isinstance(value, Tensor):
            return value.expand(*value.shape[:dimension], count, *value.shape[dimension + 1 :])
        if size != count:
            raise InputError(f"{_written(path)} has {size} rows where the latent has {count}")
        return value

    return replace(call, arguments=_changed(call, part))


def _changed(call: Call, change: Callable[[Path, Any, int], Any]) -> dict[str, Any]:
    """A call's arguments with each value that has rows changed by (path, value, dimension)."""

    def part(value: Any, path: Path) -> Any:
        if value is not None and (dimension := call.dimension(path, value)) is not None:
            return change(path, value, dimension)
        if isinstance(value, dict):
            return {key: part(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(part(inner, (*path, k)) for k, inner in enumerate(value))
        return value

    return {name: part(value, (name,)) for name, value in call.arguments.items()}


def stack(calls: Sequence[Call]) -> Call:
    """Calls of one kind as one call, rows below rows.

    Where a pipeline cuts its texts to the longest of each batch, shorter ones are padded, and masks say so. Raises
    InputError where texts of different lengths have no mask, and where calls differ in what has no rows.
    """
    first = calls[0]

    def joined(values: Sequence[Any], path: Path) -> Any:
        one = values[0]
        if all(isinstance(value, Tensor) for value in values) and (
            (dimension := first.dimension(path, one)) is not None
        ):
            sizes = {value.shape[:dimension] + value.shape[dimension + 1 :] for value in values}
            if len(sizes) > 1:
                raise InputError(
                    f"prompts of different lengths cannot be learned together here: {_written(path)} has no mask; "
                    "use equal ones"
                )
            return torch.cat(list(values), dimension)
        if isinstance(one, dict):
            return {key: joined([value[key] for value in values], (*path, key)) for key in one}
        if isinstance(one, list | tuple):
            if first.dimension(path, one) is not None:
                return type(one)(chain.from_iterable(values))
            if {len(value) for value in values} == {len(one)}:
                return type(one)(joined(same_place, (*path, k)) for k, same_place in enumerate(zip(*values)))
        if not all(value is one or same(one, value) for value in values[1:]):
            raise InputError(
                f"rows of calls that differ in {_written(path)} cannot be learned together: it is one for a whole call"
            )
        return one

    arguments = joined(_padded([call.arguments for call in calls]), ())
    return replace(first, arguments=arguments, output=torch.cat([call.output for call in calls]))


def same(one: Any, other: Any) -> bool:
    """Whether two arguments are equal: tensors by their numbers, lists, tuples and dicts by what they hold."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if type(one) is type(other) and hasattr(one, "__dict__") and not isinstance(one, nn.Module):
        return same(vars(one), vars(other))  # a cache of earlier steps, mostly an empty one
    return type(one) is type(other) and bool(one == other)


def mask_of(text: str, arguments: Mapping[str, Any]) -> str | None:
    """The argument that is the mask of a text, by its name; None if there is none."""
    stem = text.removesuffix("_hidden_states").removesuffix("_embeds")
    names = (f"{text}_mask", f"{stem}_mask", f"{stem}_attention_mask")
    return next((name for name in names if isinstance(arguments.get(name, 0), Tensor | None)), None)


def lengths_of(text: str, arguments: Mapping[str, Any]) -> str | None:
    """The argument that has the lengths of a text, a number for each row, by its name; None if there is none."""
    stem = text.removesuffix("_hidden_states").rpartition("_")[0] or text
    names = (f"{kind}_{lengths}" for kind in (text, stem) for lengths in ("lens", "lengths", "length"))
    return next((name for name in names if isinstance(arguments.get(name), Tensor)), None)


def _padded(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments in which each text (B, tokens, features) that has a mask (B, tokens) is as long as the longest."""
    calls = [dict(call) for call in calls]
    for text, value in list(calls[0].items()):
        name = mask_of(text, calls[0])
        counted = lengths_of(text, calls[0]) is not None
        if not (name or counted) or not all(isinstance(call[text], Tensor) and call[text].ndim == 3 for call in calls):
            continue
        lengths = [call[text].shape[1] for call in calls]
        if name is None:
            for call, length in zip(calls, lengths, strict=True):
                call[text] = nn.functional.pad(call[text], (0, 0, 0, max(lengths) - length))
            continue
        masked = [call[name] is not None for call in calls]
        if len(set(lengths)) == len(set(masked)) == 1:
            continue
        for call, length in zip(calls, lengths, strict=True):
            value, mask = call[text], call[name]
            mask = torch.ones(value.shape[:2], device=value.device, dtype=torch.bool) if mask is None else mask
            more = max(lengths) - length
            call[text] = nn.functional.pad(value, (0, 0, 0, more))
            call[name] = nn.functional.pad(mask.bool(), (0, more))
    return calls


def named(module: nn.Module, args: Any, kwargs: Any) -> dict[str, Any]:
    """What a module is called with, by the names of its parameters; what is left out has its default."""
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


def bound(module: nn.Module, args: Any, kwargs: Any, result: Any) -> Call:
    """A denoiser's call with its arguments by name and a time for each row."""
    latent, time = point(type(module))
    arguments = named(module, args, kwargs)
    if isinstance(arguments[latent], list) and not all(isinstance(row, Tensor) for row in arguments[latent]):
        raise Unsupported(f"{type(module).__name__} is not supported: its {latent} is not one tensor for each prompt")
    output = predicted(result, arguments[latent])
    # Some families pass one time for the whole batch; one for each row lets rows of different times be stacked.
    t = torch.as_tensor(arguments[time], device=output.device)
    if t.ndim == 1 and len(t) not in (1, len(output)):
        raise Unsupported(
            f"{type(module).__name__} is not supported: of several prompts at once, its {time} has {len(t)} rows where "
            f"the latent has {len(output)}"
        )
    arguments[time] = t if t.ndim > 1 else t.expand(output.shape[0])  # some have a time for each token
    return Call(arguments | ({"return_dict": False} if "return_dict" in arguments else {}), output)


def _output(result: Any) -> Tensor:
    if not isinstance(result, tuple | Tensor | list):
        result = result.sample
    return stacked(result[0] if isinstance(result, tuple) else result)


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
    bare = isinstance(result, Tensor | list)
    old = result if bare else result[0] if isinstance(result, tuple) else result.sample
    new = list(output) if isinstance(old, list) else torch.cat([output.to(old.dtype), old[:, output.shape[1] :]], 1)
    if bare:
        return new
    return (new, *result[1:]) if isinstance(result, tuple) else replace(result, sample=new)


def split(call: Call, n: int) -> list[Call]:
    """A call that batches n conditions, as n calls."""
    rows = call.output.shape[0] // n
    return [pick(call, slice(i * rows, (i + 1) * rows)) for i in range(n)]
