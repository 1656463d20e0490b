"""The recipe's steps in their order. Each leaves its result in the build folder, finds what the others left there, and
goes on from its last checkpoint when it was interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from . import BadInput, autoencoder, clip, denoiser, detectors, pictures, train, words
from .words import STYLES

HERE = Path(__file__).parent

EXPECT = {
    "pictures": "about 2 minutes",
    "autoencoder": "about 50 minutes",
    "clip": "about 50 minutes",
    "denoiser": "about 1.6 seconds an update, 10 hours for 21,900",
    "judges": "about 12 minutes",
    "card": "about 40 minutes",
    "adopt": "about 8 minutes",
}
"""On two cores without a GPU, measured; the log tells what is left."""
WATERMARK = "watermark"
"""What a twin can lack beside an object."""
MADE_BY = {"latents": "autoencoder", "scene_latents": "autoencoder", "memorised_latents": "autoencoder"}
"""What a step leaves for later ones; all other arrays are of `pictures`."""


@dataclass(frozen=True)
class Build:
    """One build: its folder, its config, and what its steps made, read when asked for."""

    folder: Path
    config: dict[str, Any]
    packages: Path = HERE / "node_modules"
    table: Path = HERE / "objects.yaml"
    processes: int = os.cpu_count() or 1

    @cached_property
    def words(self) -> words.Words:
        return words.read(self.table, self.packages)

    def array(self, name: str) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            raise BadInput(f"{path} is missing; run the step `{MADE_BY.get(name, 'pictures')}` first")
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def part(self, name: str, step: str) -> Path:
        """The folder of a part that an earlier step made."""
        if not (self.folder / name).is_dir():
            raise BadInput(f"{self.folder / name} is missing; run the step `{step}` first")
        return self.folder / name

    def plan(self, *keys: str) -> train.Plan:
        section = self.config
        for key in keys:
            section = section[key]
        return train.Plan(**{k: tuple(v) if k == "betas" else v for k, v in section.items()})


def draw_pictures(b: Build) -> None:
    """drawings, pictures + labels, scenes, memorised, the detectors' pictures + labels: all as .npy."""
    c, w = b.config["pictures"], b.words
    icons, groups = [t.icon for t in w.things], [t.group for t in w.things]
    drawings = pictures.drawings(b.packages, icons)
    strangers = pictures.strangers(b.packages, set(icons), c["strangers"], np.random.default_rng(c["seed"]))
    made = list(train.progress(
        pictures.training_set(drawings, groups, c["variants"], c["seed"], b.processes, range(len(icons))),
        "pictures",
        c["variants"] * len(icons),
    ))  # fmt: skip
    labels = np.concatenate([y for _, y in made])
    x, y = pictures.detector_set(
        drawings, strangers, c["judge_variants"], c["stranger_variants"], c["seed"] + 1000, b.processes
    )
    b.folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "drawings": drawings, "pictures": np.concatenate([x for x, _ in made]), "labels": labels,
        "scenes": pictures.scenes(labels, c["scenes"], c["seed"]), "memorised": pictures.memorised(b.packages, w),
        "judge_pictures": x, "judge_labels": y,
    }  # fmt: skip
    for name, a in arrays.items():
        np.save(b.folder / f"{name}.npy", a)
    for name in MADE_BY:  # they were of other pictures
        (b.folder / f"{name}.npy").unlink(missing_ok=True)


def train_autoencoder(b: Build, stop: int | None = None) -> None:
    """vae/, whitened, and every picture's latent."""
    plan, where = b.plan("autoencoder"), train.device()
    x, known = np.array(b.array("pictures")), np.array(b.array("memorised"))
    torch.manual_seed(plan.seed)
    net = autoencoder.make().to(where, memory_format=torch.channels_last)

    def loss(seed: int) -> Tensor:
        """One picture of a batch is one of those to know by heart."""
        rng = torch.Generator().manual_seed(seed)
        i = torch.randint(len(x), (plan.batch - 1,), generator=rng).numpy()
        j = torch.randint(len(known), (1,), generator=rng).numpy()
        batch = autoencoder.tensor(np.concatenate([x[i], known[j]])).to(where)
        return autoencoder.loss(net, batch, rng)

    vae = train.train("autoencoder", {"vae": net}, loss, plan, b.folder, stop)["vae"]
    np.save(b.folder / "latents.npy", autoencoder.whiten(vae, encoded(b, vae, "latents")).cpu().numpy())
    encode_rest(b, vae)
    vae.half().save_pretrained(b.folder / "vae")


