"""The rows of a call: which dimension counts them; taking some out, and putting calls together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call, Path, Rows
from unsee.errors import InputError


def rows_of(one: Call, two: Call) -> Rows:
    """The places of the arguments' rows: what doubles from a call with one prompt to one with that prompt twice.

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


def single_rows(call: Call) -> list[Call]:
    """A call of B rows as B calls of one."""
    return [select_rows(call, slice(row, row + 1)) for row in range(call.output.shape[0])]


def select_rows(call: Call, rows: slice) -> Call:
    """Some rows of a call."""

    def part(_: Path, value: Any, dimension: int) -> Any:
        return value[(slice(None),) * dimension + (rows,)] if isinstance(value, Tensor) else value[rows]

    return replace(call, arguments=_changed(call, part), output=call.output[rows])


def spread(call: Call) -> Call:
    """A call whose arguments have as many rows as its output; a single row is repeated for all.

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
                    "use prompts of equal length"
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
                f"calls with different {_written(path)} cannot be learned together: a call has one value for all rows"
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


def split(call: Call, n: int) -> list[Call]:
    """A call that batches n conditions, as n calls."""
    rows = call.output.shape[0] // n
    return [select_rows(call, slice(i * rows, (i + 1) * rows)) for i in range(n)]
