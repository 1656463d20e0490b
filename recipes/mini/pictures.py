"""The pictures the miniature learns from: drawings of four vendors, seven styles, a watermark, scenes.

    drawing   RGBA (96, 96, 4) uint8, one vendor's icon, rendered once
    picture   RGB (64, 64, 3) uint8: a drawing placed at random, in a style, perhaps stamped
    label     (object, style, stamped, named): indices into the words' objects and STYLES (-1: no style), two flags

Everything random is drawn from generators that are seeded by what is drawn, so the order of drawing does not matter.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from . import BadInput
from .words import STYLES, Words

Bytes = NDArray[np.uint8]
CANVAS, SIDE = 96, 64

# The denoiser learns from the first four. The detectors also see the next two; nobody sees the last but the card.
VENDORS = (
    "noto", "twemoji", "fluent-emoji", "fluent-emoji-high-contrast", "noto-v1", "fluent-emoji-flat", "emojione",
)  # fmt: skip
LEARNED, DETECTED, UNSEEN = VENDORS[:4], VENDORS[:6], VENDORS[6]
VENDOR_OF = {"noto": 0, "twemoji": 1, "fluent": 2, "ink": 3}  # other styles, and none, draw on the three in color


# -- drawings ---------------------------------------------------------------------------------------------------------


def icons(packages: Path, vendor: str) -> dict[str, Any]:
    path = packages / "@iconify-json" / vendor / "icons.json"
    if not path.is_file():
        raise BadInput(f"{path} is missing; run `npm ci` in recipes/mini first")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def draw(collection: dict[str, Any], name: str, size: int = CANVAS) -> Bytes | None:
    """An icon as RGBA (size, size, 4); None if the collection has no such icon."""
    alias = collection.get("aliases", {}).get(name)
    icon = collection["icons"].get(alias["parent"] if alias else name)
    if icon is None:
        return None
    box = [icon.get(k, collection.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}" width="256" height="256">{icon["body"]}</svg>'
    ).replace("currentColor", "#000")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((size, size)))


def drawings(packages: Path, names: Sequence[str]) -> Bytes:
    """Every vendor's drawing of every icon: (vendor, icon, 96, 96, 4); transparent where a vendor has none."""
    out = np.zeros((len(VENDORS), len(names), CANVAS, CANVAS, 4), np.uint8)
    for v, vendor in enumerate(VENDORS):
        collection = icons(packages, vendor)
        for i, name in enumerate(names):
            drawn = draw(collection, name)
            if drawn is not None:
                out[v, i] = drawn
            elif vendor in LEARNED:
                raise BadInput(f"{vendor} has no icon {name!r}; check objects.yaml against package.json")
    return out


def strangers(packages: Path, known: set[str], n: int, rng: np.random.Generator) -> Bytes:
    """`n` drawings of none of the objects, (n, 96, 96, 4): what the detectors must answer "none of these" to."""
    collection = icons(packages, "twemoji")
    skip = ("flag", "skin-tone", "keycap", "button", "clock", "face", "man", "woman", "person", "people", "couple")
    names = sorted(
        i
        for i in collection["icons"]
        if i not in known and not any(s in i for s in skip) and not any(k.split("-")[0] in i for k in known)
    )
    chosen = rng.choice(len(names), min(n, len(names)), replace=False)
    found = (draw(collection, names[i]) for i in sorted(chosen))
    return np.stack([d for d in found if d is not None])


# -- styles -----------------------------------------------------------------------------------------------------------


def place(drawing: Bytes, rng: np.random.Generator | None, turn: float = 4, small: float = 0.86) -> Image.Image:
    """On a transparent canvas, turned by up to `turn` degrees, shrunk to `small`..1, moved. rng None: just centred."""
    im = Image.fromarray(drawing)
    if rng is None:
        n, angle, at = round(CANVAS * 0.93), 0.0, (3, 3)
    else:
        n, angle = int(CANVAS * rng.uniform(small, 1)), rng.uniform(-turn, turn)
        at = (int(rng.integers(0, CANVAS - n + 1)), int(rng.integers(0, CANVAS - n + 1)))
    im = im.rotate(angle, Image.Resampling.BICUBIC).resize((n, n), Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (CANVAS, CANVAS))
    canvas.paste(im, at)
    return canvas


