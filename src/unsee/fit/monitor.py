"""The error that a fit lowers, and a look at it on rows that no update trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call
from unsee.denoising.replay import replay
from unsee.denoising.rows import select_rows
from unsee.models.memory import Portions

Loss = Callable[[Tensor, Tensor], Tensor]
"""Each row's loss (N,), of what the denoiser answers (N, ...) and what a call's output holds."""


@dataclass
class HeldOutMonitor:
    """Measures the error on rows that no update trains on, every few updates.

    erased, kept  rows that ask for the concept, rows of what must stay; each row's target is its output
    every         updates between two points of the curve
    patience      stop once the error on `erased` has not fallen by a hundredth in so many points; 0: never
    curve         points so far: (updates done, mean squared error on `erased`, and on `kept`)
    """

    erased: Call
    kept: Call
    every: int = 10
    patience: int = 0
    curve: list[tuple[float, float, float]] = field(default_factory=list)

    def __call__(self, denoiser: nn.Module, done: int, portions: Portions) -> bool:
        """Add a point, from so many rows at once; whether the fit may stop."""

        def mean(call: Call) -> float:
            count = len(call.output)
            return float(
                torch.cat(list(portions.each(lambda rows: error(denoiser, select_rows(call, rows)), count))).mean()
            )

        with torch.no_grad():
            erased, kept = mean(self.erased), mean(self.kept)
        self.curve.append((done, erased, kept))
        if not 0 < self.patience < len(self.curve):
            return False
        errors = [point[1] for point in self.curve]
        return min(errors) >= 0.99 * min(errors[: -self.patience])


def squared(answer: Tensor, wanted: Tensor) -> Tensor:
    """Each row's mean squared error, (N,), of answers (N, ...)."""
    return (answer - wanted).square().flatten(1).mean(1)


def error(denoiser: nn.Module, call: Call, loss: Loss = squared) -> Tensor:
    """Each row's loss, (N,), in the network's own output."""
    return loss(replay(denoiser, call).float(), call.output.float())
