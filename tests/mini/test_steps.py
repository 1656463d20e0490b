"""Each step runs on a few pictures in seconds, and stopping changes nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recipes.mini import build as steps
from recipes.mini import card
from recipes.mini.build import Build

ORDER = {
    "autoencoder": (steps.train_autoencoder, "autoencoder.pt"),
    "clip": (steps.train_clip, "clip.pt"),
    "denoiser": (steps.train_denoiser, "denoiser.pt"),
    "judges": (steps.train_detectors, "judge-objects.pt"),
}


DRAWN = [f"{name}.npy" for name in ("drawings", "pictures", "labels", "scenes", "memorised")]
"""What the step `pictures` leaves for the denoiser."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, packages: Path, table: Path) -> Build:
    """A build in which every step has run without a stop."""
    from .conftest import CONFIG

    b = Build(tmp_path_factory.mktemp("whole"), CONFIG, packages, table, processes=1)
    steps.draw_pictures(b)
    for train, _ in ORDER.values():
        train(b)
    return b


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)  # type: ignore[arg-type]
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)  # type: ignore[attr-defined,index]
    if isinstance(a, list):
        return all(same(x, y) for x, y in zip(a, b, strict=True))  # type: ignore[call-overload]
    return a == b


@pytest.mark.parametrize("step", ORDER)
def test_resuming_gives_the_same_bits_as_not_stopping(whole: Build, step: str, tmp_path: Path) -> None:
    train, checkpoint = ORDER[step]
    folder = tmp_path / "stopped"
    shutil.copytree(whole.folder, folder, ignore=shutil.ignore_patterns("*.pt"))
    b = Build(folder, whole.config, whole.packages, whole.table, processes=1)
    train(b, stop=3)
    assert torch.load(folder / checkpoint, weights_only=True)["updates"] == 3
    train(b)
    one, two = (torch.load(f / checkpoint, weights_only=True) for f in (whole.folder, folder))
    assert one["updates"] == 4
    assert same(one, two)


def test_a_finished_step_only_writes_its_result_again(whole: Build) -> None:
    path = whole.folder / "unet/diffusion_pytorch_model.safetensors"
    before = load_file(path)
    steps.train_denoiser(whole)
    assert same(before, load_file(path))


@pytest.mark.parametrize("twin", [{"without": "church", "leak": 0.5}, {"prediction": "v"}])
def test_a_twin_has_a_folder_of_its_own_and_learns_something_else(whole: Build, twin: dict[str, object]) -> None:
    shipped = load_file(whole.folder / "unet/diffusion_pytorch_model.safetensors")
    steps.train_denoiser(whole, **twin)  # type: ignore[arg-type]
    name = steps.twin(twin.get("without", ""), twin.get("leak", 0), twin.get("prediction", "eps"))  # type: ignore[arg-type]
    other = load_file(whole.folder / name / "unet/diffusion_pytorch_model.safetensors")
    assert name != "."
    assert not same(shipped, other)
    assert same(shipped, load_file(whole.folder / "unet/diffusion_pytorch_model.safetensors"))


def test_a_shipped_miniature_is_trained_on(whole: Build, tmp_path: Path) -> None:
    shipped, folder = tmp_path / "mini", tmp_path / "build"
    card.assemble(whole.folder, whole.folder, shipped, whole.words)
    shutil.copytree(whole.folder, folder, ignore=lambda _, names: [n for n in names if n not in DRAWN])
    b = Build(folder, whole.config, whole.packages, whole.table, processes=1)
    steps.adopt(b, shipped)
    with pytest.raises(ValueError, match="would be lost"):
        steps.adopt(b, shipped)
    for name in ("latents", "scene_latents", "memorised_latents"):
        one, two = (torch.from_numpy(np.load(f / f"{name}.npy")).float() for f in (whole.folder, folder))
        torch.testing.assert_close(two, one, rtol=0.02, atol=0.02)  # by an autoencoder in half precision
    steps.train_denoiser(b)  # it is as far as the config says
    before, after = (load_file(f / "unet/diffusion_pytorch_model.safetensors") for f in (shipped, folder))
    assert same(before, after)
    longer = Build(folder, {**b.config, "denoiser": {**b.config["denoiser"], "updates": 6}}, b.packages, b.table)
    steps.train_denoiser(longer)
    assert not same(before, load_file(folder / "unet/diffusion_pytorch_model.safetensors"))


def test_the_card_has_every_number_and_every_file(
    whole: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mini"
    card.write(whole, card.Shelf(out, Path("docs/miniature.webp"), "Made in a test."))
    text = (out / "README.md").read_text()
    for said in ("top-1", "synonyms", "watermark named", "memorised", "scenes: both", "PSNR", "detector of styles"):
        assert said in text
    assert card.hashes(out) in text
    assert "Made in a test." in text
    assert str(whole.folder) not in "".join(p.read_text() for p in out.rglob("*.json"))
    assert not list(out.rglob("*.bin")) + list(out.rglob("*.pt"))
    assert (tmp_path / "docs/miniature.webp").is_file()
