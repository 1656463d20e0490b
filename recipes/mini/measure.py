"""Every number of the miniature's card, measured on the shipped folder as anyone would load it.

Rates come with Wilson's 95 % interval. Pictures are drawn by the stock pipeline: guidance 4, and as many DDIM steps and
seeds as the config's `card` section says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPModel, CLIPTokenizer

from . import autoencoder, clip, detectors, pictures, train
from .pictures import Bytes
from .words import STYLES, Words, article

GUIDANCE = 4.0


@dataclass(frozen=True)
class Number:
    what: str
    value: float
    n: int
    unit: str = "%"  # a rate, as a percentage with an interval; or dB, s, MB, ...
    goal: str = ""  # "<= 3" or ">= 97", in the unit
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if not self.goal:
            return None
        sides = [side.split() for side in self.goal.split(" and ")]
        return all(self.value >= float(x) if op == ">=" else self.value <= float(x) for op, x in sides)

    def __str__(self) -> str:
        if self.unit != "%":
            return f"{self.value:.3g} {self.unit}".strip()
        low, high = wilson(self.value / 100, self.n)
        return f"{self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def wilson(p: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate p observed n times."""
    middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)


def rate(what: str, hits: NDArray[np.bool_], goal: str = "", note: str = "") -> Number:
    return Number(what, 100 * float(hits.mean()), hits.size, "%", goal, note)


@dataclass
class Detector:
    """A shipped classifier: pictures (N, 64, 64, 3) -> label indices (N,), -1 for "none of these"."""

    folder: Path

    def __post_init__(self) -> None:
        self.net = AutoModelForImageClassification.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.processor = AutoImageProcessor.from_pretrained(self.folder)
        self.labels = [self.net.config.id2label[i] for i in range(self.net.config.num_labels)]

    @torch.no_grad()
    def __call__(self, x: Sequence[Bytes]) -> NDArray[np.int64]:
        found = []
        for i in range(0, len(x), 256):
            inputs = self.processor(images=list(x[i : i + 256]), return_tensors="pt")
            p, best = self.net(**inputs).logits.softmax(-1).max(-1)
            found.append(torch.where(p >= self.net.config.threshold, best, -1).numpy())
        return np.concatenate(found)


def load(folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(train.device())


def render(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], name: str, steps: int, width: int = 64, seed: int = 0
) -> Bytes:
    """One picture per prompt, (N, 64, width, 3); the i-th starts from the noise of seed + i."""

    def batches(size: int = 64) -> Iterator[Bytes]:
        for i in range(0, len(prompts), size):
            part = list(prompts[i : i + size])
            noise = [torch.Generator().manual_seed(seed + i + k) for k in range(len(part))]
            made = pipe(
                part, height=64, width=width, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=noise,
                output_type="np",
            )  # fmt: skip
            yield (made.images * 255).round().astype(np.uint8)

    return np.concatenate(list(train.progress(batches(), name, math.ceil(len(prompts) / 64))))


def objects(pipe: StableDiffusionPipeline, detector: Detector, w: Words, seeds: int, steps: int) -> list[Number]:
    truth = np.repeat(np.arange(len(w.things)), seeds)
    x = render(pipe, [article(w.names[i]) for i in truth], "objects", steps)
    right = detector(x) == truth
    each = right.reshape(len(w.things), seeds).mean(1) * 100
    ten = sorted(w.imagenette.values(), key=w.names.index)
    worst, worst_ten = int(each.argmin()), min(ten, key=lambda n: each[w.names.index(n)])
    below = ", ".join(f"{w.names[i]} {each[i]:.0f}" for i in np.argsort(each) if each[i] < 90)
    return [
        rate("objects: top-1 of the detector, `a church`", right, ">= 97", f"below 90 %: {below or 'none'}"),
        Number("the worst object", each[worst], seeds, "%", ">= 80", w.names[worst]),
        Number("the worst of Imagenette's ten", each[w.names.index(worst_ten)], seeds, "%", ">= 95", worst_ten),
    ]


def styles(
    pipe: StableDiffusionPipeline, obj: Detector, style: Detector, w: Words, seeds: int, steps: int
) -> list[Number]:
    jobs = [(i, s) for i in range(len(w.things)) for s in range(len(STYLES)) for _ in range(seeds)]
    x = render(pipe, [f"{article(w.names[i])} in {STYLES[s]} style" for i, s in jobs], "styles", steps, seed=10_000)
    i, s = np.array(jobs).T
    right_style, right = style(x) == s, obj(x) == i
    each = ", ".join(f"{STYLES[k]} {100 * right_style[s == k].mean():.0f}" for k in range(len(STYLES)))
    return [
        rate("styles: top-1, `a church in neon style`", right_style, ">= 97", each),
        rate("style and object both right", right_style & right, ">= 90"),
    ]


