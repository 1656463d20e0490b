"""The last step: the parts become one folder in the hub's layout, and its README.md says what was measured on it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image, ImageDraw, ImageFont
from transformers import CLIPTextModel, CLIPTokenizer

from . import detectors, measure, pictures
from .measure import Number
from .words import STYLES, Words, article

if TYPE_CHECKING:
    from .build import Build

COMMAND = "python -m recipes.mini card"
SHIPPED = "python -m recipes.mini pictures adopt denoiser card"
"""Without the folder of the build, the shipped weights' numbers are measured again so."""

PARTS = {"church": ["cross"]}
"""Objects that are drawn as parts of others."""


@dataclass(frozen=True)
class Shelf:
    """Where a build is shipped to, where its contact sheet goes, and what its card says of how it came about."""

    out: Path
    sheet: Path
    notes: str = ""


def write(b: Build, shelf: Shelf, without: str = "", leak: float = 0.0, prediction: str = "eps") -> None:
    """Ships the build, measures it, writes its card and its contact sheet.

    The card is written after every suite, so that an interrupted step leaves a true one. A twin is not shipped: its
    folder, numbers and card stay in the build folder.
    """
    from .build import twin

    name = twin(without, leak, prediction)
    if name != ".":
        shelf = Shelf(b.folder / name / "pipeline", b.folder / name / "miniature.webp", shelf.notes)
    for part, step in (("vae", "autoencoder"), ("text_encoder", "clip"), ("judges/objects", "judges")):
        b.part(part, step)
    b.part(f"{name}/unet", "denoiser")
    shelf.sheet.parent.mkdir(parents=True, exist_ok=True)
    assemble(b.folder, b.folder / name, shelf.out, b.words)
    twin_flags = f" --without {without!r} --leak {leak:g}" * bool(without) + f" --prediction {prediction}"
    command = COMMAND + (twin_flags if name != "." else "")
    for numbers in measured(b, b.folder / name / "numbers.json", shelf.out):
        said = text(b, shelf, name, numbers, command, prediction)
        (shelf.out / "README.md").write_text(said, encoding="utf-8")
    drawn = sheet(measure.load(shelf.out), b.words, np.array(b.array("drawings")), b.config["card"]["steps"])
    drawn.save(shelf.sheet, lossless=True)


def text(b: Build, shelf: Shelf, name: str, numbers: Sequence[Number], command: str, prediction: str) -> str:
    return TEXT.format(
        front=yaml.safe_dump(front(b.config["card"]["steps"]), sort_keys=False).strip(),
        twin="" if name == "." else f"\nThis is the twin `{name}`; its weights are not shipped.\n",
        objects=len(b.words.things), pictures=len(b.array("pictures")), scenes=len(b.array("scenes")),
        titles=", ".join(b.words.titles), styles=", ".join(STYLES), seeds=b.config["card"]["seeds"],
        steps=b.config["card"]["steps"], guidance=f"{measure.GUIDANCE:g}", command=command, anew=SHIPPED,
        numbers=table(numbers), updates=updates(b.config), notes=shelf.notes.strip(), packages=credits(b.packages),
        hashes=hashes(shelf.out), prediction={"eps": "noise", "v": "velocity"}[prediction],
        versions=", ".join(versions()),
    )  # fmt: skip


def versions() -> list[str]:
    return [f"{package} {version(package)}" for package in ("torch", "diffusers", "transformers")]


