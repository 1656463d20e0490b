"""What lies in folders and files that people have: it is loaded, or one line says what it is and what to do."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file
from test_files import single_file

from unsee.errors import InputError
from unsee.models import sources
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import raw
from unsee.runs import evaluate as evaluation
from unsee.runs.config import EvalConfig


@pytest.fixture
def folder(pipe: Any, tiny_folder: Path, tmp_path: Path) -> Path:
    """The miniature's pipeline, to be changed."""
    for path in tiny_folder.iterdir():
        if path.is_dir() and path.name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            shutil.copytree(path, tmp_path / "model" / path.name)
    shutil.copy(tiny_folder / "model_index.json", tmp_path / "model")
    return tmp_path / "model"


def renamed(folder: Path, to: str) -> None:
    for part in ("unet", "vae", "text_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            file.rename(file.with_name(file.name.replace(".safetensors", to)))


def test_the_only_variant_is_found_without_being_named(pipe: Any, folder: Path) -> None:
    renamed(folder, ".fp16.safetensors")
    assert fingerprint(load(str(folder)).unet) == fingerprint(pipe.unet)
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        plain = {name: value + (part == "unet") for name, value in load_file(file).items()}
        save_file(plain, file.with_name(file.name.replace(".fp16", "")), metadata={"format": "pt"})
    other = fingerprint(load(str(folder)).unet)
    assert other != fingerprint(pipe.unet)  # plain ones go first
    assert fingerprint(load(str(folder), variant="fp16").unet) == fingerprint(pipe.unet)


def test_a_variant_that_is_not_there_is_refused(folder: Path, pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model has no variant 'fp16', nor any other: leave it out"):
        load(str(folder), variant="fp16")
    renamed(folder, ".fp16.safetensors")
    with pytest.raises(InputError, match="unknown variant 'fp61': did you mean 'fp16'"):
        load(str(folder), variant="fp61")
    save_file(single_file(pipe), tmp_path / "file.safetensors")
    with pytest.raises(InputError, match="file.safetensors is one file, which has no variant 'fp16'"):
        load(f"{tmp_path / 'file.safetensors'}@tiny", variant="fp16")


def test_a_run_keeps_to_its_variant(run: Run, folder: Path, pipe: Any) -> None:
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        shutil.copy(file, file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
        save_file({name: value + 1 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    few = [
        "--method",
        "uce",
        "-n",
        2,
        "--steps",
        1,
        "--set",
        "preserve_words=8",
        "--set",
        "context_words=0",
        "--out",
        "out",
    ]
    code, out, err = run("erase", "church", "--model", folder, "--variant", "fp16", *few)
    assert code == 0, err
    assert ", variant fp16" in out
    assert f"--model {folder} --variant fp16" in out
    assert err.count("Loading") == 0  # no bars in a file
    found = evaluation.prepare(EvalConfig(model="out", suites=("pictures",))).context.pipe
    assert fingerprint(raw(found).unet) == fingerprint(pipe.unet)
    drawn = ["generate", "church", "--edit", "out/edit.safetensors", "--model", folder, "-n", 1, "--steps", 1]
    code, _, err = run(*drawn)  # another model's weights
    assert code == 2
    assert "it was made for the variant 'fp16' of the model's files: load it with --variant fp16" in err
    assert ", variant fp16" in run("show", "out/edit.safetensors")[1]
    code, _, err = run(*drawn, "--variant", "fp16")
    assert code == 0, err


def test_the_hub_says_which_variants_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["model_index.json", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/config.json"]
    monkeypatch.setattr(sources, "list_repo_files", lambda hub, revision: listed)
    assert sources.variant(None, hub="owner/name") == "fp16"
    assert sources.variant(folder, hub="owner/name") is None  # what is cached is taken
    assert sources.variant(folder, "fp16", hub="owner/name") == "fp16"  # and what it lacks is fetched
    with pytest.raises(InputError, match="unknown variant 'ema'.*known: fp16"):
        sources.variant(None, "ema", hub="owner/name")
    listed[1] = "unet/diffusion_pytorch_model.bin"
    with pytest.raises(InputError, match=r"owner/name has its unet as \.bin.*owner/name.*save_pretrained.*'name'"):
        sources.variant(None, hub="owner/name")


def test_the_refusal_of_a_pickle_says_how_to_convert_it(folder: Path, tmp_path: Path) -> None:
    renamed(folder, ".bin")
    with pytest.raises(InputError, match=r"as \.bin, a pickle.* python -c .*save_pretrained"):
        load(str(folder))
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match=r"old.ckpt is a pickle.* python -c ") as error:
        load(f"{tmp_path / 'old.ckpt'}")
    code = str(error.value).rpartition("python -c ")[2]
    subprocess.run([sys.executable, "-c", *shlex.split(code)], check=True)
    assert list(load_file(tmp_path / "old.safetensors")) == ["a"]


def test_models_that_need_more_than_a_prompt_are_named(folder: Path, tmp_path: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    for kind, what in {
        "StableDiffusionInpaintPipeline": "an inpainting model",
        "StableDiffusionXLImg2ImgPipeline": "such as a refiner",
        "StableDiffusionControlNetPipeline": "a ControlNet pipeline",
    }.items():
        (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": kind}))
        with pytest.raises(InputError, match=f"{what}.*{kind}.*from a prompt alone"):
            load(str(folder))
    (folder / "model_index.json").write_text(json.dumps(index))
    config = json.loads((folder / "unet" / "config.json").read_text())
    file = next((folder / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    tensors["conv_in.weight"] = tensors["conv_in.weight"].repeat(1, 3, 1, 1)
    save_file(tensors, file, metadata={"format": "pt"})
    (folder / "unet" / "config.json").write_text(
        json.dumps({**config, "in_channels": tensors["conv_in.weight"].shape[1]})
    )
    with pytest.raises(InputError, match="its U-Net reads 48 channels, a latent has 16"):
        load(str(folder))
    net = ControlNetModel(block_out_channels=(8,), down_block_types=("DownBlock2D",), norm_num_groups=4)
    net.save_pretrained(tmp_path / "control")
    with pytest.raises(InputError, match="is a ControlNetModel, one part of a pipeline"):
        load(str(tmp_path / "control"))


def test_a_denoiser_alone_takes_the_rest_from_its_layout(pipe: Any, tmp_path: Path) -> None:
    part = {name: value + 0.5 for name, value in single_file(pipe).items() if name.startswith("model.diffusion_model.")}
    save_file(part, tmp_path / "unet.safetensors")
    loaded = load(f"{tmp_path / 'unet.safetensors'}@tiny")
    weight = loaded.unet.conv_in.weight
    torch.testing.assert_close(weight, pipe.unet.conv_in.weight + 0.5)
    for name in ("vae", "text_encoder"):
        assert fingerprint(getattr(loaded, name)) == fingerprint(getattr(pipe, name))
