"""The pipeline becomes one folder in the hub's layout, with a card of what was measured on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from diffusers import AuraFlowPipeline
from PIL import Image, ImageDraw, ImageFont

from recipes.mini import card as mini_card
from recipes.mini.measure import Number
from recipes.mini.pictures import SIDE, Bytes

from . import measure, text
from .measure import Model


def assemble(pipe: AuraFlowPipeline, out: Path, mini: Path) -> None:
    """The pipeline in half precision, and the first miniature's words in English; so are its detectors."""
    pipe.text_encoder.half(), pipe.vae.half(), pipe.transformer.half()
    pipe.save_pretrained(out)
    known = json.loads((mini / "words.json").read_text(encoding="utf-8"))
    for said in known["objects"].values():
        said["languages"] = {}
    del known["scene"]
    (out / "words.json").write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    mini_card.tidy(out)


def front(model: Model, detectors: str) -> dict[str, Any]:
    """What the card says to machines. detectors: the folder of the first miniature's, from this one."""
    return {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["auraflow", "flow-matching", "miniature", "concept-erasure"],
        "language": ["en"],
        "unsee": {
            "detectors": {name: f"{detectors}/{name}" for name in ("objects", "styles", "watermark", "clip")},
            "words": "words.json",
            "steps": model.steps,
            "guidance_scale": model.guidance,
            "call": {"height": SIDE, "width": SIDE, "max_sequence_length": text.LENGTH},
        },
    }


def said(model: Model, planned: int, detectors: str, numbers: Sequence[Number]) -> str:
    """The card's text. planned: mini-flow's updates when it is finished; detectors: where they lie, from the
    card; numbers: of the goals, if they were measured"""
    counts, rows = measure.counts(model.state), measure.read(model.state / "measured.json")
    done, of = counts.get("teacher", counts["updates"]), " of mini-flow" * ("teacher" in counts)
    state = f"**Unfinished: {done:,} of {planned:,} updates{of}.**" if done < planned else f"{done:,} updates{of}."
    if of:
        state += "\n\n" + DISTILLED.format(updates=counts["updates"], steps=model.steps).strip()
    return TEXT.format(
        front=yaml.safe_dump(front(model, detectors), sort_keys=False).strip(), name=model.name, state=state,
        title="its distilled sibling" if of else "a second miniature", steps=model.steps,
        how=f"guidance {model.guidance:g}" if model.guidance > 1 else "no guidance", guidance=f"{model.guidance:g}",
        goals=mini_card.table(numbers) if numbers else "Not measured yet.",
        table=measure.table(rows) if rows else "Nothing yet.",
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
DISTILLED = """
It draws in {steps} steps without guidance what mini-flow draws in more steps with guidance 4. It began with mini-flow's
weights and learned mini-flow's guided paths, for {updates:,} updates. Its parameters have the same names and shapes,
so an edit that was made on mini-flow can be applied to it. Take {steps} steps: it was trained for no other number, and
at one step its scheduler divides by zero.
"""
