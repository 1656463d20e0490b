"""What erasing costs, as one table: every benchmark of time and memory here, `python -m benchmarks [--only NAME ...]`.

Ratios are of one run each; the table has their medians over `--runs` runs, of long benchmarks over one. What each of
them prints by itself comes before. Rates and pictures are in docs/methods.md.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable

from benchmarks import closed_form, large, memory, recording, rendering, speed

BENCHMARKS: dict[str, tuple[Callable[[], dict[str, float]], bool]] = {
    "recording": (recording.measures, False),
    "rendering": (rendering.measures, False),
    "memory": (memory.measures, False),
    "closed_form": (closed_form.measures, False),
    "large": (large.measures, True),
    "speed": (speed.measures, True),
}
"""What measures, and whether it takes long: twenty minutes and an hour."""

GOALS = {
    "the paper's loop": ("church gone by the default: times sooner than the paper's loop ends", ">= 100"),
    "the loop at its best rate": ("times sooner than the loop at the rate that suits it, others staying", ">= 25"),
    "the loop, whatever it costs": ("times sooner than the loop at its soonest rate, whatever others lose", ""),
    "an update, esd": ("an update on a U-Net of SD 1.4's size, recording included, over a bare one", "<= 1.5"),
    "an update, esd, checkpointing": ("the same, with activation checkpointing", ""),
    "memory, esd": ("peak memory of ESD-x on it, over inference", "<= 1.3"),
    "memory, esd, checkpointing": ("the same, with activation checkpointing", "<= 1.3"),
    "memory on the miniature": ("peak memory on the miniature, over inference", ""),
    "recording's share": ("recording's share of the time", ""),
    "runs side by side": ("runs recorded side by side, times faster than one by one", ">= 2"),
    "prompts read": ("prompts that the text encoder reads, for one distinct prompt", "1"),
    "pictures decoded": ("pictures decoded while erasing", "0"),
    "pictures side by side": ("pictures drawn side by side, times faster than one by one", ">= 2"),
    "UCE": ("UCE of one concept on the miniature, seconds", "< 1"),
    "UCE, 100 names": ("UCE of 100 names on SD 1.4's projections, seconds", "<= 5"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    found = defaultdict(list)
    for name in options.only:
        measures, long = BENCHMARKS[name]
        for run in range(1 if long else options.runs):
            print(f"\n{name}, run {run + 1}", flush=True)
            for key, value in measures().items():
                found[key].append(value)
    print("\n| measure | must reach | median | runs |\n|---|---|---:|---:|")
    for key, (text, goal) in GOALS.items():
        if key in found:
            print(f"| {text} | {goal} | {statistics.median(found[key]):.3g} | {len(found[key])} |")


if __name__ == "__main__":
    main()