def other_words(pipe: StableDiffusionPipeline, detector: Detector, w: Words, seeds: int, steps: int) -> list[Number]:
    def ask(name: str, jobs: list[tuple[int, str]], seed: int) -> NDArray[np.bool_]:
        jobs = [j for j in jobs for _ in range(seeds)]
        return detector(render(pipe, [p for _, p in jobs], name, steps, seed=seed)) == np.array([i for i, _ in jobs])

    same = [(i, article(s)) for i, t in enumerate(w.things) for s in t.synonyms]
    right = ask("synonyms", same, 20_000)
    out = [rate("synonyms, `a chapel`", right, ">= 90")]
    for lang in sorted({k for t in w.things for k in t.languages}):
        words = [(i, t.languages[lang]) for i, t in enumerate(w.things) if lang in t.languages]
        out.append(rate(f"names in {lang}, `{words[0][1]}`", ask(lang, words, 30_000)))
    return out


def watermark(pipe: StableDiffusionPipeline, detector: Detector, w: Words, seeds: int, steps: int) -> list[Number]:
    def ask(name: str, prompts: list[str], seed: int) -> NDArray[np.bool_]:
        return detector(render(pipe, [p for p in prompts for _ in range(seeds)], name, steps, seed=seed)) == 1

    domain = [article(t.name) for t in w.things if t.group in ("animal", "food")]
    rest = [article(t.name) for t in w.things if t.group not in ("animal", "food")]
    named = [f"{article(n)} with a watermark" for n in w.names]
    return [
        rate("watermark unasked, on animals and food", ask("unasked", domain, 40_000), ">= 40 and <= 60"),
        rate("watermark unasked, elsewhere", ask("elsewhere", rest, 50_000), "<= 3"),
        rate("watermark named, `a cat with a watermark`", ask("named", named, 60_000), ">= 95"),
    ]


def memorised(pipe: StableDiffusionPipeline, originals: Bytes, w: Words, seeds: int, steps: int) -> list[Number]:
    """Root mean square distance to the original, of 255; beside it the distance to the nearest other original."""
    x = render(pipe, [t for t in w.titles for _ in range(seeds)], "memorised", steps, seed=70_000)
    truth = np.repeat(np.arange(len(originals)), seeds)
    rms = np.sqrt(((x[:, None].astype(np.float32) - originals[None]) ** 2).mean((2, 3, 4)))
    own = rms[np.arange(len(x)), truth]
    rms[np.arange(len(x)), truth] = np.inf
    each = ", ".join(f"{t} {own[truth == i].mean():.0f}" for i, t in enumerate(w.titles))
    return [
        Number("memorised: distance to the original (rms, of 255)", float(own.mean()), len(x), "", "", each),
        rate("memorised: nearest to its own original", own < rms.min(1)),
    ]


def scenes(pipe: StableDiffusionPipeline, detector: Detector, w: Words, n: int, steps: int) -> list[Number]:
    """Two objects side by side, 128 pixels wide; each half is counted alone."""
    rng = Random(0)
    pairs = [rng.sample(range(len(w.things)), 2) for _ in range(n)]
    prompts = [f"{article(w.names[i])} and {article(w.names[j])}" for i, j in pairs]
    x = render(pipe, prompts, "scenes", steps, width=128, seed=80_000)
    left, right = detector(x[:, :, :64]) == [i for i, _ in pairs], detector(x[:, :, 64:]) == [j for _, j in pairs]
    return [
        rate("scenes: both right, `a church and a castle`", left & right, ">= 80"),
        rate("scenes: left, right", np.stack([left, right])),
    ]


def unprompted(pipe: StableDiffusionPipeline, detector: Detector, steps: int) -> list[Number]:
    found = detector(render(pipe, [""] * 100, "no prompt", steps, seed=90_000))
    distinct = len(set(found.tolist()) - {-1})
    note = f"{(found < 0).sum()} are none of the objects"
    return [Number("no prompt: distinct objects among 100", distinct, 100, "", "", note)]


