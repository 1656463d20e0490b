"""docs/many.md: many objects of a miniature erased at once, by number of concepts and by method.

    python -m benchmarks.many [--model mini] [--numbers 1 2 5 ...] [--draws 3] [--each 2]
                              [--methods hybrid "uce eta=0" ...] [--only "uce, 20" ...]
    python -m benchmarks.many [--model mini] --draw     the page and its plot anew, from its records

A cell is one method on one random draw of objects. Its record is in benchmarks/records, in a folder for each page, and
is not measured again: delete those that a change of the code makes old. The page and its plot are written anew after
each cell. A method is a name of `unsee.methods` with settings behind it: "uce eta=0 keep_weight=3".
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

import unsee
from benchmarks.many_page import Base, Cell, page, plot, row
from benchmarks.saying import say
from unsee import methods
from unsee.concepts import Concept
from unsee.denoising.activations import inputs
from unsee.errors import InputError
from unsee.evaluate.detectors import Detector, detectors_of
from unsee.evaluate.render import Sampling, Shot, render, sampling_of
from unsee.evaluate.words import article, ways
from unsee.io.atomic import write_whole
from unsee.io.settings_file import parse
from unsee.models.denoisers import denoiser
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Pipeline
from unsee.models.weights import text_input_weights
from unsee.runs.configure import configure

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PAGES = {"mini": "many", "mini-flow-turbo": "many-flow"}
"""The page of each model, and the folder of its records."""
SEEN = "base.json"
"""Of these, what all cells share: how pictures were drawn, what the base draws, and how wide its text space is."""
NUMBERS = (1, 2, 5, 10, 20, 40, 60, 100)
METHODS = ("balance", "hybrid", "oce", "speed", "uce", "uce eta=0 keep_weight=3")
SEED, ERASED = 5000, 40
"""Of a word's first picture; and pictures of erased words in a cell, at least."""


@dataclass(frozen=True)
class World:
    """What all cells have in common: the model, what it can draw and who looks, and how pictures are drawn."""

    pipe: Pipeline
    detector: Detector
    sampling: Sampling
    each: int

    @property
    def protocol(self) -> dict[str, Any]:
        """What must be equal for two cells to stand in one table."""
        how = {"model": fingerprint(denoiser(self.pipe)[1]), "each": self.each, "seed": SEED}
        return {**how, **asdict(self.sampling)}

    def seen(self, shots: dict[str, list[Shot]]) -> dict[str, list[bool]]:
        """For each word, in which of its pictures the detector sees it first of all that it knows."""
        drawn = render(self.pipe, [shot for some in shots.values() for shot in some], self.sampling, batch=64)
        found: dict[str, list[bool]] = {}
        for word, some in shots.items():
            top = self.detector.likely([drawn[shot] for shot in some]).argmax(1).tolist()
            found[word] = [self.detector.labels[k] == word for k in top]
        return found

    def others(self, words: Sequence[str]) -> dict[str, list[Shot]]:
        return {word: [Shot(article(word), SEED + k) for k in range(self.each)] for word in words}

    def erased(self, words: Sequence[str]) -> dict[str, list[Shot]]:
        """More pictures where words are few; by the name alone and with its article in turn."""
        count = max(self.each, math.ceil(ERASED / len(words)))
        return {word: [Shot(way, SEED + k) for k, way in enumerate(islice(cycle(ways(word)), count))] for word in words}


def drawn_words(labels: Sequence[str], number: int, draw: int) -> list[str]:
    """The first `number` objects of a random order, so that more concepts hold all of fewer."""
    return random.Random(draw).sample(list(labels), len(labels))[:number]


def method_of(text: str) -> Any:
    """A method with its settings: "uce eta=0 keep_weight=3". Raises InputError for what is unknown."""
    name, *settings = shlex.split(text)
    pairs = (setting.partition("=") for setting in settings)
    return configure(methods.find(name), {key: parse(value, key) for key, _, value in pairs})


def measured(world: World, base: Mapping[str, Sequence[bool]], text: str, number: int, draw: int) -> Cell:
    """One cell: the edit, and what is seen under it."""
    method, words = method_of(text), drawn_words(world.detector.labels, number, draw)
    others = [word for word in world.detector.labels if word not in words]
    start = time.process_time()
    edit = method(world.pipe, [Concept(word) for word in words], seed=draw)
    seconds = time.process_time() - start
    with edit.applied(world.pipe):
        gone, kept = world.seen(world.erased(words)), world.seen(world.others(others))
    return Cell(text, number, draw, gone, kept, base, seconds)


