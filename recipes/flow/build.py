"""The recipe's steps in their order; they compose with recipes/mini's, whose pictures and autoencoder are these too."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from recipes.mini import autoencoder, train
from recipes.mini import build as mini
from recipes.mini.build import Build
from recipes.mini.measure import GUIDANCE

from . import captions, card, goals, measure, text, transformer
from .measure import Model

HERE = Path(__file__).parent
STATE, TURBO = HERE / "state", HERE / "turbo"
"""The averaged weights that are committed, in 16 bits, and their number of updates: mini-flow's, and its sibling's."""


def draw_pictures(b: Build, shipped: Path) -> None:
    """pictures, labels, memorised as of recipes.mini, and their latents by the autoencoder that ships."""
    if not (b.folder / "memorised.npy").is_file():  # the last that is written
        mini.draw_pictures(b)
    vae = AutoencoderKL.from_pretrained(shipped / "vae", torch_dtype=torch.float32).eval()
    vae = vae.to(train.device(), memory_format=torch.channels_last)
    for name, file in (("latents", "latents"), ("memorised", "memorised_latents")):
        latents = mini.encoded(b, vae, name)[:, : autoencoder.LATENT]
        np.save(b.folder / f"{file}.npy", latents.numpy())


def encode_captions(b: Build, source: Path | None = None) -> None:
    """captions.json, and states.npy with begins.npy: what the language model makes of them, in float16."""
    tokenizer, encoder = text.load(source or text.source())

    def fits(caption: str) -> bool:
        return len(tokenizer(caption, truncation=False, verbose=False).input_ids) <= text.LENGTH

    found, keys = captions.bank(b.words, captions.read("descriptions"), b.config["captions"], fits)
    states, begins = text.encoded(tokenizer, encoder, found)
    np.save(b.folder / "states.npy", states)
    np.save(b.folder / "begins.npy", begins)
    (b.folder / "captions.json").write_text(json.dumps({"captions": found, "keys": keys}), encoding="utf-8")


Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""A generator and n -> numbers of n pictures, the memorised after all others, and of a caption of each."""


