"""docs/weights.md: which weights carry a concept, by selection and by causal tracing.

    python -m benchmarks.weights [--model mini-flow mini] [--concept church] [--anchor dog] [--method esd]
                                 [--pictures 96] [--runs 8] [--only "text MLP" trace ...] [--work runs/weights]

Each selection of weights is edited by one method, with everything else equal, and scaled to its best trade-off. Each
layer's activation is replaced by the anchor's, in recorded calls and in whole runs. What is finished under `--work` is
not done again, unless the model, the settings or the method's code has changed. The page and its plots are written anew
after each step. `--only` takes names of selections, and `trace`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter

import unsee
from benchmarks.saying import say
from benchmarks.weights.measure import NEAREST, SEED, Selected, Traced, World, pictured, selected, traced
from benchmarks.weights.page import Found, page, plots
from benchmarks.weights.parts import ALL, selections
from unsee.errors import unknown
from unsee.evaluate.render import sampling_of
from unsee.io.atomic import write_whole
from unsee.io.settings_file import parse
from unsee.models.denoisers import denoiser
from unsee.versions import code

TRACE = "trace"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mini-flow", "mini"])
    parser.add_argument("--concept", default="church")
    parser.add_argument("--anchor", default="dog", help="what the prompt of the patched activations names")
    parser.add_argument("--method", default="esd", help="of each selection's edit, with its settings: 'esd updates=60'")
    parser.add_argument("--pictures", type=int, default=96, help="of each row")
    parser.add_argument("--runs", type=int, default=8, help="recorded runs of the trace")
    parser.add_argument("--steps", type=int, help="sampler steps; default as the model's card says")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/weights"), help="where edits, pictures and records stay"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/weights.md"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parsed(argv)
    torch.set_num_threads(1)
    (options.work / "edits").mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.weights", *(sys.argv[1:] if argv is None else argv)])
    known: dict[str, Found] = {}
    for model in options.model:
        for now in found(model, options):
            known[model] = now
            publish(list(known.values()), options, command)


def world_of(model: str, options: argparse.Namespace) -> World:
    pipe = unsee.load(model)
    method, *settings = shlex.split(options.method)
    pairs = (setting.partition("=") for setting in settings)
    given = {key: parse(value, key) for key, _, value in pairs}
    sampling = sampling_of(pipe, options.steps)
    return World(
        pipe, options.concept, options.anchor, method, given, options.pictures, options.runs, sampling, options.work
    )


def found(model: str, options: argparse.Namespace) -> Iterator[Found]:
    """What is known of a model, after each step."""
    world = world_of(model, options)
    wanted = selections(denoiser(world.pipe)[1])
    if wrong := next((name for name in options.only if name not in (*wanted, TRACE)), None):
        raise unknown("selection", wrong, [*wanted, TRACE])
    said = {
        "concept": world.concept, "anchor": world.anchor, "method": options.method, "pictures": world.pictures,
        "seed": SEED, "steps": world.sampling.steps, "guidance": world.sampling.guidance_scale, "runs": world.runs,
        "near": ", ".join(dict.fromkeys(label for _, label in world.rows()[NEAREST])),
    }  # fmt: skip
    now = Found(model, said, [], [])
    if TRACE in options.only or not options.only:
        for some in traces(world):
            now = replace(now, traced=some)
            yield now
    for title, pattern in wanted.items():
        if title in options.only or not options.only:
            one = done(world, title, pattern)
            say(f"{model}, {title}: {len(one.curve)} scales, {one.scale:g} taken")
            now = replace(now, selected=[*now.selected, one])
            yield now


def name_of(world: World, kind: str, more: str = "") -> Path:
    """The file of a record: its name is a hash of all that it depends on."""
    how = [world.key, world.concept, world.anchor, world.method, world.settings, world.pictures, world.runs, more]
    how += [asdict(world.sampling), code("benchmarks.weights.measure"), code(type(world.made(ALL)).__module__)]
    return world.work / f"{kind}-{hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]}.json"


def done(world: World, title: str, pattern: str) -> Selected:
    """A selection's record, measured unless it is there."""
    path, kind = name_of(world, "selection", pattern), TypeAdapter(Selected)
    if not path.is_file():
        text = kind.dump_json(selected(world, title, pattern)).decode()
        write_whole(path, partial(Path.write_text, data=text))
    return kind.validate_json(path.read_bytes())


def traces(world: World) -> Iterator[list[Traced]]:
    """The trace of recorded calls, and again after the pictures of each kind of layer."""
    path, kind = name_of(world, TRACE), TypeAdapter(list[Traced])

    def keep(some: list[Traced]) -> None:
        write_whole(path, partial(Path.write_text, data=kind.dump_json(some).decode()))

    if not path.is_file():
        keep(traced(world))
    some = kind.validate_json(path.read_bytes())
    yield some
    for k, one in enumerate(some):
        if one.block == ALL and one.concept is None:
            concept, anchor = pictured(world, one.kind, one.block)
            some = [*some[:k], replace(one, concept=concept, anchor=anchor), *some[k + 1 :]]
            keep(some)
            yield some


def publish(known: Sequence[Found], options: argparse.Namespace, command: str) -> None:
    texts = {options.out: page(known, command, options.out.stem)}
    for one in known:
        for name, text in plots(one).items():
            model = one.model.rstrip("/").rpartition("/")[2]
            texts[options.out.with_name(f"{options.out.stem}-{model}-{name}.svg")] = text
    for path, text in texts.items():
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))


if __name__ == "__main__":
    main()