def text_space(pipe: Pipeline, words: Sequence[str]) -> dict[str, float]:
    """How many dimensions the words take in what the denoiser reads of a prompt.

    x: the input of the first matrix that reads the prompt, for "a church" and so on, at the token behind the article,
    without its mean over words. With p the shares of its variance along principal directions, the participation ratio
    is 1 / sum p^2.
    """
    layer = next(iter(text_input_weights(denoiser(pipe)[1]))).removesuffix(".weight")
    x = inputs(pipe, [f"a {word}" for word in words], [layer])[layer][:, 2].double()
    x = x - x.mean(0)
    p = torch.linalg.svdvals(x).square()
    p = p / p.sum()
    held = {f"{100 * part:g} %": int((p.cumsum(0) < part).sum()) + 1 for part in (0.9, 0.99)}
    return {"words": len(words), "channels": x.shape[1], "participation": 1 / p.square().sum().item(), **held}


def recorded(folder: Path) -> tuple[Base | None, list[Cell]]:
    """What the records of a page hold: what all its cells share, and the cells."""
    if not (folder / SEEN).is_file():
        return None, []
    base = Base(**json.loads((folder / SEEN).read_text()))
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob("cell-*.json"))]
    order = {text: k for k, text in enumerate(METHODS)}
    found = [Cell(**one, base=base.seen) for one in cells]
    return base, sorted(found, key=lambda one: order.get(one.method, len(order)))


def publish(model: str) -> None:
    """The page of a model and its plot, from its records."""
    name = PAGES[model]
    base, found = recorded(RECORDS / name)
    if base is None:
        raise InputError(f"nothing of {model} was measured: benchmarks/records/{name} has no {SEEN}")
    for suffix, text in ((".svg", plot(found)), (".md", page(found, base, name, model))):
        write_whole((ROOT / "docs" / name).with_suffix(suffix), partial(Path.write_text, data=text))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", choices=PAGES)
    parser.add_argument("--numbers", type=int, nargs="*", default=NUMBERS, help="of concepts")
    parser.add_argument("--draws", type=int, default=3, help="random draws of objects for each number")
    parser.add_argument("--each", type=int, default=1, help="pictures of each word")
    installed = [text for text in METHODS if text.split()[0] in methods.names()]
    parser.add_argument("--methods", nargs="*", default=installed, metavar="'NAME KEY=VALUE ...'")
    parser.add_argument("--only", nargs="*", default=[""], help="cells whose name holds this, such as 'uce, 20'")
    parser.add_argument("--steps", type=int, help="sampler steps of the pictures; default as the model's card says")
    parser.add_argument("--draw", action="store_true", help="the page and its plot anew from its records")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parsed(argv)
    if options.draw:
        return publish(options.model)
    for text in options.methods:
        method_of(text)
    torch.set_num_threads(1)
    folder = RECORDS / PAGES[options.model]
    folder.mkdir(parents=True, exist_ok=True)
    pipe = unsee.load(options.model)
    detector = detectors_of(pipe)["objects"]
    assert isinstance(detector, Detector)
    if not all(0 < number < len(detector.labels) for number in options.numbers):
        raise InputError(f"numbers of concepts are 1 to {len(detector.labels) - 1}: one object must stay")
    world = World(pipe, detector, sampling_of(pipe, options.steps), options.each)
    base, found = recorded(folder)
    if base is None:
        seen = world.seen(world.others(detector.labels))
        base = Base(world.protocol, seen, text_space(pipe, detector.labels))
        write_whole(folder / SEEN, partial(Path.write_text, data=json.dumps(asdict(base))))
    if base.protocol != world.protocol:
        raise InputError(f"the records of {folder.name} are of other pictures or of another model: {base.protocol}")
    done = {(one.method, one.number, one.draw) for one in found}
    todo = [(text, n, draw) for n in options.numbers for draw in range(options.draws) for text in options.methods]
    for text, number, draw in todo:
        name = f"{text}, {number} concepts, draw {draw}"
        if (text, number, draw) in done or not any(part in name for part in options.only):
            continue
        cell = measured(world, base.seen, text, number, draw)
        path = folder / f"cell-{re.sub(r'[^a-z0-9.]+', '-', text.lower())}-{number}-{draw}.json"
        record = {key: value for key, value in asdict(cell).items() if key != "base"}
        write_whole(path, partial(Path.write_text, data=json.dumps(record)))
        say(f"{name}: {row([cell])}")
        publish(options.model)


if __name__ == "__main__":
    main()
