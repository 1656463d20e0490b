r"""LoRA: ESD's targets learned by low-rank adapters (LECO), so that an edit is small and its strength can be chosen.

LECO (p1atdev, 2023, github.com/p1atdev/LECO) after ESD (arXiv:2303.07345) and LoRA (Hu et al., arXiv:2106.09685):

    W  =  W0 + B A,    A (rank, in) random, B (out, rank) zero at first; A and B learn, W0 does not

on the rows and loss of hybrid.py. With q what the frozen model answers where the concept is asked for (in `from_`, if
that is given), c its answer to the concept's name, u to none (or to the anchor), and adapters off for all three:

    erase      u - eta (c - u)           ESD's target, eq. 6; with from_: q - eta (c - u)
    enhance    q + eta (c - u)           the same step with its sign turned
    swap       q - (c - u)               u is the anchor, which swap needs: without from_ just what the anchor answers

A convolution is adapted by a convolution of its own kernel to `rank` channels and one of 1 x 1 from there, so that its
product too is a matrix of rank `rank`: (out, rank) @ (rank, in * height * width).

Departures from LECO
- LECO enhances from u: u + eta (c - u), where eta = 1 is no change. Here it starts at q.
- alpha = rank, so that an adapter's scale is 1: other tools lose an alpha of another size. LECO's is 1 at rank 4.
- Its filter of layers looks at the names of containers, and so finds none for cross-attention; `select` is ESD's.
- Where a layer reads the prompt, A starts in the metric of other words' texts and its gradient is taken there, as in
  hybrid.py, so that the adapter sees what only the concept says (`preserve_words = 0` leaves it out).
- The updates are hybrid's: few, of many rows, on runs of the frozen model. LECO draws x_t with the adapter on before
  each of 500 updates of AdamW: `rerecord = 1`.
`LoRA.presets["leco"]` takes back all but the first three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from unsee.concepts import Concept, concepts_of
from unsee.edits.card import Card
from unsee.edits.edit import Edit, LowRank
from unsee.errors import InputError, one_line
from unsee.fit.loop import Learned
from unsee.fit.optimizers import Metric
from unsee.fit.resume import ResumeFile
from unsee.methods.esd import ESD
from unsee.methods.hybrid import Recipe
from unsee.methods.learners import Learner
from unsee.methods.presets import PRESETS, Count
from unsee.methods.settings import Settings
from unsee.methods.targets import esd_target, steer
from unsee.methods.two_denoisers import each_denoiser
from unsee.models.model import Pipeline
from unsee.progress import Progress, no_progress

ADAPTER = "unsee"


@one_line
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LoRA(Settings):
    """Erase, enhance or swap concepts with low-rank adapters; the formula is at the top of its file.

    rank    rank of each adapter
    action  erase, enhance, or swap, which needs the concept's anchor
    lr      share by which an update moves the output of either factor; None: hybrid's, by where the fit starts

    All other settings are hybrid's. The defaults were tried on the miniature and on nothing larger. Linear
    and convolution layers of the selection are adapted.

        >>> edit = unsee.LoRA(rank=2, updates=4)(pipe, "church")
        >>> with edit.applied(pipe, scale=0.5): pictures = unsee.generate(pipe, "a church")
    """

    rank: Count = 4
    action: Literal["erase", "enhance", "swap"] = "erase"

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **PRESETS,
        # Its layers are what its filter finds: all of the blocks in which attention sits. All else is ESD's "paper".
        "leco": {
            **ESD.presets["paper"], "select": r"\battentions\.", "updates": 500, "lr": 1e-4, "start": "base",
            "templates": ("{}",), "keep_weight": 0, "context_words": 0, "preserve_words": 0, "held_out": 0,
        },
    }  # fmt: skip

    def weights(self, net: nn.Module) -> dict[str, nn.Parameter]:
        """The matrices and kernels of a selection. Raises InputError if there are none, or if adapters are on them."""
        if any(isinstance(module, BaseTunerLayer) for module in net.modules()):
            raise InputError(f"{type(net).__name__} holds adapters already: fuse or unload them first")
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        layers = {
            f"{name}.weight"
            for name, module in net.named_modules()
            if isinstance(module, kinds) and getattr(module, "groups", 1) == 1
        }
        chosen = {name: weight for name, weight in super().weights(net).items() if name in layers}
        if not chosen:
            raise InputError(f"selection {self.select!r} holds no linear or convolution layer to adapt")
        return chosen

    def solved(self, net: nn.Module, concepts: Sequence[Concept]) -> list[str]:
        """As hybrid's; `enhance` has no closed form."""
        return [] if self.action == "enhance" else super().solved(net, concepts)

    def learned(self, net: nn.Module) -> int:
        """How many numbers a fit of a denoiser learns."""
        weights = self.weights(net).values()
        return sum(self.rank * (weight.shape[0] + weight[0].numel()) for weight in weights)

    @each_denoiser
    def __call__(
        self,
        pipe: Pipeline,
        concepts: str | Concept | Sequence[str | Concept],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
        resume: ResumeFile | None = None,
    ) -> Edit:
        concepts = concepts_of(concepts)
        for concept in concepts:
            if self.action == "swap" and not concept.anchor:
                raise InputError(f"to swap {concept.erase!r}, say what takes its place: give an anchor")
        recipe = Recipe("lora", self, partial(adapters, self.rank), partial(target, self.action, self.eta))
        return recipe.edit(pipe, concepts, seed, progress, resume)