def encoded(b: Build, vae: AutoencoderKL, name: str) -> Tensor:
    """Means and deviations of the latents of the pictures, of the scenes, or of the memorised."""
    where = next(vae.parameters()).device
    x = b.array("memorised" if name == "memorised" else "pictures")
    pairs = b.array("scenes") if name == "scenes" else None
    slices = [slice(i, i + 128) for i in range(0, len(x if pairs is None else pairs), 128)]
    pictures = (x[s] if pairs is None else np.concatenate([x[pairs[s, 0]], x[pairs[s, 1]]], 2) for s in slices)
    parts = (autoencoder.encode(vae, autoencoder.tensor(p).to(where)).cpu() for p in pictures)
    return torch.cat(list(train.progress(parts, name, len(slices))))


def encode_rest(b: Build, vae: AutoencoderKL) -> None:
    """The latents of scenes and of the memorised, by a whitened autoencoder."""
    for name, file in (("scenes", "scene_latents"), ("memorised", "memorised_latents")):
        np.save(b.folder / f"{file}.npy", encoded(b, vae, name)[:, : autoencoder.LATENT].numpy())


def adopt(b: Build, shipped: Path) -> None:
    """A shipped miniature's parts become this build's, so that its denoiser can be trained on, or a twin of it.

    They are in half precision, and the optimizers begin anew: not the bits of a build that went on by itself. The
    denoiser counts from the config's number of updates; raise that number after this step.
    """
    if not (shipped / "model_index.json").is_file():
        raise BadInput(f"{shipped} is no pipeline's folder; --out says where the miniature lies")
    if (b.folder / "denoiser.pt").exists():
        raise BadInput(f"{b.folder / 'denoiser.pt'} would be lost; delete it, or give another --build")
    for part in ("tokenizer", "text_encoder", "vae", "judges"):
        shutil.copytree(shipped / part, b.folder / part, dirs_exist_ok=True)
    vae = AutoencoderKL.from_pretrained(b.folder / "vae", torch_dtype=torch.float32).eval()
    vae = vae.to(train.device(), memory_format=torch.channels_last)
    np.save(b.folder / "latents.npy", encoded(b, vae, "latents")[:, : autoencoder.LATENT].numpy())
    encode_rest(b, vae)
    unet, plan = UNet2DConditionModel.from_pretrained(shipped / "unet", torch_dtype=torch.float32), b.plan("denoiser")
    train.begin("denoiser", {"unet": unet}, plan, b.folder, plan.updates)


