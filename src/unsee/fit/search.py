"""Short searches for what brings a concept back: a text that is learned, or weights that are.

Attacks are made of them, and so are the rounds of a method that learns from what an attack found.

    min_v E |e_theta(x_t, v) - answer|^2        v being new tokens, or all that the denoiser reads of a prompt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unsee.denoising.calls import Call
from unsee.denoising.conditioned import asked, text_of
from unsee.denoising.reader import reader
from unsee.denoising.rows import stack
from unsee.errors import InputError
from unsee.fit.loop import flushing
from unsee.fit.optimizers import reach
from unsee.models.borrow import borrowed
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline

ROWS = 4
"""Rows of one update."""
Rows = Callable[[torch.Generator], Call]
"""ROWS rows to learn from: calls whose output is what the denoiser should answer."""
TOKEN_RATE = 0.5
"""Size of an update, as a share of the standard deviation of the table of tokens."""
SOFT_RATE = 0.03
"""Size of an update, as a share of the text's root mean square."""
TUNING_RATE = 0.5
"""Size of an update of weights: how far all tensors together move their layers' outputs, as in fit.optimizers. Tuned on
the miniature, where 0.13 for each tensor alone destroys the base with "all"."""


@dataclass(frozen=True)
class Learnable:
    """A text that can be learned.

    prompt      whose place in a run it takes
    parameters  the numbers that are learned, in place
    text        one row, made of them; see denoising.conditioned.text_of
    rate        of Adam
    """

    prompt: str
    parameters: Sequence[Tensor]
    text: Callable[[], Call]
    rate: float

    def fixed(self) -> Call:
        """The text as it is now."""
        with torch.no_grad():
            now = self.text()
        return replace(now, arguments={k: x.clone() if isinstance(x, Tensor) else x for k, x in now.arguments.items()})


def soft(pipe: Pipeline, prompt: str) -> Learnable:
    """All that the denoiser reads of a prompt, at all of its tokens. Raises InputError if it reads no numbers."""
    text = text_of(pipe, prompt)
    numbers = [name for name, x in text.arguments.items() if isinstance(x, Tensor) and x.is_floating_point()]
    if not numbers:
        raise InputError("this pipeline's denoiser reads its text from no tensor, so no text can be learned")
    values = {name: text.arguments[name].detach().clone().float() for name in numbers}
    size = float(max(values.values(), key=Tensor.numel).square().mean().sqrt())

    def made() -> Call:
        new = {name: value.to(text.arguments[name]) for name, value in values.items()}
        return replace(text, arguments=text.arguments | new)

    return Learnable(prompt, list(values.values()), made, SOFT_RATE * size)


def tokens(pipe: Pipeline, template: str, k: int, rng: torch.Generator) -> Learnable:
    """Vectors of k new tokens in the place of a template's {}, from the table's mean with noise.

    Raises Unsupported unless the denoiser reads what one text encoder answers, and nothing else of the prompt.
    """
    open = reader(pipe, template, k)
    deviation = float(open.table.float().std())
    mean = open.table[open.allowed].float().mean(0)
    noise = torch.randn(1, k, len(mean), generator=rng).to(mean)
    vectors = (mean + deviation * noise).detach()
    return Learnable(open.prompt.format("x"), [vectors], lambda: open.vectors(vectors), TOKEN_RATE * deviation)


def any_of(calls: Sequence[Call]) -> Rows:
    """Rows at random of recorded calls of one row."""
    return lambda rng: stack([calls[k] for k in torch.randint(len(calls), (ROWS,), generator=rng).tolist()])


def learn(pipe: Pipeline, what: Learnable, rows: Rows, at: Sequence[int], rng: torch.Generator) -> Iterator[int]:
    """Adam on a text at a constant rate; yields how many updates are made, at some of them."""
    _, net = denoiser(pipe)
    for one in what.parameters:
        one.requires_grad_(True)

    def answer(some: Call) -> Tensor:
        with borrowed(pipe):
            return asked(net, what.text(), some)

    yield from descend(torch.optim.Adam(list(what.parameters), lr=what.rate), answer, rows, at, rng)


def groups(net: nn.Module, weights: Mapping[str, nn.Parameter], call: Call) -> list[dict[str, object]]:
    """Adam's rate for each weight: the same move of what its layer puts out."""
    with torch.no_grad():
        far = reach(net, weights, call)
    rate = TUNING_RATE / len(weights) ** 0.5
    return [{"params": [weight], "lr": rate * far[name]} for name, weight in weights.items()]


def descend(
    adam: torch.optim.Optimizer,
    answer: Callable[[Call], Tensor],
    rows: Rows,
    at: Sequence[int],
    rng: torch.Generator,
) -> Iterator[int]:
    """Updates that bring answers (B, ...) to rows nearer to what they should be; yields how many are made, at some."""
    for update in range(1, at[-1] + 1):
        with flushing(), torch.enable_grad():
            some = rows(rng)
            loss = (answer(some) - some.output).float().square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()
        if update in at:
            yield update
