"""What tests share. Torch is imported by the fixtures: the process that deals out the tests has no use for it."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # which huggingface_hub reads when it is imported, and never again
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process for each core, a thread for each process

import pytest

import unsee

SHIPPED = Path(unsee.__file__).parent / "mini"

QUICK: dict[str, Any] = {
    "record_steps": 3,
    "updates": 3,
    "batch": 2,
    "runs": 2,
    "keep_runs": 2,
    "preserve_words": 16,
    "context_words": 4,
    "neutral": ("cat", "bird", "horse", "car"),
}
"""Settings under which hybrid runs in about half a second."""


def pytest_collection_finish() -> None:
    """No garbage collection looks through what was imported: a twentieth of the suite's time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Always in use: "tiny" is the miniature with an untrained, small denoiser and VAE. Its folder."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from unsee.evaluate.suites import summary
    from unsee.models.names import BUNDLED
    from unsee.runs import export, rehearsal
    from unsee.runs.config import RunConfig

    folder = tmp_path_factory.mktemp("tiny")
    for path in SHIPPED.iterdir():
        if path.name not in ("unet", "vae"):
            (folder / path.name).symlink_to(path)
    torch.manual_seed(0)
    for name, kind, widths in (("unet", UNet2DConditionModel, (16, 32)), ("vae", AutoencoderKL, (8, 8, 16, 16))):
        config = kind.load_config(SHIPPED / name)
        net = kind.from_config({**config, "block_out_channels": widths, "layers_per_block": 1})
        if name == "vae":
            net.quant_conv.bias.data.chunk(2)[1].fill_(
                -20
            )  # the variance of a picture's latent: next to none, as trained
        net.half().save_pretrained(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUNDLED, "tiny", folder)
        patch.setattr(RunConfig.model_fields["model"], "default", "tiny")  # what a command takes that names no model
        RunConfig.model_rebuild(force=True)
        patch.setattr(summary, "PART", 1)  # a picture of everything else for each of a row's, not 16: half a second
        patch.setattr(export, "STEPS", 1)  # of the pictures by which a file is compared with the edit
        patch.setattr(export, "SEEDS", (0,))
        patch.setattr(rehearsal, "SHORT", 0)  # a dry run times one row, however soon it is done
        patch.setenv("UNSEE_CACHE", str(tmp_path_factory.mktemp("pictures")))
        yield folder


@pytest.fixture(scope="session")
def shipped() -> Any:
    """The trained miniature that ships, "mini", as a pipeline."""
    return unsee.load("mini")


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The untrained pipeline "tiny" of `tiny_folder`, loaded once. A command that names no model takes it too."""
    return unsee.load("tiny")


@pytest.fixture
def mini_is_tiny(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    """In a test that takes it, the name "mini" loads `tiny`, so that examples of the documentation take a second.

    By default methods have a few random words to preserve, recorded runs and updates, not hundreds.
    """
    from unsee.methods import prompts, settings
    from unsee.models.names import BUNDLED

    monkeypatch.setitem(BUNDLED, "mini", tiny_folder)
    for default in (settings.UPDATES, settings.RUNS):
        for start in default:
            monkeypatch.setitem(default, start, 2)
    drawn = prompts.random_words
    monkeypatch.setattr(prompts, "random_words", lambda pipe, count, *rest: drawn(pipe, min(count, 8), *rest))


@pytest.fixture
def pipe(tiny: Any) -> Iterator[Any]:
    """The same as `tiny`. A test that changes a weight of its denoiser fails."""
    before = {name: value.clone() for name, value in tiny.unet.state_dict().items()}
    yield tiny
    after = tiny.unet.state_dict()
    assert all(bool((after[name] == value).all()) for name, value in before.items()), "the base model was changed"
    assert not any(weight.requires_grad for weight in tiny.unet.parameters())


@pytest.fixture(scope="session")
def edit(tiny: Any) -> "unsee.Edit":
    """An edit of `tiny` for "church", made in three updates: enough to differ from the base, too few to erase."""
    return unsee.Hybrid(**QUICK)(tiny, unsee.Concept("church"))


@pytest.fixture(scope="session")
def clip_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny CLIP model with random weights and the miniature's tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(tiny.tokenizer), "eos_token_id": tiny.tokenizer.eos_token_id}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 16})
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    CLIPProcessor(images, tiny.tokenizer).save_pretrained(folder)
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Types a command in an empty folder: `code, out, err = run("erase", "church")`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEE_CACHE", str(tmp_path / "cache"))

    from unsee.cli.main import main

    def typed(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unsee", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return typed
