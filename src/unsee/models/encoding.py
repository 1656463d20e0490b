"""Text encoders read each distinct prompt once: of a call, and of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from transformers import PreTrainedModel

KEPT = 2**28
"""Bytes of a text encoder's answers that a method keeps in main memory: 1,100 prompts of SD 1.4, 60 of FLUX.1's T5."""


def text_encoders(pipe: Any) -> list[PreTrainedModel]:
    """The parts of a pipeline that come from transformers."""
    return [part for part in pipe.components.values() if isinstance(part, PreTrainedModel)]


@contextmanager
def each_text_once(pipe: Any, kept: int = 0, padded: bool = True) -> Iterator[None]:
    """Within the context, rows of a text encoder's call that are alike are computed once, and their answer repeated.

    kept    bytes, for each encoder, of answers that later calls need not compute again; the oldest give way
    padded  whether padding that a mask hides is computed; else its answer is zero, for a pipeline that never reads it
    Many pictures of one prompt, and the empty prompt of guided runs, otherwise come as so many equal rows: of an
    encoder of five thousand million weights they take more memory than drawing. Contexts may lie in one another.
    """
    encoders = text_encoders(pipe)
    before = [vars(part).get("forward") for part in encoders]
    inside = [_once(part.forward, kept, padded) for part in encoders]
    for part, forward in zip(encoders, inside, strict=True):
        part.forward = forward
    try:
        yield
    finally:
        for part, old, forward in zip(encoders, before, inside, strict=True):
            if vars(part).get("forward") is not forward:  # offloading puts its own anew at the end of a run
                continue
            del part.forward
            if old is not None:
                part.forward = old


@contextmanager
def anew(encoder: Any) -> Iterator[None]:
    """Within the context a text encoder computes every answer, also within `each_text_once`: its tables are changed."""
    now = vars(encoder).get("forward")
    plain = now
    while hasattr(plain, "computes"):
        plain = plain.computes
    if plain is now:
        yield
        return
    encoder.forward = plain
    try:
        yield
    finally:
        encoder.forward = now


def read(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """How many tokens of each row are left, (B,), without those at its end that a text encoder's attention mask hides.

    None without a mask of (B, tokens), and where it hides none. It is the second of what text encoders take.
    """
    mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None
    lengths = mask.ne(0).flip(1).cummax(1).values.sum(1).clamp(min=1)
    return lengths if bool((lengths < mask.shape[1]).any()) else None


def of_tokens(x: Any, rows: int, tokens: int) -> bool:
    """Whether a part of an answer is (rows, tokens, features)."""
    return isinstance(x, Tensor) and x.ndim == 3 and x.shape[:2] == (rows, tokens)


def _trimmed(forward: Callable[..., Any], said: tuple[Any, Any], tokens: int) -> Any:
    """The answer to a call, rows of one length at a time without padding, whose answer is zero."""
    if (lengths := read(*said)) is None:
        return forward(*said[0], **said[1])
    order, parts = [], []
    for length in sorted(set(lengths.tolist())):
        rows = (lengths == length).nonzero()[:, 0]
        some = tree_map_only(Tensor, itemgetter((rows, slice(length))), said)
        found, form = tree_flatten(forward(*some[0], **some[1]))
        parts.append([pad(x, (0, 0, 0, tokens - length)) if of_tokens(x, len(rows), length) else x for x in found])
        order.append(rows)
    back = torch.cat(order).argsort()
    whole = [torch.cat(some)[back] if isinstance(some[0], Tensor) else some[0] for some in zip(*parts, strict=True)]
    return tree_unflatten(whole, form)


def _once(forward: Callable[..., Any], kept: int, padded: bool) -> Callable[..., Any]:
    """A text encoder's forward that computes only the rows that it has not, by their token ids and masks.

    It knows these by their being whole numbers, (B, tokens), and no encoder.
    """
    memory: dict[Any, list[Tensor]] = {}  # the tensors of an answer for one row
    size = 0
    shapes: dict[Any, tuple[Any, list[Any], list[int]]] = {}  # how those of several rows are put together

    def once(*args: Any, **kwargs: Any) -> Any:
        nonlocal size
        leaves, spec = tree_flatten((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        ids = next((one for one in given if one.ndim == 2 and not one.is_floating_point()), None)
        if ids is None or any(one.is_floating_point() or one.shape != ids.shape for one in given):
            return forward(*args, **kwargs)  # pictures, embeddings or places beside the text
        said = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        if not all(isinstance(leaf, bool | int | float | str | None) for leaf in said):
            return forward(*args, **kwargs)  # what was read before, such as keys and values
        way = str(spec), *said
        keys = [(way, row) for row in zip(*(map(tuple, one.tolist()) for one in given), strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in memory]
        if len(new) == ids.shape[1]:  # as many rows as tokens: the two could not be distinguished below
            return forward(*args, **kwargs)
        rows = {key: memory[key] for key in keys if key in memory}
        if new:
            first = [keys.index(key) for key in new]
            every = len(new) == len(keys)
            some = (args, kwargs) if every else tree_map_only(Tensor, lambda x: x[first], (args, kwargs))
            answer = forward(*some[0], **some[1]) if padded else _trimmed(forward, some, ids.shape[1])
            parts, form = tree_flatten(answer)
            found = [part for part in parts if isinstance(part, Tensor)]
            places = [next((k for k, n in enumerate(part.shape) if n == len(new)), -1) for part in found]
            if -1 in places:  # what is no row's own is not known for others
                return answer if every else forward(*args, **kwargs)
            shapes[way] = form, [Tensor if isinstance(part, Tensor) else None for part in parts], places
            for n, key in enumerate(new):
                rows[key] = [part.select(place, n) for part, place in zip(found, places, strict=True)]
                if kept:
                    memory[key] = [part.to("cpu", copy=True) for part in rows[key]]
                    size += sum(part.nbytes for part in memory[key])
            while size > kept and memory:
                size -= sum(part.nbytes for part in memory.pop(next(iter(memory))))
            if every:
                return answer
        form, parts, places = shapes[way]
        whole = iter(
            torch.stack([rows[key][n].to(ids.device) for key in keys], place) for n, place in enumerate(places)
        )
        return tree_unflatten([next(whole) if part is Tensor else None for part in parts], form)

    found: Any = wraps(forward)(once)
    found.computes = forward
    return found  # type: ignore[no-any-return]
