"""A row of pictures to draw, each with the answer that a detector gives if the model draws what the prompt says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from unsee.concepts import Concept
from unsee.denoising.calls import Call
from unsee.denoising.record import conditions
from unsee.denoising.rows import single_rows, tensors
from unsee.evaluate.records import Role
from unsee.evaluate.render import Shot

T = TypeVar("T")
NEIGHBOURS = 5
STYLED = "{} in {} style"


Pairs = Sequence[tuple[str, str]]
"""Prompts, each with the label that counts."""


class Row(NamedTuple):
    """A row before its pictures are chosen."""

    key: str
    name: str
    pairs: Pairs
    detector: str | None
    role: Role
    note: str = ""


@dataclass(frozen=True)
class Question:
    """One row of a result.

    key       names the row in records; it stays when the English of `name` changes
    name      of the row, as shown
    shots     the pictures that it looks at
    detector  the kind of detector that answers; None if there is none
    labels    the answer that counts, for each shot
    role      what the row is about, for an edit that erases all that is erased; see records.Role
    erases    the concepts that must be gone for the row to be at zero, where its labels do not say that
    reference drawn by the base model only, for others to be compared with
    note      what a reader should know of this row: why nothing is counted, or what stands for what
    """

    key: str
    name: str
    shots: tuple[Shot, ...]
    detector: str | None = None
    labels: tuple[str, ...] = ()
    role: Role = "kept"
    erases: tuple[Concept, ...] = ()
    reference: bool = False
    note: str = ""


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spaced over all."""
    count = min(count, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def nearest(pipe: Any, words: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Labels by how alike the text encoder finds them to any of some words: cosine of the conditioning, most first."""
    call = conditions(pipe, [*words, *labels], answered=False)
    vectors = torch.nn.functional.normalize(_conditioning(call), dim=1)
    order = (vectors[len(words) :] @ vectors[: len(words)].T).amax(1).argsort(descending=True).tolist()
    return [labels[k] for k in order]


def _conditioning(call: Call) -> Tensor:
    """The text that a call is conditioned on, as one vector a row: its widest argument of tokens by channels."""

    def text(row: Call) -> Tensor:
        texts = [x for x in tensors(row.arguments) if x.is_floating_point() and x.ndim in (2, 3)]
        return max((x for x in texts if x.numel() > x.shape[-1]), key=lambda x: x.shape[-1]).float()

    texts = [text(row) for row in single_rows(call)]
    alike = len({text.shape for text in texts}) == 1  # else a text is as long as its prompt
    return torch.stack([text.flatten() if alike else text.flatten(0, -2).mean(0) for text in texts])
