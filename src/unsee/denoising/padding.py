"""Does a denoiser read what text encoders write of padding?

Many pipelines pad each prompt to hundreds of tokens and hide the padding by a mask; others let the denoiser read it.
Nothing says which. So what is written there is changed, and the denoiser's answer watched, once for each pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from unsee.denoising.guidance import Enough, at_small_size, run
from unsee.errors import InputError
from unsee.models.denoisers import denoisers
from unsee.models.encoding import of_tokens, read, text_encoders
from unsee.models.model import Pipeline, raw

_FOUND: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""What `reads_padding` found of each pipeline, as long as it lives."""


def reads_padding(pipe: Pipeline) -> bool:
    """Whether padding at the end of a prompt must be encoded: it has no mask, or the denoiser's answer depends on it.

    Costs two calls of the denoiser where there is such a mask.
    """
    own = raw(pipe)
    if own not in _FOUND:
        try:
            _FOUND[own] = at_small_size(pipe, lambda size: _reads(pipe, size))
        except InputError:  # this call is no method's own: what a method cannot do, it says itself
            _FOUND[own] = True
    return _FOUND[own]


def _reads(pipe: Pipeline, size: dict[str, Any]) -> bool:
    with _changed(pipe) as padding:
        other = _answer(pipe, size)
    return not (padding and all(padding) and torch.equal(other, _answer(pipe, size)))


def _answer(pipe: Pipeline, size: dict[str, Any]) -> Tensor:
    """The denoiser's first answer of a run, with the options of a size."""
    answers: list[Tensor] = []

    def listen(_: Any, output: Tensor) -> None:
        answers.append(output)
        raise Enough

    run(pipe, listen, ["cat"], [0], 50, size, list(denoisers(pipe).values()))
    return answers[0] if answers else torch.zeros(0)


@contextmanager
def _changed(pipe: Pipeline) -> Iterator[list[bool]]:
    """Within the context, one is added to all that text encoders write but the tokens that a prompt has.

    Yields, for each call, whether it had padding and is answered by (B, tokens, features) and (B, features) alone.
    A call that had none ends the run.
    """
    calls: list[bool] = []

    def look(_: nn.Module, args: Any, kwargs: Any) -> None:
        if read(args, kwargs) is None:
            calls.append(False)
            raise Enough

    def change(_: nn.Module, args: Any, kwargs: Any, answer: Any) -> Any:
        lengths: Any = read(args, kwargs)
        rows, tokens = kwargs.get("input_ids", args[0] if args else None).shape
        parts = [part for part in tree_leaves(answer) if isinstance(part, Tensor)]
        calls.append(all(part.ndim == 2 or of_tokens(part, rows, tokens) for part in parts))
        padding = (torch.arange(tokens, device=lengths.device) >= lengths[:, None])[..., None]
        return tree_map_only(Tensor, lambda x: x + (padding.to(x) if of_tokens(x, rows, tokens) else 1), answer)

    encoders = text_encoders(pipe)
    handles = [part.register_forward_pre_hook(look, with_kwargs=True) for part in encoders]
    handles += [part.register_forward_hook(change, with_kwargs=True) for part in encoders]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
