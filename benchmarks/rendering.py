"""How much faster pictures are drawn many at a time than one by one: `python -m benchmarks.rendering`.

Both are drawn in turns and by the same process, so a busy machine slows both. CPU time is told beside the clock's.
"""

from __future__ import annotations

import time

import unsee
from unsee.evaluate.render import Sampling, Shot, render

BATCH, ONES, STEPS, TURNS = 32, 4, 10, 3


def measures() -> dict[str, float]:
    pipe = unsee.load("mini")
    sampling = Sampling(STEPS, 4.0)
    shots = [Shot("a church", seed) for seed in range(BATCH)]
    render(pipe, shots[:2], Sampling(1, 4.0), batch=2)  # the first drawing is slower
    each: dict[int, list[tuple[float, float]]] = {1: [], BATCH: []}
    for _ in range(TURNS):
        for batch, some in ((1, shots[:ONES]), (BATCH, shots)):
            start = time.perf_counter(), time.process_time()
            render(pipe, some, sampling, batch=batch)
            end = time.perf_counter(), time.process_time()
            each[batch].append(((end[0] - start[0]) / len(some), (end[1] - start[1]) / len(some)))
    best = {batch: tuple(map(min, zip(*times, strict=True))) for batch, times in each.items()}
    for batch, (clock, cpu) in best.items():
        print(f"{batch:>3} at a time: {1000 * clock:7.1f} ms a picture, {1000 * cpu:7.1f} ms of CPU, {STEPS} steps")
    clock, cpu = (one / many for one, many in zip(best[1], best[BATCH], strict=True))
    print(f"ratio: {clock:.2f} by the clock, {cpu:.2f} by CPU time")
    return {"pictures side by side": cpu}


if __name__ == "__main__":
    measures()