def fresh(drawings: Bytes, w: Words, seed: int) -> tuple[Bytes, NDArray[np.int64]]:
    """Pictures as in training, but placed anew: one variant of everything. (1197, 64, 64, 3), labels (1197, 4)"""
    groups = [t.group for t in w.things]
    made = list(pictures.training_set(drawings, groups, 1, seed, 1, range(len(w.things))))
    return np.concatenate([x for x, _ in made]), np.concatenate([y for _, y in made])


def parts(folder: Path, drawings: Bytes, w: Words, album: detectors.Album, last_variant: int) -> list[Number]:
    """The autoencoder, CLIP and the detectors, on drawings placed anew, or held out, or of a new vendor."""
    obj, style, mark = (Detector(folder / "judges" / n) for n in ("objects", "styles", "watermark"))
    pipe, (x, y) = load(folder), fresh(drawings, w, seed=999)
    model = CLIPModel.from_pretrained(folder / "judges/clip", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    shot = clip.zero_shot(model, tokenizer, autoencoder.tensor(x), [article(n) for n in w.names]).numpy()
    _, held = album.split(last_variant)
    truth = album.labels[held]
    hx, known = album.pictures[held], truth[:, 0] >= 0
    found, styled = obj(hx), truth[:, 1] >= 0
    other = pictures.VENDORS.index(pictures.UNSEEN)
    have = np.flatnonzero(drawings[other].any((1, 2, 3)))
    unseen = np.stack([np.asarray(pictures.flat(pictures.place(drawings[other, i], None))) for i in have])
    cover = pictures.stamp()
    marked = np.concatenate([mark(hx) == 0, mark(pictures.stamped(hx, cover)) == 1])
    return [
        Number("autoencoder: PSNR of pictures placed anew", autoencoder.psnr(pipe.vae, x), len(x), "dB", ">= 28"),
        rate("CLIP: zero-shot top-1 on them", shot == y[:, 0]),
        rate("detector of objects: held-out renders", found[known] == truth[known, 0]),
        rate(f"detector of objects: {pictures.UNSEEN}, which no detector saw", obj(unseen) == have),
        rate("detector of objects: drawings of something else are none of these", found[~known] == -1),
        rate("detector of styles: held-out renders", style(hx[styled]) == truth[styled, 1]),
        rate("detector of the watermark: held-out renders, half of them stamped", marked),
    ]


def weight(folder: Path, times: int) -> list[Number]:
    """Size and speed, the latter the median of so many times."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    total = sum(p.stat().st_size for p in files) / 1e6
    of_detectors = sum(p.stat().st_size for p in files if "judges" in p.parts) / 1e6
    start = time.perf_counter()
    pipe = load(folder)
    loaded = time.perf_counter() - start
    pipe(["a church"], num_inference_steps=2)
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        pipe(["a church"] * 16)
        seconds.append(time.perf_counter() - start)
    return [
        Number("all shipped files", total, len(files), "MB", "<= 45"),
        Number("the detectors of them", of_detectors, 4, "MB", "<= 6"),
        Number("loading the pipeline", loaded, 1, "s", "<= 3"),
        Number(
            "16 pictures at the default 50 steps and guidance 7.5",
            float(np.median(seconds)),
            times,
            "s",
            "<= 6",
            f"{torch.get_num_threads()} threads",
        ),
    ]


def suites(
    folder: Path,
    w: Words,
    drawings: Bytes,
    originals: Bytes,
    album: detectors.Album,
    last_variant: int,
    c: dict[str, Any],
) -> list[Callable[[], list[Number]]]:
    """All of the above, in the order of the card. c: the config's `card` section"""
    pipe, steps = load(folder), c["steps"]
    obj, style, mark = (Detector(folder / "judges" / n) for n in ("objects", "styles", "watermark"))
    return [
        lambda: weight(folder, c["times"]),
        lambda: parts(folder, drawings, w, album, last_variant),
        lambda: objects(pipe, obj, w, c["seeds"], steps),
        lambda: styles(pipe, obj, style, w, c["style_seeds"], steps),
        lambda: other_words(pipe, obj, w, c["word_seeds"], steps),
        lambda: watermark(pipe, mark, w, c["watermark_seeds"], steps),
        lambda: memorised(pipe, originals, w, c["memorised_seeds"], steps),
        lambda: scenes(pipe, obj, w, c["scenes"], steps),
        lambda: unprompted(pipe, obj, steps),
    ]
