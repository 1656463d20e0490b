"""Where an erasing's time goes, and what recording side by side saves: `python -m benchmarks.recording`.

An erasing of the miniature by the defaults is profiled by CPU time: recording runs, hearing what words are read as,
fitting, and the rest. Counted with it: prompts that its text encoder computed, and calls of its autoencoder. Then runs
are recorded side by side and one by one, in turns and by the same process, so that a busy machine slows both.
"""

import cProfile
import pstats
import time
from typing import Any

import torch

import unsee
from unsee.denoising.record import Runs, record
from unsee.methods.hybrid import Hybrid

RUNS, STEPS, TURNS = 16, 8, 3


def shares(pipe: Any) -> dict[str, float]:
    texts: list[tuple[int, ...]] = []
    decoded: list[int] = []

    def read(module: object, args: tuple[torch.Tensor]) -> None:
        texts.extend(map(tuple, args[0].tolist()))

    handles = [
        pipe.text_encoder.get_input_embeddings().register_forward_pre_hook(read),
        pipe.vae.decoder.register_forward_pre_hook(lambda *_: decoded.append(1)),
    ]
    profile = cProfile.Profile(time.process_time)
    profile.runcall(Hybrid(), pipe, unsee.Concept("church"))
    for handle in handles:
        handle.remove()
    stats: Any = pstats.Stats(profile)
    seconds = {name: row[3] for (_, _, name), row in stats.stats.items() if name in ("record", "_overhear", "fit")}
    whole = stats.total_tt
    for name, part in (("recording runs", "record"), ("hearing words", "_overhear"), ("fitting", "fit")):
        print(f"{name:<16} {seconds[part]:6.1f} s of CPU, {100 * seconds[part] / whole:3.0f} %")
    print(f"{'the rest':<16} {whole - sum(seconds.values()):6.1f} s of CPU")
    print(f"the text encoder read {len(texts)} prompts, {len(set(texts))} of them distinct; decoded: {len(decoded)}")
    return {
        "recording's share": seconds["record"] / whole,
        "prompts read": len(texts) / len(set(texts)),
        "pictures decoded": len(decoded),
    }


def side_by_side(pipe: Any) -> dict[str, float]:
    best = {1: float("inf"), RUNS: float("inf")}
    for _ in range(TURNS):
        for batch, runs in ((1, 2), (RUNS, RUNS)):
            start = time.process_time()
            record(pipe, ["a church"] * runs, seeds=range(runs), runs=Runs(STEPS, batch=batch))
            best[batch] = min(best[batch], (time.process_time() - start) / runs)
    print(f"a run of {STEPS} steps: {best[1]:.2f} s of CPU alone, {best[RUNS]:.2f} s of {RUNS} side by side; ", end="")
    print(f"ratio {best[1] / best[RUNS]:.1f}")
    return {"runs side by side": best[1] / best[RUNS]}


def measures() -> dict[str, float]:
    pipe = unsee.load("mini")
    return shares(pipe) | side_by_side(pipe)


if __name__ == "__main__":
    measures()
