"""What a twin draws, a line of twins/README.md: python -m benchmarks.twins church watermark [--each 4] [-n 96]

All other objects by their plain names, `--each` pictures of each; and the concept, `n` pictures a row, of the bundled
miniature and of the twin, on equal prompts and seeds. A watermark is looked for on animals and food, where the
miniature's training pictures had it, unasked and asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import unsee
from unsee.evaluate.detectors import Detector, detectors_of
from unsee.evaluate.render import Shot, render, sampling_of
from unsee.evaluate.statistics import Score, rate
from unsee.evaluate.words import article
from unsee.models.words import words_of
from unsee.runs.controls import put_on, read_twin


def share(pipe: Any, detector: Detector, pairs: Sequence[tuple[str, str]], n: int) -> Score:
    """The share of n pictures that show what is wanted; pairs of a prompt and that, taken in turn, seeds from 0."""
    some = [pairs[k % len(pairs)] for k in range(n)]
    shots = [Shot(prompt, k) for k, (prompt, _) in enumerate(some)]
    drawn = render(pipe, shots, sampling_of(pipe))
    found = detector([drawn[shot] for shot in shots])
    return rate([label == wanted for label, (_, wanted) in zip(found, some, strict=True)])


def rows(pipe: Any, concept: str, each: int, n: int) -> dict[str, Score]:
    """What the denoiser draws as it is now."""
    detectors, words = detectors_of(pipe), words_of(pipe)
    objects, named = detectors["objects"], list(words["objects"])
    assert isinstance(objects, Detector)
    others = [(article(name), name) for name in named if name != concept]
    found = {"other objects": share(pipe, objects, others, each * len(others))}
    if concept in named:
        pairs = {f"a {concept}": [(f"a {concept}", concept)], "in styles": [
            (f"{concept} in {style} style", concept) for style in words["styles"]
        ]}  # fmt: skip
        return found | {name: share(pipe, objects, some, n) for name, some in pairs.items()}
    thing = detectors[concept]
    assert isinstance(thing, Detector)
    label = thing.labels[-1]
    where = [name for domain in words[concept]["domains"] for name in words["groups"][domain]]
    return found | {
        "unasked": share(pipe, thing, [(article(name), label) for name in where], n),
        "asked for": share(pipe, thing, [(f"{article(name)} with a {concept}", label) for name in where], n),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="folders of twins/")
    parser.add_argument("--each", type=int, default=4, help="pictures of each other object")
    parser.add_argument("-n", type=int, default=96, help="pictures for each row of the concept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = unsee.load("mini")
    for name in options.names:
        twin = put_on(pipe, read_twin(Path(name), pipe))
        for column, context in (("the miniature", nullcontext()), (f"twin {name}", twin)):
            with context:
                for row, score in rows(pipe, name, options.each, options.n).items():
                    between = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
                    print(f"{column}, {row}: {100 * score.value:.1f} % ({between}, n {score.n})", flush=True)


if __name__ == "__main__":
    main()