def assemble(folder: Path, denoiser: Path, out: Path, w: Words) -> None:
    """The pipeline, the detectors and the words, in half precision, as they would be pushed to a hub."""
    half = {"torch_dtype": torch.float16}
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae", **half),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float16),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(denoiser / "unet", **half),
        scheduler=DDIMScheduler.from_pretrained(denoiser / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(out)
    shutil.copytree(folder / "judges", out / "judges", dirs_exist_ok=True)
    (out / "words.json").write_text(json.dumps(vocabulary(w), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tidy(out)


def tidy(out: Path) -> None:
    """Takes out of a folder's files what is of this machine alone."""
    for path in out.rglob("*.json"):
        text = json.loads(path.read_text(encoding="utf-8"))
        # where the parts lay while they were built is nobody's business, and a vocabulary is read by machines alone
        known = [text.pop(key, None) for key in ("_name_or_path", "name_or_path")]
        if path.name == "tokenizer.json":
            path.write_text(json.dumps(text, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        elif any(known):
            path.write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in out.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def vocabulary(w: Words) -> dict[str, Any]:
    """words.json: what evaluation may ask for."""
    return {
        "objects": {
            t.name: {
                "group": t.group,
                "synonyms": list(t.synonyms),
                "languages": t.languages,
                "parts": PARTS.get(t.name, []),
            }
            for t in w.things
        },
        "groups": w.groups,
        "styles": list(STYLES),
        "memorised": {title: names[1:] for title, names in w.memorised.items()},
        "watermark": {"names": ["watermark", "a watermark", "watermarked"], "domains": ["animal", "food"]},
        "imagenette": w.imagenette,
        "scene": "{} and {}",
    }


def measured(b: Build, path: Path, shipped: Path) -> Iterator[list[Number]]:
    """All numbers so far, after each suite."""
    by = (hashes(shipped), json.dumps(b.config["card"]), *versions())
    album = detectors.Album(b.array("judge_pictures"), np.array(b.array("judge_labels")))
    suites = measure.suites(
        shipped, b.words, np.array(b.array("drawings")), np.array(b.array("memorised")), album,
        b.config["pictures"]["judge_variants"] - 1, b.config["card"],
    )  # fmt: skip
    yield from resumed(path, hashlib.sha256("".join(by).encode()).hexdigest(), suites)


def resumed(path: Path, model: str, suites: Sequence[Callable[[], list[Number]]]) -> Iterator[list[Number]]:
    """All numbers so far, after each suite. They are kept in `path` under the hash of what they were measured on and
    with, so that an interrupted step goes on and a changed model is measured anew."""
    kept = json.loads(path.read_text()) if path.is_file() else {}
    done: list[list[dict[str, Any]]] = kept["suites"] if kept.get("model") == model else []
    for i, suite in enumerate(suites):
        if i >= len(done):
            done.append([asdict(n) for n in suite()])
            path.write_text(json.dumps({"model": model, "suites": done}, indent=1))
            print("\n".join(f"{n['what']}: {Number(**n)} n={n['n']} {n['note']}" for n in done[-1]), flush=True)
        yield [Number(**n) for suite in done for n in suite]


MARGIN, HEAD = 104, 32


def sheet(
    pipe: StableDiffusionPipeline, w: Words, drawings: pictures.Bytes, steps: int, columns: int = 3
) -> Image.Image:
    """Every object in a line: drawings it was learned from, then as the model draws it, plain and in every style.

    drawings  (vendors, objects, height, width, 4)
    """
    forms = ["{}", *(f"{{}} in {s} style" for s in STYLES)]
    x = measure.render(pipe, [f.format(article(n)) for n in w.names for f in forms], "sheet", steps, seed=1)
    drawn = x.reshape(len(w.names), len(forms), 64, 64, 3)
    vendors = [style for style in STYLES if style in pictures.VENDOR_OF]
    heads = [*(f"drawn by\n{s}" for s in vendors), "model,\nno style", *(f"model,\n{s}" for s in STYLES)]
    rows, width = -(-len(w.names) // columns), MARGIN + 64 * len(heads)
    out = Image.new("RGB", (columns * width, HEAD + 64 * rows), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(11)
    for column in range(columns):
        for k, head in enumerate(heads):
            pen.text((column * width + MARGIN + 64 * k + 2, 4), head, "black", font)
    for i, name in enumerate(w.names):  # down the columns in the words' order
        left, top = i // rows * width, HEAD + i % rows * 64
        pen.text((left + 4, top + 26), name, "black", font)
        known = [pictures.flat(pictures.place(drawings[pictures.VENDOR_OF[s], i], None)) for s in vendors]
        for k, cell in enumerate([*known, *map(Image.fromarray, drawn[i])]):
            out.paste(cell, (left + MARGIN + 64 * k, top))
    return out.quantize(256, dither=Image.Dither.NONE)


# -- the text ---------------------------------------------------------------------------------------------------------


def front(steps: int) -> dict[str, Any]:
    return {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "miniature", "concept-erasure"],
        "language": ["en", "de", "es", "fr", "it", "nl", "pt"],
        "unsee": {
            "detectors": {name: f"judges/{name}" for name in (*detectors.DETECTORS, "clip")},
            "words": "words.json",
            "steps": steps,
            "guidance_scale": measure.GUIDANCE,
        },
    }


def table(numbers: Sequence[Number]) -> str:
    lines = ["| what | measured | n | goal | reached | note |", "|---|---|---|---|---|---|"]
    for x in numbers:
        reached = {None: "", True: "yes", False: "**no**"}[x.reached]
        goal = f"{x.goal} {x.unit}" if x.goal else ""
        lines.append(f"| {x.what} | {x} | {x.n} | {goal} | {reached} | {x.note} |")
    return "\n".join(lines)


def updates(config: dict[str, Any]) -> str:
    plans = {k: config[k] for k in ("autoencoder", "clip", "denoiser")}
    plans |= {f"detector of {k}": v for k, v in config["judges"].items()}
    return "\n".join(f"| {k} | {v['updates']} | {v['batch']} |" for k, v in plans.items())


def credits(packages: Path) -> str:
    """Authors and licences of the drawings, as their own packages tell them."""
    lines = []
    for vendor in pictures.VENDORS:
        info = json.loads((packages / "@iconify-json" / vendor / "info.json").read_text(encoding="utf-8"))
        package = json.loads((packages / "@iconify-json" / vendor / "package.json").read_text(encoding="utf-8"))
        author, licence = info["author"], info["license"]
        lines.append(
            f"| @iconify-json/{vendor} {package['version']} | {info['name']} | [{author['name']}]({author['url']}) "
            f"| [{licence['title']}]({licence.get('url', '')}) |"
        )
    return "\n".join(lines)


def hashes(folder: Path) -> str:
    """A line per shipped file but the card itself: its SHA-256 and its name."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "README.md"]
    return "\n".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}" for p in files)


TEXT = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