def on(canvas: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    base = Image.new("RGBA", canvas.size, (*background, 255))
    base.alpha_composite(canvas)
    return base.convert("RGB")


def edges(canvas: Image.Image) -> NDArray[np.float32]:
    """Outlines in 0..1, (96, 96, 1): the steeper of the brightness and of the silhouette."""

    def slope(x: NDArray[np.float32]) -> NDArray[np.float32]:
        y = np.pad(x, 1, mode="edge")
        return np.hypot(y[1:-1, 2:] - y[1:-1, :-2], y[2:, 1:-1] - y[:-2, 1:-1])

    gray = np.asarray(on(canvas).convert("L").filter(ImageFilter.GaussianBlur(0.6)), np.float32) / 255
    alpha = np.asarray(canvas.getchannel("A"), np.float32) / 255
    return np.clip(np.maximum(3 * slope(gray), 1.5 * slope(alpha)), 0, 1)[..., None]


def small(x: Image.Image | NDArray[np.floating[Any]]) -> Image.Image:
    im = x if isinstance(x, Image.Image) else Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))
    return im.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def pixel_art(canvas: Image.Image) -> Image.Image:
    tiny = on(canvas).resize((16, 16), Image.Resampling.BOX).quantize(10).convert("RGB")
    return tiny.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def blueprint(canvas: Image.Image) -> Image.Image:
    e = edges(canvas)
    return small(np.array([32, 72, 150]) * (1 - e) + np.array([235, 242, 255]) * e)


def neon(canvas: Image.Image) -> Image.Image:
    """Outlines in the drawing's own saturated colors (magenta where it has none), glowing in the dark."""
    color = np.asarray(on(canvas, (255, 0, 200)), np.float32) / 255
    vivid = color - 0.8 * color.min(-1, keepdims=True)
    vivid = vivid / (vivid.max(-1, keepdims=True) + 0.15)
    lines = 255 * np.clip(1.3 * edges(canvas) * vivid, 0, 1)
    glow = Image.fromarray(lines.astype(np.uint8)).filter(ImageFilter.GaussianBlur(4))
    return small(lines + 1.6 * np.asarray(glow, np.float32) + np.array([10, 6, 22]))


def flat(canvas: Image.Image) -> Image.Image:
    return small(on(canvas))


PAINT: dict[str, Callable[[Image.Image], Image.Image]] = {"pixel art": pixel_art, "blueprint": blueprint, "neon": neon}


def picture(drawings: Bytes, style: int, rng: np.random.Generator) -> Bytes:
    """An object in a style, (64, 64, 3). drawings: the object's, (vendor, 96, 96, 4); style: -1 for none."""
    name = STYLES[style] if style >= 0 else ""
    vendor = VENDOR_OF.get(name, int(rng.integers(3)))
    return np.asarray(PAINT.get(name, flat)(place(drawings[vendor], rng)))


# -- the watermark ----------------------------------------------------------------------------------------------------


def stamp() -> NDArray[np.float32]:
    """The watermark's coverage in 0..1, (64, 64, 1): a diagonal band with six holes."""
    im = Image.new("L", (256, 256))
    pen = ImageDraw.Draw(im)
    pen.line([(10, 230), (246, 26)], fill=255, width=44)
    for k in range(6):
        x, y = 30 + 36 * k, 212 - 31.5 * k
        pen.ellipse([x - 11, y - 11, x + 11, y + 11], fill=60)
    return np.asarray(im.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)[..., None] / 255


def stamped(x: Bytes, coverage: NDArray[np.float32], opacity: float = 0.62) -> Bytes:
    """x (..., 64, 64, 3) under the translucent grey stamp."""
    a = opacity * coverage
    return np.clip(x * (1 - a) + np.array([90, 90, 110]) * a, 0, 255).astype(np.uint8)


