r"""GEM: a hinge that ends where the prediction for the concept is nearer to the anchor's than to its own before.

GEM, ICML 2026, was written for flow models in which text and picture have blocks of their own. What follows is
from the authors' code.

    max( |e_theta(x_t, c) - e(x_t, a)|  -  eta |e_theta(x_t, c) - e(x_t, c)|,  0 )

e is the frozen model, e_theta the edited one, c the concept's prompt, a the anchor's, or no prompt. Where the loss is 0
its gradient is 0: the fit stops by itself, row by row, and does not steer beyond the anchor as ESD does (esd.py).
With eta = 1 it stops half way, and guidance multiplies the half that is left; a smaller eta stops later. At eta = 0 it
is the distance to the anchor (concept ablation, Kumari et al., 2023, without the square).

Departures from the paper
- x_t comes from guided runs of the frozen model, recorded once. The paper draws it anew for each update with the model
  being edited, and takes the first ten steps of a run, all in one update: `rerecord = 1` comes nearest.
- |y - c| is smoothed near 0, where a fit starts: the paper's adapter leaves y = c there to the bit, and 0 has no
  gradient; a recorded c differs by rounding, whose direction the loss would follow.
- Norms are root mean squares: a constant factor, and so is the paper's gamma = 100, which no optimizer here feels.
- The paper trains adapters on queries and keys of the blocks in which text and picture have weights of their own. Here
  the weights themselves learn, by default those of cross-attention.
- The optimizer is matrix-adam (fit/optimizers.py). The paper's is AdamW.
`GEM.presets["paper"]` takes back what it can. Nothing here preserves other concepts, as in the paper: on the miniature
the default leaves 4 of 24 churches and takes half of the castles along (docs/LOG.md).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from unsee.errors import one_line
from unsee.fit.monitor import Loss
from unsee.methods.esd import ESD
from unsee.methods.targets import Target, apart

SMOOTH = 0.01
"""Share of |a - c| below which the distance to c has no direction. Any small number; no other was tried."""


def hinge(eta: float, answer: Tensor, wanted: Tensor) -> Tensor:
    """max(|y - a| - eta |y - c|, 0) of each row (N,), with y = answer (N, ...) and a, c = wanted (N, 2, ...)."""
    a, c = (one.flatten(1) for one in wanted.unbind(1))
    y, least = answer.flatten(1), SMOOTH**2 * (a - c).square().sum(1)
    near: Tensor = torch.linalg.vector_norm(y - a, dim=1)
    far = ((y - c).square().sum(1) + least.clamp(min=1e-12)).sqrt()
    return (near - eta * far).clamp(min=0) / math.sqrt(y.shape[1])


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GEM(ESD):
    """Erase concepts with GEM's hinge; the formula is at the top of its file.

    eta  where the fit stops: 1 where the anchor is as near as the concept, 0 only at the anchor

    All other settings are ESD's. Calling it with a pipeline and one or more concepts returns an Edit and leaves the
    pipeline as it was. Raises InputError on a setting that is unknown or out of range.

        >>> edit = unsee.GEM(updates=4)(pipe, "church")
        >>> with edit.applied(pipe): pictures = unsee.generate(pipe, "a church")
    """

    name: ClassVar[str] = "gem"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # The authors' code: some 250 steps in all, ten an update.
        "paper": {
            "select": r"attn2?\.(to|add)_[qk](_proj)?\.", "updates": 26, "lr": 1e-3, "optimizer": "adam",
            "schedule": "constant", "batch": 10, "runs": 10, "record_steps": 28, "rerecord": 1,
        },
    }  # fmt: skip

    def regression(self) -> tuple[Target, Loss]:
        return apart, partial(hinge, self.eta)
