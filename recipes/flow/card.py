"""The pipeline becomes one folder in the hub's layout, with a card of what was measured on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from diffusers import AuraFlowPipeline
from PIL import Image, ImageDraw, ImageFont

from recipes.mini import card, measure
from recipes.mini.pictures import SIDE, Bytes

from . import text
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
            "detectors": {name: f"{judges}/{name}" for name in ("objects", "styles", "watermark", "clip")},
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


def sheet(drawn: Mapping[str, Bytes], columns: int = 14) -> Image.Image:
    """A contact sheet: pictures (64, 64, 3) with the beginnings of their prompts."""
    wide, high = 2 * SIDE, SIDE + 14
    out = Image.new("RGB", (columns * wide, -(-len(drawn) // columns) * high), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(10)
    for i, (prompt, x) in enumerate(drawn.items()):
        left, top = i % columns * wide, i // columns * high
        out.paste(Image.fromarray(x), (left, top))
        pen.text((left, top + SIDE), prompt[:26], "black", font)
    return out


TEXT = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
