"""The goals of both models: `python -m recipes.flow goals` writes goals.md, and a contact sheet of each.

The stock pipeline draws from the committed weights, at the steps and guidance of each card. Numbers are kept in
goals.json beside the weights, suite by suite, under a hash of the weights and of the config's section.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from recipes.mini import card as mini_card
from recipes.mini import measure as suites
from recipes.mini.measure import Detector, Number, rate
from recipes.mini.pictures import Bytes
from recipes.mini.words import Words

from . import measure
from .measure import Model

GOALS = {
    "mini-flow": {
        "top-1": ">= 98", "worst": ">= 85", "styles": ">= 92",
        "unseen": ">= 60", "memorised": ">= 8", "seconds": "<= 10",
    },
    "mini-flow-turbo": {"top-1": ">= 93"},
}  # fmt: skip
"""By model: what is asked of it, in the units of the numbers below. What has no goal is measured all the same."""

TIMED = {"mini-flow": 20, "mini-flow-turbo": 4}
"""Steps of the 16 pictures whose time is taken."""

Draw = Callable[..., Any]
"""measure.caller's"""


def objects(draw: Draw, detector: Detector, w: Words, seeds: int, model: Model) -> list[Number]:
    top, worst, _ = suites.objects(draw, detector, w, seeds, model.steps)
    of = GOALS[model.name]
    return [replace(top, goal=of.get("top-1", "")), replace(worst, goal=of.get("worst", ""))]


def styles(draw: Draw, detectors: Mapping[str, Detector], w: Words, seeds: int, model: Model) -> list[Number]:
    style, both = suites.styles(draw, detectors["objects"], detectors["styles"], w, seeds, model.steps)
    return [replace(style, goal=GOALS[model.name].get("styles", "")), replace(both, goal="")]


def unseen(draw: Draw, detector: Detector, w: Words, seeds: int, model: Model) -> list[Number]:
    """Descriptions that are in no training caption."""
    jobs = [job for job in measure.held_out(w) for _ in range(seeds)]
    x = suites.render(draw, [said for _, said in jobs], "unseen descriptions", model.steps, seed=40_000)
    right = (detector(x) == np.array([o for o, _ in jobs])).reshape(-1, seeds)
    note = f"of {len(right)} descriptions, {(right.mean(1) >= 0.5).sum()} are right in half of {seeds} pictures or more"
    return [rate("unseen descriptions, `a house of worship`", right.ravel(), GOALS[model.name].get("unseen", ""), note)]


def watermark(draw: Draw, detector: Detector, w: Words, seeds: int, model: Model) -> list[Number]:
    return [replace(n, goal="") for n in suites.watermark(draw, detector, w, seeds, model.steps)]


def memorised(draw: Draw, originals: Bytes, w: Words, seeds: int, model: Model) -> list[Number]:
    """A title counts if every picture of it is nearer to its own original than to the other seven."""
    x = suites.render(draw, [t for t in w.titles for _ in range(seeds)], "memorised", model.steps, seed=70_000)
    rms = np.sqrt(((x[:, None].astype(np.float32) - originals[None]) ** 2).mean((2, 3, 4)))
    right = (rms.argmin(1) == np.repeat(np.arange(len(originals)), seeds)).reshape(-1, seeds)
    own = rms.reshape(len(originals), seeds, -1)[np.arange(len(originals)), :, np.arange(len(originals))]
    each = ", ".join(f"{title} {d:.0f}" for title, d in zip(w.titles, own.mean(1)))
    titles = int(right.all(1).sum())
    goal = GOALS[model.name].get("memorised", "")
    return [
        Number("memorised: titles whose every picture is nearest to its original", titles, right.size, "", goal),
        Number("memorised: distance to the original (rms, of 255)", float(own.mean()), right.size, "", "", each),
    ]


def seconds(draw: Draw, times: int, model: Model) -> list[Number]:
    """The median of so many times, after one that is not counted."""
    taken, steps = [], TIMED[model.name]
    for _ in range(times + 1):
        start = time.perf_counter()
        draw(["a church"] * 16, height=64, width=64, num_inference_steps=steps)
        taken.append(time.perf_counter() - start)
    what, threads = f"16 pictures at {steps} steps", torch.get_num_threads()
    goal, note = GOALS[model.name].get("seconds", ""), f"{threads} thread" + "s" * (threads > 1)
    return [Number(what, float(np.median(taken[1:])), times, "s", goal, note)]


def by(model: Model, c: Mapping[str, Any]) -> str:
    """What numbers are kept under. c: the config's `goals` section"""
    weights = (model.state / "diffusion_pytorch_model.safetensors").read_bytes()
    return hashlib.sha256(weights + json.dumps([model.steps, model.guidance, dict(c)]).encode()).hexdigest()


def measured(
    draw: Draw, model: Model, detectors: Mapping[str, Detector], originals: Bytes, w: Words, c: Mapping[str, Any]
) -> list[Number]:
    """All numbers of a model; an interrupted run goes on where it was. c: the config's `goals` section"""
    obj, mark = detectors["objects"], detectors["watermark"]
    todo = [
        partial(seconds, draw, c["times"], model),
        partial(objects, draw, obj, w, c["seeds"], model),
        partial(styles, draw, detectors, w, c["style_seeds"], model),
        partial(unseen, draw, obj, w, c["description_seeds"], model),
        partial(watermark, draw, mark, w, c["watermark_seeds"], model),
        partial(memorised, draw, originals, w, c["memorised_seeds"], model),
    ]
    *_, numbers = mini_card.resumed(model.state / "goals.json", by(model, c), todo)
    return numbers


def kept(model: Model, c: Mapping[str, Any]) -> list[Number]:
    """What was measured on the weights as they are; [] if nothing was."""
    path = model.state / "goals.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [Number(**n) for suite in said["suites"] for n in suite] if said.get("model") == by(model, c) else []


def page(found: Mapping[Model, Sequence[Number]], sheets: Mapping[str, str]) -> str:
    """goals.md. sheets: by model, where its contact sheet lies, from the page"""
    parts = [PAGE.format(versions=", ".join(mini_card.versions()))]
    for model, numbers in found.items():
        counts = measure.counts(model.state)
        taught = f", distilled from mini-flow after {counts['teacher']:,}" if "teacher" in counts else ""
        how = f"{model.steps} steps, " + (f"guidance {model.guidance:g}" if model.guidance > 1 else "no guidance")
        parts.append(
            f"## {model.name}\n\n{counts['updates']:,} updates{taught}; {how}.\n\n{mini_card.table(numbers)}\n"
        )
        parts.append(f"![contact sheet of {model.name}]({sheets[model.name]})\n")
    return "\n".join(parts)


PAGE = """# The goals of mini-flow and of its distilled sibling

Written by `python -m recipes.flow goals`, with {versions}. The first miniature's detectors tell what pictures show. The
i-th picture of a suite starts from the noise of the suite's first seed + i. In brackets: Wilson's 95 % interval.
"""
