"""How far two pictures are from each other: by pixel, and as a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize

from unsee.errors import InputError, unknown

NETS = ("alex", "vgg", "squeeze")


def grey_levels(one: Image, two: Image) -> float:
    """Mean absolute difference of two pictures of one size over pixels and the channels R, G, B: 0 to 255.

    Not of their luminance: a red thing that turns into a green one as bright would be no change.
    """
    a, b = (np.asarray(picture.convert("RGB"), np.float32) for picture in (one, two))
    return float(np.abs(a - b).mean())


@dataclass(frozen=True)
class Distance:
    """A perceptual distance of pairs of pictures of one size; 0 of equal ones.

    source  what computes it
    name    "LPIPS" for that alone, which papers report; else "perceptual distance"
    far     two batches of pictures, all of one size -> (B,)
    """

    source: str
    name: str
    far: Callable[[Sequence[Image], Sequence[Image]], Tensor]
    labels: tuple[str, ...] = ()

    @torch.no_grad()
    def __call__(self, one: Sequence[Image], two: Sequence[Image], batch: int = 32) -> list[float]:
        """The distance of each pair, (N,)."""
        found: list[float] = []
        for start in range(0, len(one), batch):
            pairs = zip(one[start : start + batch], two[start : start + batch], strict=True)
            for _, some in groupby(pairs, key=lambda pair: pair[0].size):
                found += self.far(*zip(*some, strict=True)).double().tolist()
        return found


def lpips(net: str) -> Distance:
    """LPIPS of Zhang et al. (CVPR 2018), by its authors' package, which fetches and reads its own weights.

    It is version 0.1, which takes pictures from -1 to 1 and brings them to ImageNet's mean and spread by itself.
    Raises InputError where that is not installed, or cannot be loaded.
    """
    if net not in NETS:
        raise unknown("network of LPIPS", net, NETS)
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise InputError("LPIPS needs a package of its own: pip install 'unsee[lpips]'") from error
    except RuntimeError as error:  # of torchvision, which it imports, where that was built for another torch
        raise InputError(f"LPIPS cannot be imported; its torchvision does not fit this torch: {error}") from error
    try:
        model = LPIPS(net=net, verbose=False).eval()
    except (OSError, RuntimeError) as error:
        raise InputError(f"LPIPS cannot fetch the weights of its network {net}: {error}") from error

    def far(one: Sequence[Image], two: Sequence[Image]) -> Tensor:
        return model(_scaled(one), _scaled(two)).flatten()  # type: ignore[no-any-return]

    return Distance(f"lpips:{net}", "LPIPS", far)


def _scaled(pictures: Sequence[Image]) -> Tensor:
    """(B, 3, H, W) from -1 to 1"""
    rows = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures])
    return torch.from_numpy(rows).permute(0, 3, 1, 2) / 127.5 - 1


def by_maps(source: str, maps: Callable[[Sequence[Image]], list[Tensor]]) -> Distance:
    """LPIPS's formula with equal weights, on the layers of a network that was not made for it.

    d = mean over layers l of mean over places p of |f_l(x)_p - f_l(y)_p|^2,   f of length one over channels
    so from 0 to 4. Zhang et al. choose a weight for each channel that agrees with people, and sum over layers.
    """

    def far(one: Sequence[Image], two: Sequence[Image]) -> Tensor:
        pairs = zip(maps(one), maps(two), strict=True)
        layers = [(normalize(x.float()) - normalize(y.float())).square().sum(1).mean(1) for x, y in pairs]
        return torch.stack(layers).mean(0).cpu()

    return Distance(source, "perceptual distance", far)
