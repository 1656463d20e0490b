"""Text encoders read each distinct prompt of a call once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import PreTrainedModel

from unsee.models.model import Pipeline


@contextmanager
def each_text_once(pipe: Pipeline) -> Iterator[None]:
    """Within the context, rows of a text encoder's call that are alike are computed once, and their answer repeated.

    Many pictures of one prompt, and the empty prompt of guided runs, otherwise come as so many equal rows: of an
    encoder of five thousand million weights they take more memory than drawing. A hook leaves out what is repeated, and
    another puts it back. They know token ids and masks by their being whole numbers, (B, tokens), and no encoder.
    """
    repeated: dict[int, tuple[int, list[int]]] = {}

    def leave_out(module: Any, args: Any, kwargs: Any) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ids = next((one for one in given if one.ndim == 2 and not one.is_floating_point()), None)
        if ids is None or any(one.is_floating_point() or one.shape != ids.shape for one in given):
            return None  # pictures, embeddings or places beside the text
        count = len(ids)
        keys = list(zip(*(map(tuple, one.tolist()) for one in given), strict=True))
        distinct = list(dict.fromkeys(keys))
        if len(distinct) in (count, ids.shape[1]):  # as many as tokens: rows could not be told from them below
            return None
        place = {key: k for k, key in enumerate(distinct)}
        repeated[id(module)] = len(distinct), [place[key] for key in keys]
        first = [keys.index(key) for key in distinct]
        return tree_map_only(Tensor, lambda x: x[first], (args, kwargs))

    def put_back(module: Any, args: Any, output: Any) -> Any:
        if id(module) not in repeated:
            return None
        count, places = repeated.pop(id(module))

        def rows(x: Tensor) -> Tensor:
            """The first dimension that has as many as there were rows: some encoders answer (tokens, B, features)."""
            found = next((k for k, size in enumerate(x.shape) if size == count), None)
            return x if found is None else x.index_select(found, torch.tensor(places, device=x.device))

        return tree_map_only(Tensor, rows, output)

    encoders = [part for part in pipe.components.values() if isinstance(part, PreTrainedModel)]
    handles = [part.register_forward_pre_hook(leave_out, with_kwargs=True) for part in encoders]
    handles += [part.register_forward_hook(put_back) for part in encoders]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
