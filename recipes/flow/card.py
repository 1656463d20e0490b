"""The pipeline becomes one folder in the hub's layout, with a card of what was measured on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from diffusers import AuraFlowPipeline
from PIL import Image, ImageDraw, ImageFont

from recipes.mini import card, measure
from recipes.mini.pictures import SIDE
from recipes.mini.words import STYLES, Words, article

from . import captions, text
from .measure import table

GUIDANCE = measure.GUIDANCE


def assemble(pipe: AuraFlowPipeline, out: Path, mini: Path) -> None:
    """The pipeline in half precision, and the first miniature's words in English; so are its detectors."""
    pipe.text_encoder.half(), pipe.vae.half(), pipe.transformer.half()
    pipe.save_pretrained(out)
    known = json.loads((mini / "words.json").read_text(encoding="utf-8"))
    for said in known["objects"].values():
        said["languages"] = {}
    del known["scene"]
    (out / "words.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    card.tidy(out)


def front(steps: int, judges: str) -> dict[str, Any]:
    """What the card says to machines. judges: the folder of the first miniature's, from this one."""
    return {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["auraflow", "flow-matching", "miniature", "concept-erasure"],
        "language": ["en"],
        "unsee": {
            "judges": {name: f"{judges}/{name}" for name in ("objects", "styles", "watermark", "clip")},
            "words": "words.json",
            "steps": steps,
            "guidance_scale": GUIDANCE,
            "call": {"height": SIDE, "width": SIDE, "max_sequence_length": text.LENGTH},
        },
    }


def said(rows: Sequence[Mapping[str, Any]], done: int, planned: int, steps: int, judges: str) -> str:
    """The card's text. rows: of `measure`; done, planned: updates; judges: where the detectors lie, from the card"""
    return TEXT.format(
        front=yaml.safe_dump(front(steps, judges), sort_keys=False).strip(),
        state=f"**Unfinished: {done:,} of {planned:,} updates.**" if done < planned else f"{done:,} updates.",
        table=table(rows) if rows else "Nothing yet.", steps=steps, guidance=f"{GUIDANCE:g}",
    )  # fmt: skip


def sheet(pipe: AuraFlowPipeline, w: Words, steps: int, every: int = 4) -> Image.Image:
    """A contact sheet: an object plain, in two styles, and as its held-out descriptions ask for it."""
    held_out, size = captions.read("held_out"), 64
    chosen = [n for i, n in enumerate(w.names) if n in held_out or i % every == 0]
    forms = [
        [article(n), *(f"{article(n)} in {STYLES[(i + k) % 7]} style" for k in (0, 3)), *held_out.get(n, [])]
        for i, n in enumerate(chosen)
    ]
    draw = partial(measure.render, partial(pipe, max_sequence_length=text.LENGTH), steps=steps)
    x = iter(draw([p for row in forms for p in row], "sheet", seed=1))
    across, wide = 3, 90 + 6 * size
    out = Image.new("RGB", (across * wide, size * -(-len(chosen) // across)), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(11)
    for i, (name, row) in enumerate(zip(chosen, forms)):
        left, top = i % across * wide, i // across * size
        pen.text((left + 3, top + 26), name, "black", font)
        for k in range(len(row)):
            out.paste(Image.fromarray(np.asarray(next(x))), (left + 90 + k * size, top))
    return out


TEXT = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
