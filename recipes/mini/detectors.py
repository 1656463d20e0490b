"""Three small classifiers that say what pictures show: which object, which style, is there a watermark.

They are stock `ResNetForImageClassification`s (He et al., 2016). They never see the denoiser's own training pictures
but other placements of more vendors' drawings, worn as a generator wears them (blur, noise, shifted colors). The
detector of objects also sees strangers, drawings of something else, and learns to be undecided about them (outlier
exposure, Hendrycks et al., 2019): below the threshold in its config a picture shows none of the objects.

    x    picture in [-1, 1], (B, 3, 64, 64)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from . import train
from .autoencoder import tensor
from .pictures import Bytes, stamp
from .words import STYLES

# Detectors were once called judges. Published cards name the folder judges/, and unfinished builds have the step, the
# settings and the files of that name: these names stay.
DETECTORS: dict[str, tuple[int, ...]] = {  # widths of the stages
    "objects": (32, 64, 128, 192),
    "styles": (32, 64, 96, 96),
    "watermark": (12, 24, 32, 48),
}
HELD_OUT = 10  # every tenth stranger is hidden from training, and the last variant of every object


def make(labels: Sequence[str], widths: Sequence[int]) -> ResNetForImageClassification:
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=widths[0],
            hidden_sizes=list(widths),
            depths=[1] * len(widths),
            layer_type="basic",
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    )


def processor() -> ViTImageProcessor:
    """Resize to 64x64, [0, 255] -> [-1, 1]."""
    return ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def worn(x: Tensor, rng: torch.Generator, blur: float = 1) -> Tensor:
    """x as a generator might have made it: each picture moved, blurred, recolored and grainy to its own degree.

    blur: how much of a picture its coarse copy may replace; 1 hides that pixel art has pixels
    """

    def u(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand((len(x), channels, 1, 1), generator=rng)

    theta = torch.cat([u(0.92, 1.08), u(0, 0), u(-0.1, 0.1), u(0, 0), u(0.92, 1.08), u(-0.1, 0.1)], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    # what a generator leaves out is fine detail: mix with a copy at a half or a third of the resolution
    side = 32 if torch.rand((), generator=rng) < 0.5 else 22
    coarse = F.interpolate(F.interpolate(x, size=side, mode="bilinear", antialias=True), size=64, mode="bilinear")
    x = torch.lerp(x, coarse, blur * u(-0.3, 1).clamp(min=0))
    x = x * u(0.75, 1.15) * u(0.88, 1.12, 3) + u(-0.12, 0.12)
    blots = F.interpolate(torch.randn((len(x), 3, 16, 16), generator=rng), size=64, mode="bilinear")
    x = x + u(0, 0.2) * torch.randn(x.shape, generator=rng) + u(-0.1, 0.2).clamp(min=0) * blots
    return x.clamp(-1, 1)


def stamped(x: Tensor, which: Tensor, rng: torch.Generator) -> Tensor:
    """x with the watermark on the chosen pictures (B,), at an opacity of 0.45 to 0.75 and off by up to 2 pixels."""
    cover = torch.from_numpy(stamp())[None, None, ..., 0]
    dy, dx = (int(torch.randint(-2, 3, (), generator=rng)) for _ in range(2))
    cover = torch.roll(cover, (dy, dx), (2, 3))
    opacity = (0.45 + 0.3 * torch.rand((len(x), 1, 1, 1), generator=rng)) * which[:, None, None, None]
    color = (torch.tensor([90.0, 90.0, 110.0]) / 127.5 - 1)[None, :, None, None]
    return torch.lerp(x, color.expand_as(x), opacity * cover)


@dataclass(frozen=True)
class Album:
    """The detectors' pictures (N, 64, 64, 3) and labels (N, 3): object or -1, style or -1, variant."""

    pictures: Bytes
    labels: NDArray[np.int64]

    def split(self, last_variant: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows to learn from, rows held out: the last variants of objects; all of every tenth stranger."""
        objects, variant = self.labels[:, 0], self.labels[:, 2]
        run = np.cumsum((objects < 0) & (np.arange(len(objects)) % 8 == 0))  # counts (stranger, variant)
        strangers = (objects < 0) & ((run - 1) // (variant[objects < 0].max() + 1) % HELD_OUT == 0)
        held = np.where(objects >= 0, variant == last_variant, strangers)
        return np.flatnonzero(~held), np.flatnonzero(held)


def batch(
    album: Album, rows: NDArray[np.intp], n: int, seed: int, *, marked: float, blur: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Worn pictures (n, 3, 64, 64), their labels (n, 3), and which carry the watermark (n,), a share `marked`."""
    rng = torch.Generator().manual_seed(seed)
    i = rows[torch.randint(len(rows), (n,), generator=rng).numpy()]
    mark = torch.rand(n, generator=rng) < marked
    x = worn(stamped(tensor(album.pictures[i]), mark, rng), rng, blur)
    return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(album.labels[i]), mark


def objects_loss(net: ResNetForImageClassification, x: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy; against the uniform distribution for strangers and for blends of two pictures.

    label: object or -1, (B,)
    """
    k = len(x) // 12  # half-and-half blends look like a generator that cannot decide
    x = torch.cat([x, torch.lerp(x[:k], x[k : 2 * k], 0.5)])
    label = torch.cat([label, label.new_full((k,), -1)])
    logp = net(x).logits.log_softmax(1)
    right = logp.gather(1, label.clamp(min=0)[:, None])[:, 0]
    return -torch.where(label >= 0, right, logp.mean(1)).mean()


@torch.no_grad()
def logits(net: ResNetForImageClassification, x: Tensor, size: int = 256) -> Tensor:
    where = next(net.parameters()).device
    return torch.cat([net(b.to(where)).logits.cpu() for b in x.split(size)])


def temperature(scores: Tensor, label: Tensor) -> float:
    """The T for which softmax(scores / T) is best calibrated (Guo et al., 2017), by golden section on log T."""
    low, high, ratio = -2.0, 2.0, 0.381966
    for _ in range(40):
        a, b = low + ratio * (high - low), high - ratio * (high - low)
        worse = F.cross_entropy(scores / np.exp(a), label) > F.cross_entropy(scores / np.exp(b), label)
        low, high = (a, high) if worse else (low, b)
    return float(np.exp((low + high) / 2))


def calibrate(net: ResNetForImageClassification, scores: Tensor, label: Tensor) -> float:
    """Folds the temperature into the last layer; returns it."""
    t = temperature(scores, label)
    last = net.classifier[-1]
    with torch.no_grad():
        last.weight /= t
        last.bias /= t
    return t


def threshold(known: Tensor, strange: Tensor) -> float:
    """The least probability of the best label at which to believe it.

    Maximises the share of known pictures above it plus that of strangers below it, but lets 98 % of the known through.

    known, strange: probabilities of the best label, (N,), (M,)
    """
    at = torch.linspace(0.02, 0.98, 97)
    kept = (known[:, None] >= at).float().mean(0)
    score = kept + (strange[:, None] < at).float().mean(0)
    score[kept < 0.98] = -1
    return float(at[score.argmax()])


def build(
    name: str,
    objects: Sequence[str],
    album: Album,
    last_variant: int,
    plan: train.Plan,
    folder: Path,
    stop: int | None = None,
) -> None:
    """Trains the detector `name`, calibrates it on held-out pictures and writes folder/judges/NAME."""
    learn, held = album.split(last_variant)
    labels = {"objects": objects, "styles": STYLES, "watermark": ("clean", "watermark")}[name]
    torch.manual_seed(plan.seed)
    net = make(labels, DETECTORS[name]).to(train.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    wear = {"marked": 0.5 if name == "watermark" else 0.3, "blur": 0.4 if name == "styles" else 1.0}
    if name == "styles":
        learn, held = (rows[album.labels[rows, 1] >= 0] for rows in (learn, held))

    def answers(label: Tensor, mark: Tensor) -> Tensor:
        return {"objects": label[:, 0], "styles": label[:, 1], "watermark": mark.long()}[name]

    def loss(seed: int) -> Tensor:
        x, label, mark = batch(album, learn, plan.batch, seed, **wear)
        x, answer = x.to(train.device()), answers(label, mark).to(train.device())
        return objects_loss(net, x, answer) if name == "objects" else F.cross_entropy(net(x).logits, answer)

    net = train.train(f"judge-{name}", {"net": net}, loss, plan, folder, stop)["net"]
    x, label, mark = batch(album, held, 2 * len(held), seed=-1, **wear)
    answer, scores = answers(label, mark), logits(net, x)
    known = answer >= 0
    calibrate(net, scores[known], answer[known])
    p = logits(net, x).softmax(1).amax(1)
    net.config.threshold = threshold(p[known], p[~known]) if name == "objects" else 0.0
    net.half().save_pretrained(folder / "judges" / name)
    processor().save_pretrained(folder / "judges" / name)
