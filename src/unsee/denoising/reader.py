"""Run a pipeline's text encoder again with other tokens or vectors, as replay.py does with the denoiser.

k       places of a prompt that are open
vector  what the encoder's table of tokens has for a token (width,)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only
from transformers import PreTrainedModel

from unsee.denoising.calls import Call
from unsee.denoising.conditioned import condition, text_of
from unsee.denoising.rows import stack
from unsee.errors import Unsupported
from unsee.models.encoding import anew, text_encoders
from unsee.models.model import Pipeline, kind
from unsee.models.text import tokenizer

MARK = "x"
"""Stands in a prompt for an open place, before it is filled."""
MARKED = "{}"


@dataclass(frozen=True)
class Reader:
    """A prompt with k open places, as the text encoder reads it.

    ids      tokens of the prompt (1, tokens)
    open     the open places (k,)
    table    a vector for each token (vocabulary, width)
    allowed  which tokens may stand in an open place (vocabulary,)
    """

    prompt: str
    ids: Tensor
    open: Tensor
    table: Tensor
    allowed: Tensor
    _tokenizer: Any
    _encoder: PreTrainedModel
    _call: tuple[tuple[Any, ...], dict[str, Any]]
    _where: int
    _read_there: Tensor
    _text: Call
    _name: str

    def tokens(self, tokens: Tensor) -> Call:
        """What prompts with tokens (B, k) in the open places condition, B rows."""
        ids = self.ids.repeat(len(tokens), 1)
        ids[:, self.open] = tokens
        return self._read(ids)

    def vectors(self, vectors: Tensor) -> Call:
        """What prompts with vectors (B, k, width) in the open places condition, B rows. Gradients pass through."""
        with _instead(self._encoder, vectors, self.open), anew(self._encoder):
            return self._read(self.ids.repeat(len(vectors), 1))

    def words(self, tokens: Tensor) -> str:
        """The prompt with tokens (k,) in the open places, as text."""
        before, after = self.prompt.split(MARKED, 1)
        return " ".join(f"{before}{self._tokenizer.decode(tokens.tolist())}{after}".split())

    def _read(self, ids: Tensor) -> Call:
        args, kwargs = tree_map_only(
            Tensor,
            lambda x: (
                ids if x.shape == self.ids.shape and torch.equal(x, self.ids) else x.expand(len(ids), *x.shape[1:])
            ),
            self._call,
        )
        outputs = [one for one in tree_flatten(self._encoder(*args, **kwargs))[0] if isinstance(one, Tensor)]
        many = stack([self._text] * len(ids))
        said = outputs[self._where].to(many.arguments[self._name]) * self._read_there
        return replace(many, arguments=many.arguments | {self._name: said})


def reader(pipe: Pipeline, prompt: str, k: int) -> Reader:
    """A prompt, in which "{}" stands for k open places.

    Raises Unsupported unless the denoiser reads what one text encoder answers, and nothing else of the prompt.
    """
    filled = prompt.format(" ".join([MARK] * k))
    with _heard(pipe) as heard:
        condition(pipe, filled)
    text = text_of(pipe, filled)
    refused = Unsupported(
        f"{kind(pipe).__name__} is not supported: its denoiser reads more of a prompt than one text encoder's output"
    )
    numbers = [name for name, x in text.arguments.items() if isinstance(x, Tensor) and x.is_floating_point()]
    if len(numbers) != 1:
        raise refused
    name, said = numbers[0], text.arguments[numbers[0]]
    there = (said != 0).any(-1, keepdim=True)  # AuraFlow's pipeline writes zeros where there is padding
    words = tokenizer(pipe)
    mark = words(MARK, add_special_tokens=False).input_ids[-1]
    for encoder, call, answer in heard:
        outputs = [one for one in tree_flatten(answer)[0] if isinstance(one, Tensor)]
        where = next((n for n, one in enumerate(outputs) if one.shape == said.shape and _same(one * there, said)), None)
        whole = [one for one in tree_flatten(call)[0] if isinstance(one, Tensor) and not one.is_floating_point()]
        ids = next((one for one in whole if int((one == mark).sum()) == k and len(one) == 1), None)
        if where is None or ids is None:
            continue
        table = _table(encoder).weight.detach()
        allowed = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        known = [n for n in words.get_vocab().values() if n < len(table) and n not in words.all_special_ids]
        allowed[known] = True
        places = (ids[0] == mark).nonzero()[:, 0]
        return Reader(prompt, ids, places, table, allowed, words, encoder, call, where, there, text, name)
    raise refused


def _table(encoder: PreTrainedModel) -> nn.Embedding:
    found: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[assignment]
    return found


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-5))


@contextmanager
def _heard(pipe: Pipeline) -> Iterator[list[tuple[PreTrainedModel, Any, Any]]]:
    """Within the context, all calls of the text encoders: (encoder, (args, kwargs), answer)."""
    heard: list[tuple[PreTrainedModel, Any, Any]] = []
    encoders = text_encoders(pipe)
    handles = [
        one.register_forward_hook(lambda m, a, k, out: heard.append((m, (a, k), out)), with_kwargs=True)
        for one in encoders
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _instead(encoder: PreTrainedModel, vectors: Tensor, places: Tensor) -> Iterator[None]:
    """Within the context the encoder's table gives `vectors` (B, k, width) at some places of each row."""

    def put(_: nn.Module, args: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, places] = vectors.to(out)
        return out

    # Of tied tables an encoder may run another one than it names (T5).
    tied = _table(encoder).weight.data_ptr()
    tables = [one for one in encoder.modules() if isinstance(one, nn.Embedding) and one.weight.data_ptr() == tied]
    handles = [one.register_forward_hook(put) for one in tables]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
