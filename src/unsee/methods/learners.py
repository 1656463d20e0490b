"""What a fit moves, and what it leads to: the weights themselves here, adapters in lora.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from torch import nn

from unsee.edits.card import Card
from unsee.edits.edit import Edit, LowRank
from unsee.fit.loop import Learned, trainable
from unsee.fit.optimizers import Metric
from unsee.models.weights import temporary_values


@dataclasses.dataclass(frozen=True)
class Learner:
    """What a fit moves, and what it leads to.

    learned  parameters and how they move
    frozen   makes a context in which the denoiser is the frozen model
    edit     (name of the denoiser, card) -> what was learned
    """

    learned: Learned
    frozen: Callable[[], AbstractContextManager[None]]
    edit: Callable[[str, Card], Edit]


class MakeLearner(Protocol):
    """A context within which weights of a denoiser can be learned; afterwards the denoiser is what it was.

    start   by parameter, the differences to start at
    metric  by parameter, the preconditioners
    """

    def __call__(
        self,
        net: nn.Module,
        weights: dict[str, nn.Parameter],
        metric: dict[str, Metric],
        start: dict[str, LowRank],
        seed: int,
    ) -> AbstractContextManager[Learner]: ...


@contextmanager
def dense(
    net: nn.Module, weights: dict[str, nn.Parameter], metric: dict[str, Metric], start: dict[str, LowRank], seed: int
) -> Iterator[Learner]:
    """Learn the weights themselves."""
    with trainable(weights) as frozen:
        for name, delta in start.items():
            weights[name].data += delta.dense(weights[name].shape).to(weights[name])
        edit = lambda key, card: Edit.between(key, frozen, weights, card)  # noqa: E731
        yield Learner(Learned(weights, metric), partial(temporary_values, weights, frozen), edit)
