"""What a long benchmark says while it runs, on stderr."""

from __future__ import annotations

import sys
import time

from unsee.models.distributed import processes
from unsee.progress import Progress


def say(text: str) -> None:
    if processes().is_main_process:
        print(text, file=sys.stderr, flush=True)


def progress(title: str, every: float = 60.0) -> Progress:
    """Says now and then how far drawing or a fit is, and how long it will take at the speed so far."""
    start: list[tuple[float, int]] = []
    last = time.perf_counter()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if not start or done < start[0][1]:
            start[:] = [(now, done)]  # what was there already tells nothing of the speed
        if now - last < every or stage not in ("render", "fit") or done == start[0][1]:
            return
        last = now
        left = (now - start[0][0]) / (done - start[0][1]) * (total - done) / 60
        say(f"{title}: {stage}, {done} of {total}, {left:.0f} minutes left at most")

    return show