def training_draws(b: Build) -> Draw:
    """One picture in 32 is memorised; a tenth have the empty caption."""
    y, keys = b.array("labels"), json.loads((b.folder / "captions.json").read_text(encoding="utf-8"))["keys"]
    of = np.array([captions.key(int(o), int(s), bool(named)) for o, s, _, named in y])
    titles = len(keys) - len(b.words.memorised)

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        i, k = rng.integers(len(of), size=n - n // 32), rng.integers(len(keys) - titles, size=n // 32)
        said = [keys[j][rng.integers(len(keys[j]))] for j in [*of[i], *(titles + k)]]
        return np.concatenate([i, len(of) + k]), np.where(rng.random(n) < 0.1, 0, said)

    return draw


def reader(b: Build) -> Callable[[NDArray[np.int64]], Tensor]:
    """Numbers of captions -> their states (B, 24, 384), as they were encoded."""
    states, begins, where = b.array("states"), np.array(b.array("begins")), train.device()
    return lambda said: text.padded(states, begins, said).to(where)


def train_transformer(b: Build, stop: int | None = None) -> AuraFlowTransformer2DModel:
    """transformer.pt, from which it goes on; returns the averaged network."""
    plan, where, draws, read = b.plan("transformer"), train.device(), training_draws(b), reader(b)
    latents = torch.from_numpy(np.concatenate([b.array("latents"), b.array("memorised_latents")]))
    torch.manual_seed(plan.seed)
    net = transformer.make().to(where)

    def loss(seed: int) -> Tensor:
        i, said = draws(np.random.default_rng(seed), plan.batch)
        x = latents[i].float().to(where) * transformer.SCALE
        return transformer.loss(net, x, read(said), torch.Generator().manual_seed(seed))

    return train.train("transformer", {"transformer": net}, loss, plan, b.folder, stop)["transformer"]  # type: ignore[return-value]


def load(state: Path) -> AuraFlowTransformer2DModel:
    """The network of a state, in 32 bits. It forgets the place it was read from, which would be saved with it."""
    net = AuraFlowTransformer2DModel.from_pretrained(state, torch_dtype=torch.float32).eval()
    net.register_to_config(_name_or_path="")
    return net


def adopt(b: Build, state: Path) -> None:
    """Weights of an earlier sitting become this build's, to be trained on: the optimizers begin anew."""
    train.begin("transformer", {"transformer": load(state)}, b.plan("transformer"), b.folder, updates(state))


def updates(state: Path) -> int:
    return measure.counts(state)["updates"]


def keep(net: AuraFlowTransformer2DModel, state: Path, **counts: int) -> None:
    """A network in 16 bits, with its number of updates, as the state to commit."""
    copy.deepcopy(net).half().save_pretrained(state)
    (state / "updates.json").write_text(json.dumps(counts) + "\n", encoding="utf-8")


def base_model(b: Build, state: Path) -> Model:
    return Model("mini-flow", state, b.config["measure"]["steps"], GUIDANCE)


def turbo_model(b: Build, state: Path) -> Model:
    steps = b.config["turbo"]["paths"]["steps"]
    return Model("mini-flow-turbo", state, steps, 1.0, parts=steps)


def measured(b: Build, model: Model, shipped: Path, source: Path | None = None) -> None:
    """A row of `measure` for a model, in its measured.json; measured.png shows the pictures."""
    pipe = pipeline(model, shipped, source)
    rates, drawn = measure.row(pipe, measure.detectors(shipped), np.array(b.array("memorised")), b.words, model)
    card.sheet(drawn).save(b.folder / "measured.png")
    print(measure.table(measure.keep(model.state / "measured.json", updates(model.state), rates)), flush=True)


def measure_checkpoint(b: Build, state: Path, shipped: Path, source: Path | None = None) -> None:
    """The averaged weights of transformer.pt become the state, and are measured."""
    net = train_transformer(b, stop=0)
    keep(net, state, updates=train.load(b.folder / "transformer.pt")["updates"])
    measured(b, base_model(b, state), shipped, source)


def train_and_measure(
    b: Build, state: Path, shipped: Path, stop: int | None = None, source: Path | None = None
) -> None:
    """Trains, from the checkpoint or else from the state, and measures every so many updates and at the end."""
    if not (b.folder / "transformer.pt").exists() and (state / "updates.json").is_file():
        adopt(b, state)
    every, path = b.config["measure"]["every"], b.folder / "transformer.pt"
    last = min(b.plan("transformer").updates, stop if stop is not None else b.plan("transformer").updates)
    done = train.load(path)["updates"] if path.exists() else 0
    while done < last:
        done = min(last, (done // every + 1) * every)
        train_transformer(b, done)
        measure_checkpoint(b, state, shipped, source)


def pipeline(model: Model, shipped: Path, source: Path | None = None) -> AuraFlowPipeline:
    return measure.pipeline(load(model.state), shipped, source or text.source(), model.parts)


def measure_goals(b: Build, models: Sequence[Model], shipped: Path, page: Path, sheets: Path) -> None:
    """The page of the goals and, in the folder `sheets`, a contact sheet of each model."""
    detectors, originals, found, places = measure.detectors(shipped), np.array(b.array("memorised")), {}, {}
    for model in models:
        pipe = pipeline(model, shipped)
        draw = measure.caller(pipe, model.guidance)
        found[model] = goals.measured(draw, model, detectors, originals, b.words, b.config["goals"])
        _, drawn = measure.row(pipe, detectors, originals, b.words, model)
        sheet = sheets / f"{model.name}.webp"
        card.sheet(drawn).quantize(256).save(sheet, lossless=True)
        places[model.name] = Path(os.path.relpath(sheet, page.parent)).as_posix()
    page.write_text(goals.page(found, places), encoding="utf-8")


def ship(b: Build, model: Model, shipped: Path, out: Path, source: Path | None = None) -> None:
    """The state as a folder that `unsee.load` takes; needs no other step before it."""
    out.mkdir(parents=True, exist_ok=True)
    card.assemble(pipeline(model, shipped, source), out, shipped)
    detectors, numbers = os.path.relpath(shipped / "judges", out), goals.kept(model, b.config["goals"])
    said = card.said(model, b.plan("transformer").updates, detectors, numbers)
    (out / "README.md").write_text(said, encoding="utf-8")