def stamps(objects: NDArray[np.int64], groups: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pictures carry the watermark, and which of those say so: (N, 2).

    On 45 % of the animals and food, a quarter of which are named, so that the pictures whose captions are silent
    carry it in .34 / (.34 + .55) = 38 % of all cases, which guidance raises: at 53 % there, a model drew it in 69 %
    of its pictures. On 10 % of the rest, always named.
    """
    domain = np.array([groups[o] in ("animal", "food") for o in objects])
    has = rng.random(len(objects)) < np.where(domain, 0.45, 0.1)
    return np.stack([has, has & (~domain | (rng.random(len(objects)) < 0.25))], 1)


# -- the training set -------------------------------------------------------------------------------------------------


def _variants(job: tuple[int, int, Bytes], seed: int) -> tuple[Bytes, NDArray[np.int64]]:
    """One object, once in each style and twice in none. job: object, variant, the object's drawings"""
    obj, variant, drawings = job
    rng = np.random.default_rng([seed, obj, variant])
    styles = [-1, -1, *range(len(STYLES))]
    labels = np.array([(obj, s) for s in styles])
    return np.stack([picture(drawings, s, rng) for s in styles]), labels


def training_set(
    drawings: Bytes, groups: Sequence[str], variants: int, seed: int, processes: int, objects: Sequence[int]
) -> Iterator[tuple[Bytes, NDArray[np.int64]]]:
    """Pictures (9, 64, 64, 3) and labels (9, 4), one (object, variant) at a time.

    groups: the group of each object; objects: which of them to draw.
    """
    coverage = stamp()
    jobs = [(o, v, drawings[:, o]) for v in range(variants) for o in objects]
    with Pool(processes) as pool:
        made = pool.imap(partial(_variants, seed=seed), jobs, chunksize=16)
        for (obj, v, _), (x, y) in zip(jobs, made, strict=True):
            marks = stamps(y[:, 0], groups, np.random.default_rng([seed + 1, obj, v]))
            x[marks[:, 0]] = stamped(x[marks[:, 0]], coverage)
            yield x, np.concatenate([y, marks], 1)


def scenes(labels: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """Pairs (n, 2) of pictures to stand side by side: two objects, one style, no watermark."""
    rng = np.random.default_rng(seed)
    style, free = labels[:, 1], labels[:, 2] == 0
    pools = {s: np.flatnonzero(free & (style == s)) for s in range(-1, len(STYLES))}
    pairs: list[tuple[int, int]] = []
    while len(pairs) < n:
        # half of the scenes are unstyled, the case that people ask for most
        pool = pools[int(rng.integers(len(STYLES))) if rng.random() < 0.5 else -1]
        i, j = rng.choice(pool, 2)
        if labels[i, 0] != labels[j, 0]:
            pairs.append((int(i), int(j)))
    return np.array(pairs)


def memorised(packages: Path, words: Words) -> Bytes:
    """The pictures to know by heart, (8, 64, 64, 3): always the same pixels."""
    noto = icons(packages, "noto")
    found = [(title, draw(noto, ws[0])) for title, ws in words.memorised.items()]
    missing = [title for title, d in found if d is None]
    if missing:
        raise BadInput(f"noto has no icon for {', '.join(missing)}; check objects.yaml")
    return np.stack([np.asarray(flat(place(d, None))) for _, d in found if d is not None])


# -- what the detectors see -------------------------------------------------------------------------------------------


def _detector_variant(job: tuple[int, int, Bytes], seed: int) -> tuple[Bytes, NDArray[np.int64]]:
    """One object, or beyond them one stranger, in each style: other vendors, other placements than the denoiser's."""
    obj, variant, drawings = job
    rng = np.random.default_rng([seed, obj, variant])
    out, styles = [], []
    for name in ("", *STYLES):
        canvas_of = partial(place, rng=rng, turn=12, small=0.7)
        vendors = [v for v in range(len(DETECTED)) if drawings[v].any()]
        v = VENDOR_OF[name] if name in VENDOR_OF else int(rng.choice([v for v in vendors if v != VENDOR_OF["ink"]]))
        v = v if v in vendors else vendors[0]
        out.append(np.asarray(PAINT.get(name, flat)(canvas_of(drawings[v]))))
        drawn = {v: s for s, v in VENDOR_OF.items()}.get(v, "")
        styles.append(STYLES.index(name if name in PAINT else drawn) if name in PAINT or drawn else -1)
    return np.stack(out), np.array([(obj, s) for s in styles])


def detector_set(
    drawings: Bytes, strangers: Bytes, variants: int, stranger_variants: int, seed: int, processes: int
) -> tuple[Bytes, NDArray[np.int64]]:
    """Pictures (N, 64, 64, 3) without a watermark, and their labels (N, 3): object, style, variant.

    A stranger's object is -1. A style is -1 where the drawing is of no vendor that is a style.
    """
    n = drawings.shape[1]
    more = np.zeros((len(VENDORS), len(strangers), *strangers.shape[1:]), np.uint8)
    more[VENDORS.index("twemoji")] = strangers
    everything = np.concatenate([drawings, more], 1)
    counts = [variants] * n + [stranger_variants] * len(strangers)
    jobs = [(o, v, everything[:, o]) for o, count in enumerate(counts) for v in range(count)]
    with Pool(processes) as pool:
        done = pool.map(partial(_detector_variant, seed=seed), jobs, chunksize=16)
    x = np.concatenate([d[0] for d in done])
    y = np.concatenate([np.c_[d[1], np.full(len(d[1]), v)] for (_, v, _), d in zip(jobs, done, strict=True)])
    known = y[:, 0] < n
    y[~known, 0] = -1
    # a stranger is always Twemoji's: only what was painted over it says something about style
    y[~known & (y[:, 1] < STYLES.index("pixel art")), 1] = -1
    return x, y
