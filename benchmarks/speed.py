"""How much sooner an object of the miniature is gone than by the paper's loop: one table, measured in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.speed [--concept church] [--rates 1e-4 3e-4 ...] [--pictures 56] [--no-paper]

"Gone": the detector finds the object in at most 2 % of its pictures; "others": everything else loses at most one point.
Ours must do both. The paper's loop (preset "paper": before every update x_t is drawn anew from the model being edited;
one row an update) runs to its end at the paper's rate, and at every other rate until the object is gone: the soonest of
those where others stay is the loop at the rate that suits it. It is stopped at some updates to be looked at, and the
clock with it.

Seconds are those of the processor, not of the wall: with one thread, other work on the machine does not count.
"""

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from PIL.Image import Image

import unsee
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Shot, render, sampling_of
from unsee.evaluate.suites.summary import NAME as SUMMARY
from unsee.evaluate.suites.summary import REST
from unsee.methods import Method
from unsee.methods.esd import ESD
from unsee.methods.hybrid import Hybrid
from unsee.methods.uce import UCE

PAPER = ESD(**ESD.presets["paper"])
LOOKS = (20, 40, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000)
OURS: dict[str, Method] = {
    "hybrid": Hybrid(),
    "hybrid, 10 updates of 4 runs": Hybrid(updates=10, runs=4, keep_runs=4),
    "UCE": UCE(),
}


def share(context: EvalContext, question: Question, pictures: Mapping[Shot, Image]) -> float:
    """Of a question's pictures that show what it wants."""
    found = context.detector(str(question.detector))([pictures[shot] for shot in question.shots])
    return sum(a == b for a, b in zip(found, question.labels, strict=True)) / len(found)


class _Enough(Exception):
    """A fit has reached what it was run for."""


class Bench:
    """A pipeline, what is asked of it, and a clock that stands while it is asked."""

    def __init__(self, concept: str, pictures: int) -> None:
        self.pipe, self.concept = unsee.load("mini"), unsee.Concept(concept)
        self.context = EvalContext(self.pipe, detectors_of(self.pipe), {}, (self.concept,), pictures, 10_000)
        self.sampling = sampling_of(self.pipe)
        asked = suites.find(SUMMARY).ask(self.context)
        self.asked = (asked[0], next(question for question in asked if question.key == REST))
        self.before = self.pictures()
        self.since = 0.0

    def pictures(self) -> Any:
        return render(self.pipe, [shot for question in self.asked for shot in question.shots], self.sampling)

    def look(self, name: str, update: int) -> tuple[float, bool, bool]:
        """Prints a row; returns the seconds until now, whether the object is gone, and whether others stay."""
        stopped = time.process_time()
        after = self.pictures()
        shares = [[share(self.context, one, drawn) for drawn in (self.before, after)] for one in self.asked]
        gone, stay = shares[0][1] <= 0.02, shares[1][0] - shares[1][1] <= 0.01
        cells = [f"{100 * first:.1f} -> {100 * then:.1f}" for first, then in shares]
        seconds = stopped - self.since
        print(f"| {name} | {update} | {seconds:.1f} | {' | '.join(cells)} | ", end="")
        print(f"{'gone' if gone else ''}{', others stay' if gone and stay else ''} |", flush=True)
        self.since += time.process_time() - stopped
        return seconds, gone, stay

    def whole(self, name: str, method: Method) -> tuple[float, bool, bool]:
        self.since = time.process_time()
        edit = method(self.pipe, self.concept)
        with edit.applied(self.pipe):
            return self.look(name, getattr(method, "updates", 0))

    def loop(self, name: str, method: ESD | Hybrid, to_its_end: bool) -> tuple[float, bool, bool]:
        """Its last look, or the first at which the object is gone."""
        found = (0.0, False, False)

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal found
            if stage == "fit" and done in LOOKS:
                found = self.look(name, done)
                if found[1] and not to_its_end:
                    raise _Enough

        self.since = time.process_time()
        with suppress(_Enough):
            method(self.pipe, self.concept, progress=progress)
        return found


def _soonest(searched: Mapping[float, tuple[float, bool, bool]], *, others: bool) -> float:
    """Seconds until the object is gone at the rate that is soonest; infinite if it is at none, or others never stay."""
    return min((s for s, gone, stay in searched.values() if gone and (stay or not others)), default=math.inf)


def measures(
    concept: str = "church", rates: Sequence[float] = (3e-5, 1e-4, 3e-4, 1e-3), pictures: int = 56, paper: bool = True
) -> dict[str, float]:
    bench = Bench(concept, pictures)
    n = " and ".join(str(len(question.shots)) for question in bench.asked)
    print(f"{concept}, n = {n}, {torch.get_num_threads()} thread(s)\n")
    print(f"| method | updates | seconds | {concept} | everything else | |")
    print("|---|---|---|---|---|---|")
    ours = {name: bench.whole(name, method) for name, method in OURS.items()}
    end = bench.loop("paper's loop", PAPER, to_its_end=True)[0] if paper else None
    searched = {rate: bench.loop(f"paper's loop, lr {rate:g}", replace(PAPER, lr=rate), False) for rate in rates}
    found: dict[str, float] = {}
    for name, (seconds, gone, stay) in ours.items():
        if not (gone and stay):
            continue
        ratios = {
            "the paper's loop": end / seconds if end else math.nan,
            "the loop at its best rate": _soonest(searched, others=True) / seconds,
            "the loop, whatever it costs": _soonest(searched, others=False) / seconds,
        }
        print(f"{name}: {', '.join(f'{ratio:.0f} times sooner than {what}' for what, ratio in ratios.items())}")
        found = found or ratios
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="church")
    parser.add_argument("--rates", nargs="*", type=float, default=[3e-5, 1e-4, 3e-4, 1e-3])
    parser.add_argument("--pictures", type=int, default=56, help="of the concept; everything else has one an object")
    parser.add_argument("--no-paper", action="store_true", help="without the loop at the paper's own rate")
    options = parser.parse_args()
    measures(options.concept, options.rates, options.pictures, not options.no_paper)


if __name__ == "__main__":
    main()
