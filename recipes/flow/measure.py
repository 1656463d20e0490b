"""What the second miniature can do, after so many updates: a row of a table, from a few hundred pictures.

Pictures are drawn by the stock pipeline and told by the first miniature's detectors. goals.py draws many more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, AutoencoderKL

from recipes.mini import measure
from recipes.mini.measure import Detector, wilson
from recipes.mini.pictures import Bytes
from recipes.mini.words import STYLES, Words, article

from . import captions, text, transformer

Rates = dict[str, tuple[int, int]]
"""By what was measured: how often it was right, of how many pictures."""


@dataclass(frozen=True)
class Model:
    """One of the two that are made here.

    name             of `unsee.load`
    state            the folder of its averaged weights in 16 bits, of their number of updates, and of what was measured
    steps, guidance  how it is drawn from
    parts            of its sampler's times, see transformer.scheduler
    """

    name: str
    state: Path
    steps: int
    guidance: float
    parts: int | None = None


def counts(state: Path) -> dict[str, int]:
    """Its updates; and those of its teacher, if it is distilled."""
    return json.loads((state / "updates.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def pipeline(
    net: AuraFlowTransformer2DModel, mini: Path, language_model: Path, parts: int | None = None
) -> AuraFlowPipeline:
    """The stock pipeline in 32 bits, of a network, the first miniature's autoencoder and the language model."""
    vae = AutoencoderKL.from_pretrained(mini / "vae", torch_dtype=torch.float32).eval()
    vae.register_to_config(scaling_factor=transformer.SCALE)
    tokenizer, encoder = text.load(language_model)
    pipe = AuraFlowPipeline(tokenizer, encoder, vae, net, transformer.scheduler(parts))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def caller(pipe: AuraFlowPipeline, guidance: float) -> Callable[..., Any]:
    """The pipeline as recipes.mini's suites call theirs, but at this guidance."""
    return lambda prompts, **options: pipe(
        prompts, **{**options, "guidance_scale": guidance, "max_sequence_length": text.LENGTH}
    )


def held_out(w: Words) -> list[tuple[int, str]]:
    """Objects by number, and their descriptions that are in no training caption."""
    return [(w.names.index(o), d) for o, ds in captions.read("held_out").items() if o in w.names for d in ds]


@torch.no_grad()
def row(
    pipe: AuraFlowPipeline, detectors: Mapping[str, Detector], originals: Bytes, w: Words, model: Model
) -> tuple[Rates, dict[str, Bytes]]:
    """Every object by name, every object in one style, every held-out description, the watermark, the memorised: how
    often each was right, and the pictures by prompt."""
    everything = np.arange(len(w.things))
    domain = np.array([t.group in ("animal", "food") for t in w.things])
    style = everything % len(STYLES)
    unseen = held_out(w)
    drawn: dict[str, Bytes] = {}

    def draw(prompts: Sequence[str], name: str, seed: int) -> Bytes:
        x = measure.render(caller(pipe, model.guidance), prompts, name, model.steps, seed=seed)
        drawn.update(zip(prompts, x))
        return x

    plain = draw([article(n) for n in w.names], "objects", seed=0)
    styled = draw([f"{article(n)} in {STYLES[s]} style" for n, s in zip(w.names, style)], "styles", seed=10_000)
    named = draw([f"{article(n)} with a watermark" for n in np.array(w.names)[domain]], "watermark", seed=20_000)
    titles = draw([t for t in w.titles for _ in range(2)], "memorised", seed=30_000)
    described = draw([d for _, d in unseen], "held out", seed=40_000)

    right_style, stamped = detectors["styles"](styled) == style, detectors["watermark"](plain) == 1
    rms = np.sqrt(((titles[:, None].astype(np.float32) - originals[None]) ** 2).mean((2, 3, 4)))
    found = {
        "objects": detectors["objects"](plain) == everything,
        "styles": right_style,
        "style and object": right_style & (detectors["objects"](styled) == everything),
        "unseen descriptions": detectors["objects"](described) == np.array([o for o, _ in unseen]),
        "watermark unasked, animals and food": stamped[domain],
        "watermark unasked, elsewhere": stamped[~domain],
        "watermark named": detectors["watermark"](named) == 1,
        "memorised": rms.argmin(1) == np.repeat(np.arange(len(originals)), 2),
    }
    return {name: (int(hits.sum()), hits.size) for name, hits in found.items()}, drawn


def detectors(mini: Path) -> dict[str, Detector]:
    return {name: Detector(mini / "judges" / name) for name in ("objects", "styles", "watermark")}


def keep(path: Path, updates: int, rates: Rates) -> list[dict[str, Any]]:
    """Adds a row to a file of rows, in the place of an earlier one of as many updates; returns all rows."""
    rows = [r for r in read(path) if r["updates"] != updates] + [{"updates": updates, "rates": rates}]
    path.write_text(json.dumps(sorted(rows, key=lambda r: r["updates"]), indent=1) + "\n", encoding="utf-8")
    return read(path)


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each row, percentages with n in the head; the last one's intervals below."""
    names = list(rows[-1]["rates"])
    head = "| updates | " + " | ".join(f"{name} (n = {rows[-1]['rates'][name][1]})" for name in names) + " |"
    lines = [head, "|---" * (len(names) + 1) + "|"]
    for r in rows:
        cells = [f"{100 * r['rates'][x][0] / r['rates'][x][1]:.1f} %" if x in r["rates"] else "" for x in names]
        lines.append(f"| {r['updates']:,} | " + " | ".join(cells) + " |")
    ends = [f"{100 * e:.0f}" for e in np.ravel([wilson(h / n, n) for h, n in rows[-1]["rates"].values()])]
    spans = [f"{low} to {high}" for low, high in zip(ends[::2], ends[1::2])]
    return "\n".join([*lines, "| its 95 % interval | " + " | ".join(spans) + " |"])
