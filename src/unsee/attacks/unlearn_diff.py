r"""UnlearnDiffAtk: relaxed one-hot tokens before the name, learned from one picture, time by time.

    min_P |e_theta(x_t, [P E; name]) - answer|^2,    P (k, vocabulary) on the simplex, E the table of tokens

(Zhang et al., ECCV 2024, arXiv:2310.11868; MIT.) The forward pass reads one token for each row of P, drawn from it; the
gradient is given to P. After each step of Adam, rows are projected onto the simplex. Times go from noisy to clean.
Departures: the authors take 50 times with 40 steps each and draw after each time until a detector says success; here
one prompt is drawn after each look, no detector stops the search, and the noise is drawn once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import learn
from unsee.denoising.calls import Call
from unsee.denoising.conditioned import condition
from unsee.denoising.noised import clock, encoded, noised, times
from unsee.denoising.reader import reader
from unsee.fit.search import ROWS, Rows

K = 3
RATE = 0.01


def simplex(rows: Tensor) -> Tensor:
    """The nearest point of the simplex to each row: max(row - a, 0) with the a for which it sums to one.

    By sorting (Duchi et al., ICML 2008); the authors bisect.
    """
    high = rows.sort(-1, descending=True).values
    count = torch.arange(1, rows.shape[-1] + 1).to(rows)
    a = (high.cumsum(-1) - 1) / count
    last = (high > a).sum(-1, keepdim=True) - 1
    return (rows - a.gather(-1, last)).clamp(min=0)


def in_order(context: AttackContext, updates: int) -> Rows:
    """Rows of one picture with one noise, at times that fall from the noisiest to the cleanest."""
    pipe = context.pipe
    z, text, time = encoded(pipe, context.pictures(1)), condition(pipe, ""), clock(pipe)
    e = torch.randn(z.shape, generator=torch.Generator().manual_seed(context.seed)).to(z)
    order, done = times(pipe, updates).flip(0), iter(range(updates))

    def rows(_: torch.Generator) -> Call:
        middle = order[next(done)]
        t = (middle + torch.linspace(-0.5, 0.5, ROWS) * float(order[0] - order[-1]) / updates).clamp(0, float(order[0]))
        x, answer = noised(pipe, z.expand(ROWS, *z.shape[1:]), t.to(z.device), e.expand(ROWS, *z.shape[1:]))
        return time.at(text, x, t, answer)

    return rows


def search(context: AttackContext) -> Iterator[Found]:
    text, rng = reader(context.pipe, f"{{}} {context.prompt}", K), torch.Generator().manual_seed(context.seed)
    table = text.table[text.allowed].float()
    tokens = text.allowed.nonzero()[:, 0]
    P = torch.rand(K, len(table), generator=rng).to(table)
    P = simplex(P / P.sum(-1, keepdim=True))

    def read() -> Call:
        with torch.no_grad():
            P.copy_(simplex(P))
            drawn = torch.multinomial(P.cpu(), 1, generator=rng)[:, 0]
        hard = torch.nn.functional.one_hot(drawn, len(table)).to(P)
        return text.vectors(((hard + P - P.detach()) @ table)[None])

    updates = max(1, context.passes // ROWS)
    for update in learn(context, [P], read, in_order(context, updates), RATE, [updates]):
        prompt = text.words(tokens[P.argmax(-1)])
        yield Found(f"{K} tokens, {update * ROWS} passes", (prompt,), repr(prompt))


ATTACK = Attack(
    "unlearn-diff",
    "discrete text",
    frozenset({"name", "text encoder", "weights", "pictures"}),
    "Tokens before the name, relaxed and projected onto the simplex, learned from one picture (UnlearnDiffAtk).",
    search,
    searches=(1, 1),
)
