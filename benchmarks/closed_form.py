"""How long closed forms take: one concept on the miniature; and 100 names on a set of projections the size of SD 1.4's.

    python -m benchmarks.closed_form

The second has random numbers for weights and texts: it times the solving, without the text encoder and the denoiser,
which this machine need not have. Prints medians of five runs, in seconds by the clock and in seconds of the processor,
which other work on the machine does not stretch, how many threads computed them, and the most memory that the process
held before solving for the names and after it.

    python -m benchmarks.closed_form --whole

times all stages of 100 names on a pipeline of SD 1.4's sizes with random weights, once, but for the text encoder, whose
seconds are counted apart; it has one narrow layer here, as its output alone matters.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import unsee
from benchmarks.sized import build
from unsee.methods.balance import Balance
from unsee.methods.balance import solve as balanced
from unsee.methods.columns import CALLED, Columns, gram
from unsee.methods.oce import OCE
from unsee.methods.uce import UCE, solve
from unsee.models.words import words_of
from unsee.runs.erase import peak_memory

NAMES, FEATURES, WORDS = 100, 768, 416
"""Names, channels of the text, and known words where no card lists any: 32 neutral and 384 random ones."""
OUT = [320] * 5 + [640] * 5 + [1280] * 6
"""Outputs of the keys, and again of the values, of the 16 cross-attention layers of SD 1.4."""


def medians(job: Callable[[], object], runs: int = 5) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter(), time.process_time()
        job()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    clock, processor = (statistics.median(times) for times in zip(*seconds, strict=True))
    return clock, processor


def measures() -> dict[str, float]:
    torch.manual_seed(0)
    C, A, p = torch.randn(FEATURES, NAMES), torch.randn(FEATURES, NAMES), torch.randn(FEATURES, 5000)
    K, S = (A - C) @ C.T, C @ C.T + p @ p.T / p.shape[1]

    def many() -> None:
        _ = [solve(torch.randn(out, FEATURES), K, S, NAMES) for out in 2 * OUT]

    x = torch.randn(WORDS * len(CALLED), FEATURES).double()
    slack = torch.ones(len(x)).double()
    both = [torch.cat([part.T, part.T]).double() for part in (C, A)]
    moments = (2 * C @ C.T).double(), (p @ p.T / p.shape[1]).double()
    columns = Columns(("v",), *both, *moments, tuple(map(str, range(WORDS))), x, slack)

    def balance() -> None:
        layers = {str(k): torch.randn(out, FEATURES).double() for k, out in enumerate(OUT)}
        shift, read, *_ = balanced(columns, gram(layers, columns.P), Balance())
        for W0 in layers.values():
            _ = (W0 @ shift).float(), read.float()

    print(f"threads: {torch.get_num_threads()}")
    before = peak_memory() or 0
    found = {f"UCE, {NAMES} names": medians(many), f"balance, {NAMES} names": medians(balance)}
    after = peak_memory() or 0
    print(f"peak memory: {before / 1e9:.2f} GB before solving for {NAMES} names, {after / 1e9:.2f} GB after")
    pipe = unsee.load("mini")
    found |= {
        "UCE": medians(lambda: UCE()(pipe, unsee.Concept("church"))),
        "balance": medians(lambda: Balance()(pipe, unsee.Concept("church"))),
    }
    for name, (clock, processor) in found.items():
        print(f"{name}: {clock:.2f} s by the clock, {processor:.2f} s of the processor")
    return {name: clock for name, (clock, _) in found.items()}


def whole() -> None:
    """All stages of 100 names, without what the text encoder takes, in seconds of one core."""
    torch.set_num_threads(1)
    pipe: Any = build("SD 1.4", torch.device("cpu"), toy=False).pipe
    config = pipe.text_encoder.config
    config.num_hidden_layers, config.intermediate_size = 1, 8
    pipe.text_encoder = type(pipe.text_encoder)(config).eval().requires_grad_(False)
    encodes, spent = pipe.text_encoder.forward, [0.0, 0.0]

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        found = encodes(*args, **kwargs)
        spent[0] += time.process_time() - start
        spent[1] += len(kwargs.get("input_ids", args[0] if args else ()))
        return found

    pipe.text_encoder.forward = timed
    names = [unsee.Concept(word) for word in list(words_of(unsee.load("mini"))["objects"])[:NAMES]]
    ways: dict[str, Any] = {f"{kind.__name__}, preset paper": kind(**kind.presets["paper"]) for kind in (UCE, OCE)}
    ways["balance"] = Balance()
    for name, method in ways.items():
        spent[:] = 0.0, 0.0
        start = time.process_time()
        edit = method(pipe, names)
        seconds = time.process_time() - start
        what = f"{name}, {len(names)} names, {len(edit.deltas)} matrices"
        beside = f"the text encoder, which computed {spent[1]:.0f} prompts in {spent[0]:.1f} s"
        print(f"{what}: {seconds - spent[0]:.1f} s of one core without {beside}", flush=True)


if __name__ == "__main__":
    whole() if "--whole" in sys.argv else measures()
