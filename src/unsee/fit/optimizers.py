r"""How far weights move in one update, measured by how far the outputs of their layers move.

A layer puts out y = W x + b. A weight has no natural size: the same function has a W ten times smaller where x is ten
times larger. So a step is measured by what it does to y, relative to what y usually is:

    rms(D x)  <=  rate rms(y) / sqrt(n)

n tensors move together, and their effects add up as independent parts do. With g the gradient of W:

    with a metric    D = step g M / sqrt(mean over rows of g M g^T)          rms(D x) = step on inputs of moment M^-1
    without          D = step g / rms(g),  step = rate rms(y) / (fan_in rms(x) sqrt(n)): an input that is aligned with
                     a row of D adds up over all fan_in of its numbers (muP: Yang et al., arXiv:2203.03466)

Both give the same function in whatever scale x and y are written and however wide they are, and the first one in any
basis. The metric of a matrix that reads the prompt is the inverse second moment of its inputs, as in K-FAC (Martens and
Grosse, arXiv:1503.05671) and in closed-form erasers (UCE, arXiv:2308.14761).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unsee.denoising.activations import written
from unsee.denoising.calls import Call
from unsee.denoising.replay import replay

RATE = 0.13
"""How far one update may move a layer's output, as a share of that output's usual size, when no step is given.
Tuned on the miniature with the preset `explicit` (0.13, 0.2 and 0.3 tried)."""
VECTOR = 1 / 200
"""The part of RATE for a bias, a scale or a table, which moves all outputs alike. No other was tried."""
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROUNDING = 1e-8
"""The least share of its diagonal that is added to a moment before it is inverted: gradients in float32 are
known to some 1e-7."""


def root(moment: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """R of a second moment R R^T, lower triangular, float64: R^-1 x has unit size in every direction.

    dtype  of the weights. Rounding a change D of theirs to it adds eps^2 sum_ij D_ij^2 E[x_j^2] to E|D x|^2; so eps^2
           of the diagonal is added to the moment, and ROUNDING at least: what no input uses does not matter
    """
    moment = moment.double()
    size = moment.diagonal().clamp(min=1e-30 * float(moment.trace()) + 1e-300)
    found: Tensor = torch.linalg.cholesky(moment + max(ROUNDING, torch.finfo(dtype).eps ** 2) * size.diag())
    return found


@dataclass(frozen=True)
class Metric:
    """How a matrix W (out, features) that reads the prompt moves, so that what must stay changes little.

    root   R of P + damping E = R R^T (features, features), float64: P = E[p p^T] over its inputs p for what must stay,
           E the same over those for the concept. With M = (R R^T)^-1, g M is the change that lowers the loss most, to
           first order, for a given change of the layer's outputs on those inputs
    usual  rms(W p)
    rate   the share of that by which an update moves them, unless it is given otherwise
    span   (k, features), inputs that ask for the concept: what a change is made of
    """

    root: Tensor
    usual: float
    rate: float
    span: Tensor


def metrics(
    denoiser: nn.Module,
    kept: Mapping[str, Tensor],
    concept: Mapping[str, Tensor],
    span: Mapping[str, Tensor],
    damping: float,
    rate: float,
) -> dict[str, Metric]:
    """The Metric of linear layers by name.

    kept, concept  the moments P and E of their inputs
    span           inputs (..., features); rows of zeros are padding
    """
    roots: dict[int, tuple[Tensor, Tensor]] = {}  # many layers read one tensor
    found = {}
    for layer, P in kept.items():
        if id(P) not in roots:
            dtype = denoiser.get_parameter(f"{layer}.weight").dtype
            dtype = dtype if dtype.is_floating_point else torch.float32
            roots[id(P)] = root(P), root(P + damping * concept[layer], dtype)
        inputs, both = roots[id(P)]
        y = written(denoiser, layer, inputs.T)
        usual = float(y.square().sum() / y.shape[-1]) ** 0.5
        tokens = span[layer].flatten(0, -2).double()
        found[layer] = Metric(both, usual, rate, tokens[tokens.any(-1)])
    return found


class MatrixAdam(torch.optim.Optimizer):
    """Adam with one second moment for a whole matrix (as in Adam-mini, arXiv:2406.16793).

    m <- 0.9 m + 0.1 d / sqrt(v),   v <- 0.99 v + 0.01 mean(|h|^2), without bias,   w <- w - lr m
    h = g R^-T and d = h R^-1 = g M where there is a metric, h = d = g elsewhere

    What it adds to a matrix lies in the span of the inputs it was trained on: others are hardly touched. Adam scales
    number by number, leaves that span, and costs other concepts more (docs/LOG.md). The mean is over rows where there
    is a metric M, since d / sqrt(v) then moves each row's output by one, and over numbers elsewhere.
    A tensor whose whole step lowers the loss by less than 1e-4 of what another's does moves less than its step: where
    attention has settled, a gradient is nothing but rounding.

    groups  each with `rate`, the steps' size, and `root`, R^-1, for matrices that have a metric; `lr` is rate times a
            schedule
    """

    def __init__(self, groups: Iterable[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0, "root": None})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        found = []
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                root = group["root"]  # two products with it are exact where one with M is not
                h = weight.grad if root is None else weight.grad @ root.T
                d = h if root is None else h @ root
                count = weight.numel() if root is None else len(weight)
                state = self.state[weight]
                if not state:
                    state["step"], state["square"] = torch.zeros(()), torch.zeros((), device=weight.device)
                state["step"] += 1
                state["square"].lerp_(h.square().sum() / count, 0.01)
                size = (float(state["square"]) / (1 - 0.99 ** state["step"].item())) ** 0.5
                found.append((group, weight, d, size, group["rate"] * count))
        best = max(size * reach for *_, size, reach in found)
        for group, weight, d, size, reach in found:
            state, d = self.state[weight], d / max(size, 1e-4 * best / reach, 1e-12)
            if "momentum" not in state:
                state["momentum"] = d.clone()
            weight.sub_(state["momentum"].lerp_(d, 0.1), alpha=group["lr"])


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "matrix-adam": MatrixAdam,
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
}


def fan_in(weight: Tensor) -> int:
    """How many inputs one output of a matrix or kernel sums over."""
    return weight[0].numel()


@torch.no_grad()
def reach(
    denoiser: nn.Module,
    weights: Mapping[str, nn.Parameter],
    call: Call,
    writes: Mapping[str, nn.Module] | None = None,
    summed: Callable[[Tensor], Tensor] = lambda x: x,
) -> dict[str, float]:
    """rms(y) / (fan_in rms(x)) of each matrix and kernel, VECTOR times what it moves of all else: its step at rate 1.

    call    rows that are learned, answered once: x is what a layer reads of them and y what it puts out
    writes  the layer whose output a tensor moves, where that is not its own
    summed  sums over all processes, each of which answers its share of the rows
    """
    owners = {id(value): (module, leaf) for module in denoiser.modules() for leaf, value in module._parameters.items()}
    places = {name: owners[id(weight)] for name, weight in weights.items()}
    written = {name: (writes or {}).get(name, module) for name, (module, _) in places.items()}
    layers = list(dict.fromkeys([*(module for module, _ in places.values()), *written.values()]))
    # Sum of squares and count, of what each layer reads and of what it puts out.
    totals = torch.zeros(len(layers), 2, 2, dtype=torch.double)

    def listen(k: int, args: Any, output: Any) -> None:
        for side, value in enumerate((args[0] if args else None, output[0] if isinstance(output, tuple) else output)):
            if isinstance(value, Tensor) and value.is_floating_point():
                totals[k, side] += torch.tensor([float(value.float().square().sum()), value.numel()])

    handles = [
        layer.register_forward_hook(lambda _, args, output, k=k: listen(k, args, output))
        for k, layer in enumerate(layers)
    ]
    try:
        replay(denoiser, call)
    finally:
        for handle in handles:
            handle.remove()
    totals = summed(totals)
    rms = (totals[..., 0] / totals[..., 1].clamp(min=1)).sqrt()

    def step(name: str, weight: nn.Parameter) -> float:
        module, leaf = places[name]
        x, y = float(rms[layers.index(module), 0]), float(rms[layers.index(written[name]), 1])
        if isinstance(module, LAYERS) and leaf == "weight":
            return (y / x if x and y else 1.0) / fan_in(weight)
        own = float(weight.float().square().mean().sqrt())
        return VECTOR * ((y if leaf == "bias" else own) or 1.0)

    return {name: step(name, weight) for name, weight in weights.items()}
