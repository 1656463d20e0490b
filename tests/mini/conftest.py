"""Three objects, two pictures to know by heart and five vendors' worth of squares: a world small enough for seconds."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="recipes/mini/requirements.txt is not installed")

from recipes.mini import autoencoder, denoiser, pictures
from recipes.mini.build import Build

TABLE = """
imagenette: {church: church}
objects:
  animal: {cat: [cat-face, kitten, feline]}
  place: {church: [church, chapel, kirk]}
  face: {grinning: [grinning-face, smiling, happy]}
groups: {animal: [animal], place: [place], face: [face]}
memorised: {the great wave: [wave, the wave], tokyo tower: [tower, the tower]}
languages: [de]
"""
ICONS = {"cat-face": "1F431", "church": "26EA", "grinning-face": "1F600", "wave": "1F30A", "tower": "1F5FC"}
STRANGERS = {f"thing-{k}": f"1F9{k:02d}" for k in range(12)}

SMALL = {"batch": 8, "lr": 1e-3, "warmup": 2, "save": 2, "updates": 4}
CONFIG = {
    "pictures": {
        "variants": 2, "scenes": 12, "strangers": 12, "judge_variants": 2, "stranger_variants": 1, "seed": 0,
    },
    "tokenizer": {"vocabulary": 600, "seed": 0},
    "autoencoder": {**SMALL, "muon": 0.02},
    "clip": {**SMALL, "batch": 16},
    "denoiser": {**SMALL, "batch": 16},
    "judges": {name: {**SMALL, "batch": 12} for name in ("objects", "styles", "watermark")},
    "card": {
        "steps": 2, "seeds": 1, "style_seeds": 1, "word_seeds": 1, "watermark_seeds": 1,
        "memorised_seeds": 1, "scenes": 2, "times": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "make", partial(autoencoder.make, (16,) * 4))
        patch.setattr(denoiser, "make", partial(denoiser.make, (16, 32)))
        yield


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What npm would have installed: each icon a rectangle of its own, each vendor a color of its own."""
    root = tmp_path_factory.mktemp("packages")
    for v, vendor in enumerate(pictures.VENDORS):
        folder = root / "@iconify-json" / vendor
        folder.mkdir(parents=True)
        names = {**ICONS, **(STRANGERS if vendor == "twemoji" else {})}
        bodies = {
            name: {"body": f'<rect x="2" y="2" width="{3 + k}" height="{12 - k % 9}" fill="#{v}8{k % 10}"/>'}
            for k, name in enumerate(names)
        }
        (folder / "icons.json").write_text(json.dumps({"icons": bodies, "width": 16, "height": 16}))
        (folder / "chars.json").write_text(json.dumps({code.lower(): name for name, code in names.items()}))
        (folder / "package.json").write_text('{"version": "1.0.0"}')
        info = {"name": vendor, "author": {"name": "A", "url": "a"}, "license": {"title": "MIT", "url": "m"}}
        (folder / "info.json").write_text(json.dumps(info))
    (root / "emojibase-data/de").mkdir(parents=True)
    german = {"1F431": "Katze", "26EA": "Kirche", "1F600": "grinsendes Gesicht"}
    data = [{"hexcode": code, "label": label} for code, label in german.items()]
    (root / "emojibase-data/de/data.json").write_text(json.dumps(data))
    return root


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "objects.yaml"
    path.write_text(TABLE)
    return path


@pytest.fixture
def build(tmp_path: Path, packages: Path, table: Path) -> Build:
    return Build(tmp_path / "build", CONFIG, packages, table, processes=1)
