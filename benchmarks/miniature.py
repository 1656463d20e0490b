"""What erasing an object of the miniature reaches, and what each setting buys: one table, measured in one run.

    python -m benchmarks.miniature [--concept church] [--each 8] [--paper] [--also "method: lora, rank: 8" ...]

Every object that no setting names is drawn `each` times before and after, so that the worst loss of one object shows.
Prints a Markdown table; rates in per cent with n; seconds until the edit exists, on this machine.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
import yaml

import unsee
from benchmarks.speed import share
from unsee import methods
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
from unsee.methods.lora import LoRA
from unsee.methods.uce import UCE

VARIANTS: dict[str, Method] = {
    "default": Hybrid(),
    "closed form alone (UCE)": UCE(),
    "from the base": Hybrid(start="base"),
    "nothing kept (keep_weight 0)": Hybrid(keep_weight=0),
    "no words spared (spared 0)": Hybrid(preserve_words=0),
    "neither, from the base, Adam": Hybrid(keep_weight=0, preserve_words=0, start="base", optimizer="adam"),
    "eta 3": Hybrid(eta=3),
    "cross (ESD-x)": Hybrid(select="cross"),
    "noncross (ESD-u), 100 updates": Hybrid(select="noncross", updates=100),
    "LoRA": LoRA(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="church")
    parser.add_argument("--pictures", type=int, default=112, help="for the concept and the styles")
    parser.add_argument("--each", type=int, default=8, help="pictures of each other object")
    parser.add_argument("--paper", action="store_true", help="also the paper's own loop; minutes")
    parser.add_argument("--only", nargs="*", help="variants by name")
    parser.add_argument("--also", nargs="*", default=[], help="rows of your own, each a list of settings")
    options = parser.parse_args()

    pipe = unsee.load("mini")
    sampling = sampling_of(pipe)
    concept = unsee.Concept(options.concept)
    kept = Hybrid(updates=1, runs=1, keep_runs=1)(pipe, concept).card.kept  # what the default, at this seed, is shown
    context = EvalContext(pipe, detectors_of(pipe), {}, (concept,), options.pictures, 10_000, kept=kept)
    asked = [
        question if question.key != REST else every(question, options.each)
        for question in suites.find(SUMMARY).ask(context)
    ]
    shots = [shot for question in asked for shot in question.shots]
    before = render(pipe, shots, sampling)
    variants = VARIANTS | ({"paper": ESD(**ESD.presets["paper"])} if options.paper else {})
    own = {text: configured(**yaml.safe_load(f"{{{text}}}")) for text in options.also}
    print(
        f"{options.concept} | seconds | "
        + " | ".join(f"{q.name} (n = {len(q.shots)})" for q in asked)
        + " | worst object"
    )
    print("--- | " * (len(asked) + 2) + "---")
    chosen = {name: method for name, method in variants.items() if not options.only or name in options.only}
    for name, method in (chosen | own).items():
        start = time.perf_counter()
        edit = method(pipe, concept)
        seconds = time.perf_counter() - start
        with edit.applied(pipe):
            after = render(pipe, shots, sampling)
        counted = [question for question in asked if question.detector]
        shares = [[100 * share(context, question, drawn) for drawn in (before, after)] for question in counted]
        cells = [f"{first:.1f} -> {then:.1f}" for first, then in shares]
        print(f"{name} | {seconds:.1f} | {' | '.join(cells)} | {worst(asked, before, after, context)}", flush=True)


def configured(method: str = "hybrid", **settings: Any) -> Method:
    return methods.find(method)(**settings)


def every(question: Question, each: int) -> Question:
    """A question about many objects, with `each` pictures of every one."""
    pairs = list(dict.fromkeys(zip((shot.prompt for shot in question.shots), question.labels, strict=True))) * each
    shots = tuple(Shot(prompt, 20_000 + k) for k, (prompt, _) in enumerate(pairs))
    return replace(question, shots=shots, labels=tuple(label for _, label in pairs))


def worst(asked: list[Question], before: Any, after: Any, context: EvalContext) -> str:
    """The object that loses most, with the share of its pictures that show it before and after."""
    (question,) = [question for question in asked if question.key == REST]
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    detector = context.detector("objects")
    found = zip(*(detector([drawn[shot] for shot in question.shots]) for drawn in (before, after)), strict=True)
    for label, (first, then) in zip(question.labels, found, strict=True):
        hits[label].append((first == label, then == label))
    loss = {label: sum(first - then for first, then in seen) / len(seen) for label, seen in hits.items()}
    label = max(loss, key=lambda name: loss[name])
    first, then = (sum(pair[k] for pair in hits[label]) / len(hits[label]) for k in (0, 1))
    return f"{label} {100 * first:.0f} -> {100 * then:.0f}"


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