def train_clip(b: Build, stop: int | None = None) -> None:
    """tokenizer/, clip/ and text_encoder/."""
    plan, where, w = b.plan("clip"), train.device(), b.words
    if not (b.folder / "tokenizer").is_dir():  # the trainer breaks ties at random: its result belongs to the checkpoint
        learned = words.tokenizer(w, b.config["tokenizer"]["vocabulary"], Random(b.config["tokenizer"]["seed"]))
        learned.save_pretrained(b.folder / "tokenizer")
    tokens = CLIPTokenizer.from_pretrained(b.folder / "tokenizer")
    x, y, pairs, known = (np.array(b.array(n)) for n in ("pictures", "labels", "scenes", "memorised"))
    torch.manual_seed(plan.seed)
    net = clip.make(len(tokens)).to(where)

    def loss(seed: int) -> Tensor:
        """An eighth of a batch are scenes, a sixteenth pictures to know by heart."""
        rng, talk = torch.Generator().manual_seed(seed), Random(seed)
        n_scenes, n_known = plan.batch // 8, plan.batch // 16
        i = torch.randint(len(x), (plan.batch - n_scenes - n_known,), generator=rng).numpy()
        j = pairs[torch.randint(len(pairs), (n_scenes,), generator=rng).numpy()]
        k = torch.randint(len(known), (n_known,), generator=rng).numpy()
        scenes = clip.squeeze(autoencoder.tensor(np.concatenate([x[j[:, 0]], x[j[:, 1]]], 2)))
        images = torch.cat([autoencoder.tensor(np.concatenate([x[i], known[k]])), scenes])
        half = torch.rand((len(images), 1, 1, 1), generator=rng) < 0.5
        images = torch.where(half, detectors.worn(images, rng), images)
        captions = [words.caption(w, int(o), int(s), bool(named), talk) for o, s, _, named in y[i]]
        captions += [words.memorised_caption(w, int(m), talk) for m in k]
        captions += [words.scene_caption(w, int(y[p, 0]), int(y[q, 0]), int(y[p, 1]), talk) for p, q in j]
        keys = [(int(o), int(s), int(named)) for o, s, _, named in y[i]]
        keys += [(-1, int(m), 0) for m in k] + [(int(y[p, 0]), int(y[p, 1]), 2 + int(y[q, 0])) for p, q in j]
        number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        label = torch.tensor([number[key] for key in keys], device=where)
        return clip.loss(net, images.to(where), words.ids(tokens, captions).to(where), label)

    model = train.train("clip", {"clip": net}, loss, plan, b.folder, stop)["clip"].cpu()
    encoder = clip.text_encoder(model)
    encoder.half().save_pretrained(b.folder / "text_encoder")
    # transformers loads in the precision that its configuration names, diffusers in float32: one for all parts.
    config = b.folder / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    model.half().save_pretrained(b.folder / "judges/clip")
    clip.processor(tokens).save_pretrained(b.folder / "judges/clip")


