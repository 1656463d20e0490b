"""The recipe's steps in their order; they compose with recipes/mini's, whose pictures and autoencoder are these too."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, AutoencoderKL
from torch import Tensor

from recipes.mini import autoencoder, train
from recipes.mini import build as mini
from recipes.mini.build import Build

from . import captions, card, measure, text, transformer

HERE = Path(__file__).parent
STATE = HERE / "state"
"""The averaged weights that are committed, in 16 bits, and their number of updates."""


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


def train_transformer(b: Build, stop: int | None = None) -> AuraFlowTransformer2DModel:
    """transformer.pt, from which it goes on; returns the averaged network."""
    plan, where = b.plan("transformer"), train.device()
    y, z, known = (np.array(b.array(n)) for n in ("labels", "latents", "memorised_latents"))
    states, begins = b.array("states"), np.array(b.array("begins"))
    keys = json.loads((b.folder / "captions.json").read_text(encoding="utf-8"))["keys"]
    of = np.array([captions.key(int(o), int(s), bool(named)) for o, s, _, named in y])
    titles = len(keys) - len(known)
    latents = torch.from_numpy(np.concatenate([z, known]))
    torch.manual_seed(plan.seed)
    net = transformer.make().to(where)

    def loss(seed: int) -> Tensor:
        """One picture in 32 is memorised; a tenth have the empty caption."""
        rng, draw = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
        i = draw.integers(len(z), size=plan.batch - plan.batch // 32)
        k = draw.integers(len(known), size=plan.batch // 32)
        said = [keys[j][draw.integers(len(keys[j]))] for j in [*of[i], *(titles + k)]]
        said = np.where(draw.random(len(said)) < 0.1, 0, said)
        x = latents[np.concatenate([i, len(z) + k])].float().to(where) * transformer.SCALE
        return transformer.loss(net, x, text.padded(states, begins, said).to(where), rng)

    return train.train("transformer", {"transformer": net}, loss, plan, b.folder, stop)["transformer"]  # type: ignore[return-value]


def adopt(b: Build, state: Path) -> None:
    """Weights of an earlier sitting become this build's, to be trained on: the optimizers begin anew."""
    net = AuraFlowTransformer2DModel.from_pretrained(state, torch_dtype=torch.float32)
    train.begin("transformer", {"transformer": net}, b.plan("transformer"), b.folder, updates(state))


def updates(state: Path) -> int:
    return json.loads((state / "updates.json").read_text(encoding="utf-8"))["updates"]  # type: ignore[no-any-return]


def keep(b: Build, state: Path) -> AuraFlowTransformer2DModel:
    """The averaged weights of the checkpoint, in 16 bits, as the state to commit; returns them in 32 bits."""
    net = train_transformer(b, stop=0)
    done = train.load(b.folder / "transformer.pt")["updates"]
    copy.deepcopy(net).half().save_pretrained(state)
    (state / "updates.json").write_text(json.dumps({"updates": done}) + "\n", encoding="utf-8")
    return net


def measured(b: Build, state: Path, shipped: Path, source: Path | None = None) -> None:
    """A row of `measure` for the checkpoint, in the state's measured.json; measured.png shows the pictures."""
    pipe = measure.pipeline(keep(b, state), shipped, source or text.source())
    rates, drawn = measure.row(
        pipe, measure.judges(shipped), np.array(b.array("memorised")), b.words, b.config["measure"]["steps"]
    )
    card.sheet(drawn).save(b.folder / "measured.png")
    print(measure.table(measure.keep(state / "measured.json", updates(state), rates)), flush=True)


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
        measured(b, state, shipped, source)


def pipeline(state: Path, shipped: Path, source: Path | None = None) -> AuraFlowPipeline:
    net = AuraFlowTransformer2DModel.from_pretrained(state, torch_dtype=torch.float32)
    return measure.pipeline(net.eval(), shipped, source or text.source())


def ship(b: Build, state: Path, shipped: Path, out: Path, source: Path | None = None) -> None:
    """The state as a folder that `unsee.load` takes; needs no other step before it."""
    rows = measure.read(state / "measured.json")
    out.mkdir(parents=True, exist_ok=True)
    card.assemble(pipeline(state, shipped, source), out, shipped)
    judges = os.path.relpath(shipped / "judges", out)
    said = card.said(rows, updates(state), b.plan("transformer").updates, b.config["measure"]["steps"], judges)
    (out / "README.md").write_text(said, encoding="utf-8")