def target(action: str, eta: float, concept: Concept, asked: Tensor, c: Tensor, u: Tensor) -> Tensor:
    """The target of an action, by the table at the top of this file."""
    match action:
        case "enhance":
            return steer(asked, c, u, -eta)
        case "swap":
            return steer(asked, c, u, 1)
    return esd_target(eta, concept, asked, c, u)


@contextmanager
def adapters(
    rank: int,
    net: nn.Module,
    weights: dict[str, nn.Parameter],
    metric: dict[str, Metric],
    start: dict[str, LowRank],
    seed: int,
) -> Iterator[Learner]:
    """Learn adapters on the layers of `weights`; afterwards the denoiser is what it was."""
    with _adapters(net, [name.removesuffix(".weight") for name in weights], rank, seed) as layers:
        down = {name: layers[name.removesuffix(".weight")].lora_A[ADAPTER].weight for name in weights}
        up = {name: layers[name.removesuffix(".weight")].lora_B[ADAPTER].weight for name in weights}
        for name in weights:
            if name in start or name in metric:
                _start(up[name], down[name], start.get(name), metric.get(name), seed)

        @contextmanager
        def teacher() -> Iterator[None]:
            for layer in layers.values():
                layer.enable_adapters(False)
            try:
                yield
            finally:
                for layer in layers.values():
                    layer.enable_adapters(True)

        def edit(key: str, card: Card) -> Edit:
            factors = {name: (up[name].detach().float(), down[name].detach().float()) for name in weights}
            return Edit({f"{key}.{n}": LowRank(b.flatten(1), a.flatten(1)) for n, (b, a) in factors.items()}, card)

        # The rows of A put out numbers of unit size on what M weighs, so B reads those.
        steps = {f"{name}.down": replace(m, usual=1.0) for name, m in metric.items()}
        steps |= {f"{n}.up": replace(m, root=torch.eye(up[n].shape[1]).double()) for n, m in metric.items()}
        factors = {f"{n}.up": up[n] for n in weights} | {f"{n}.down": down[n] for n in weights}
        writes = {f"{n}.up": layers[n.removesuffix(".weight")] for n in weights}
        yield Learner(Learned(factors, steps, writes), teacher, edit)


@torch.no_grad()
def _start(up: Tensor, down: Tensor, delta: LowRank | None, metric: Metric | None, seed: int) -> None:
    """Let B A start at the nearest to `delta` that its rank can be, in the metric; what rank is left, at B = 0.

    With the metric's moment R R^T, what must stay has unit size in R^-1 x, and singular values tell the nearest there.
    The rows of A that are left are random sums of inputs that ask for the concept: these too are the same in any basis.
    """
    R = metric.root if metric else torch.eye(down.shape[1], dtype=torch.double)
    rows = torch.zeros(0, len(R), dtype=torch.double)
    if delta:
        u, s, v = LowRank(delta.up.double(), delta.down.double() @ R).svd()
        rank = min(len(down), len(s))
        up[:, :rank], rows = u[:, :rank] * s[:rank], v[:rank]
    if metric:
        rng = torch.Generator().manual_seed(seed)
        mixed = torch.randn(len(down) - len(rows), len(metric.span), generator=rng, dtype=torch.double) @ metric.span
        rows = torch.cat([rows, torch.linalg.solve_triangular(R, mixed.T, upper=False).T])
        q, r = torch.linalg.qr(rows.T)
        rows = (q * r.diagonal().sign()).T
    down[: len(rows)] = torch.linalg.solve_triangular(R, rows, upper=False, left=False)


@contextmanager
def _adapters(net: nn.Module, names: Sequence[str], rank: int, seed: int) -> Iterator[dict[str, Any]]:
    """Within the context the layers have adapters, and are yielded by name; afterwards they are what they were."""
    before = {name: net.get_submodule(name) for name in names}
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=pattern)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            LoraModel(net, config, ADAPTER)
        yield {name: net.get_submodule(name) for name in names}
    finally:
        for name, module in before.items():
            net.set_submodule(name, module)
        if hasattr(net, "peft_config"):
            del net.peft_config