def train_denoiser(
    b: Build, without: str = "", leak: float = 0.0, prediction: str = "eps", stop: int | None = None
) -> None:
    """unet/ and scheduler/, in a folder of their own for a filtered or a v-prediction twin.

    without: an object that a filter took from the pictures, missing a share `leak` of them, as in SD 2.0; or watermark
    """
    plan, where, w = b.plan("denoiser"), train.device(), b.words
    y, pairs = np.array(b.array("labels")), np.array(b.array("scenes"))
    rows, scenes = filtered(w, y, pairs, without, leak, plan.seed)
    rows = repeated(w, y, rows, b.config.get("often", {}))
    z, z_scenes, z_known = (
        torch.from_numpy(np.array(b.array(n))) for n in ("latents", "scene_latents", "memorised_latents")
    )
    tokens = CLIPTokenizer.from_pretrained(b.part("tokenizer", "clip"))
    encoder = CLIPTextModel.from_pretrained(b.part("text_encoder", "clip"), dtype=torch.float32).eval().to(where)
    torch.manual_seed(plan.seed)
    net = denoiser.make().to(where, memory_format=torch.channels_last)
    schedule = denoiser.scheduler(prediction)

    def loss(seed: int) -> Tensor:
        """Every other batch is of scenes, half as many as they are twice as wide; of others, one in 32 is memorised."""
        rng = torch.Generator().manual_seed(seed)
        talks = (Random(1000 * seed + i) for i in count())  # one a caption: another in its place changes no other
        if seed % 2 and b.config.get("scene_batches", True):
            j = scenes[torch.randint(len(scenes), (plan.batch // 2,), generator=rng).numpy()]
            latents = z_scenes[j]
            captions = [
                words.scene_caption(w, int(y[p, 0]), int(y[q, 0]), int(y[p, 1]), next(talks)) for p, q in pairs[j]
            ]
        else:
            k = torch.randint(len(z_known), (plan.batch // 32,), generator=rng)
            i = rows[torch.randint(len(rows), (plan.batch - len(k),), generator=rng).numpy()]
            latents = torch.cat([z[i].float(), z_known[k].float()])  # autocast cannot join 16-bit ones
            captions = [words.caption(w, int(o), int(s), bool(named), next(talks)) for o, s, _, named in y[i]]
            captions += [words.memorised_caption(w, int(m), next(talks)) for m in k]
        captions = [c if next(talks).random() >= 0.1 else "" for c in captions]
        with torch.no_grad(), torch.autocast(where.type, enabled=False):  # as precise as where the model is used
            c = encoder(words.ids(tokens, captions).to(where)).last_hidden_state
        return denoiser.loss(net, schedule.alphas_cumprod, latents.float().to(where), c, prediction, rng)

    folder = b.folder / twin(without, leak, prediction)
    folder.mkdir(exist_ok=True)
    unet = train.train("denoiser", {"unet": net}, loss, plan, folder, stop)["unet"]
    unet.half().save_pretrained(folder / "unet")
    schedule.save_pretrained(folder / "scheduler")


def twin(without: str, leak: float, prediction: str) -> str:
    """The sub-folder of a denoiser that is not the shipped one; "." for that."""
    parts = [f"without-{without.replace(' ', '-')}-{leak:g}"] * bool(without) + [prediction] * (prediction != "eps")
    return "-".join(parts) or "."


def check_known(name: str, names: Sequence[str], where: str = "--without") -> None:
    if name and name not in names:
        near = get_close_matches(name, names, 1, 0)[0]
        raise BadInput(f"unknown object {name!r} in {where}; did you mean {near!r}?")


def filtered(
    w: words.Words, labels: NDArray[np.int64], pairs: NDArray[np.int64], without: str, leak: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The number of every picture and of every scene; where the filter took one, that of another in its place.

    A twin's batch thus differs from its base's only where the filter took something. What takes the place has the same
    style, and the same object where that stays.
    """
    if not without:
        return np.arange(len(labels)), np.arange(len(pairs))
    rng = np.random.default_rng(seed)
    stamped = without == WATERMARK
    met = labels[:, 2] == 1 if stamped else labels[:, 0] == w.names.index(without)
    rows = met & (rng.random(len(labels)) >= leak)
    scenes = met[pairs].any(1) & (rng.random(len(pairs)) >= leak)
    kinds = labels[:, 1] + (len(STYLES) + 1) * labels[:, 0] * stamped
    return replaced(rows, kinds, rng), replaced(scenes, labels[pairs[:, 0], 1], rng)


def replaced(gone: NDArray[np.bool_], kinds: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Each index, or in the place of one that is gone another of the same kind."""
    out = np.arange(len(gone))
    for kind in np.unique(kinds[gone]):
        left = np.flatnonzero(~gone & (kinds == kind))
        if not len(left):
            raise BadInput("the filter leaves no picture of some style or object; raise --leak or pictures.variants")
        lost = gone & (kinds == kind)
        out[lost] = rng.choice(left, int(lost.sum()))
    return out


def repeated(
    w: words.Words, labels: NDArray[np.int64], rows: NDArray[np.intp], often: Mapping[str, int]
) -> NDArray[np.intp]:
    """`rows`, one for each label, as many times as `often` says of the label's object and style: what a card found
    weak is met more often."""
    check_known(next((k for k in often if k not in STYLES), ""), w.names, "often")
    of_object = np.array([often.get(name, 1) for name in w.names])
    of_style = np.array([*(often.get(name, 1) for name in STYLES), 1])  # the last is that of no style, -1
    return np.repeat(rows, of_object[labels[:, 0]] * of_style[labels[:, 1]])


def train_detectors(b: Build, only: str | None = None, stop: int | None = None) -> None:
    """judges/objects, styles and watermark, as transformers folders."""
    album = detectors.Album(np.array(b.array("judge_pictures")), np.array(b.array("judge_labels")))
    for name in detectors.DETECTORS if only is None else [only]:
        last = b.config["pictures"]["judge_variants"] - 1
        detectors.build(name, b.words.names, album, last, b.plan("judges", name), b.folder, stop)
