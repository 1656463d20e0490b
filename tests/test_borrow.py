"""A pipeline of the user's own stays what it was, and no checker blacks out what unsee draws."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import zoo
from conftest import QUICK
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

import unsee
from unsee import guards, methods
from unsee.denoising.record import Runs, record
from unsee.evaluate.render import Sampling, Shot, render
from unsee.models.borrow import borrowed, left_out
from unsee.models.denoisers import denoiser
from unsee.models.load import load
from unsee.models.model import Model
from unsee.models.sources import checkers

SHOTS = [Shot("a church", 0), Shot("a dog", 1)]


@pytest.fixture(scope="module")
def checker() -> Any:
    """A safety checker of diffusers that takes every picture for an unsafe one, and blacks it out."""
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={**tower, "vocab_size": 8},
            vision_config={**tower, "image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
    )
    found.concept_embeds_weights.data.fill_(-10)  # a threshold for a cosine
    return found


@pytest.fixture(scope="module")
def checked(checker: Any, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature in a folder, with that checker."""
    folder = tmp_path_factory.mktemp("checked")
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    parts = {**tiny.components, "safety_checker": checker, "feature_extractor": images}
    StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder


def black(picture: Any) -> bool:
    return not np.asarray(picture).any()


LEAST = {"updates": 1, "record_steps": 2, "preserve_words": 4, "context_words": 1, "held_out": 0}
"""Where it does not matter what is learned."""


@pytest.fixture
def own(checked: Path) -> Any:
    """A pipeline as its user loads it, which is in training: unfrozen, in train mode, with a gradient of its own."""
    pipe = StableDiffusionPipeline.from_pretrained(checked)
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        part.train()
    pipe.vae.requires_grad_(False)
    pipe.unet.conv_in.weight.grad = torch.ones_like(pipe.unet.conv_in.weight)
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight.grad = torch.ones(32, 128)
    pipe.set_progress_bar_config(desc="mine")
    return pipe


def state(pipe: Any) -> dict[str, Any]:
    """All that a user could find changed."""
    found: dict[str, Any] = {"attributes": dict(vars(pipe)), "config": dict(pipe.config)}
    found["attributes"].pop("_guidance_scale", None)  # every call of a pipeline leaves it behind
    found["scheduler"] = {name: str(value) for name, value in vars(pipe.scheduler).items()}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found[name] = {
                **{f"{key}.": (type(module), module.training, len(module._forward_hooks))
                   for key, module in part.named_modules()},
                **{key: (id(weight), weight.data_ptr(), weight.requires_grad, id(weight.grad), weight.stride())
                   for key, weight in part.named_parameters()},
            }  # fmt: skip
    return found


@pytest.fixture
def untouched(own: Any, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """That pipeline; fails the test that leaves it other than it was, or that shows a progress bar."""
    before = state(own)
    capfd.readouterr()
    yield own
    after = state(own)
    for part, values in before.items():
        assert after[part] == values, part
    assert "it/s" not in capfd.readouterr().err
    with pytest.raises(ValueError, match="is in training"), borrowed(own):
        raise ValueError("it is in training")  # an exception leaves it as it was, too
    assert state(own) == before
    assert black(own("a church", num_inference_steps=1).images[0])


@pytest.mark.parametrize("name", methods.names())
def test_a_method_leaves_a_pipeline_that_is_in_training_as_it_was(untouched: Any, name: str) -> None:
    kind = methods.find(name)
    small = {
        key: value
        for key, value in {**QUICK, **LEAST, "rank": 2, "rounds": 1, "searches": 1}.items()
        if key in kind.__dataclass_fields__
    }
    edit = kind(**small)(untouched, unsee.Concept("church"))
    assert edit.deltas


def test_a_method_restores_the_settings_of_a_pipeline_in_training(untouched: Any) -> None:
    settings = {**QUICK, "select": "noncross", "gradient_checkpointing": True, "rerecord": 1, "updates": 2}
    assert unsee.Hybrid(**settings)(untouched, unsee.Concept("church")).deltas


def test_the_edit_of_a_pipeline_in_training_is_that_of_a_frozen_one(own: Any, tiny: Any) -> None:
    deltas = [unsee.Hybrid(**QUICK)(pipe, unsee.Concept("church")).deltas for pipe in (own, tiny)]
    for name, delta in deltas[1].items():  # memory is laid out otherwise: equal up to rounding
        assert (deltas[0][name] - delta).norm() < 0.01 * delta.norm(), name


def test_guards_records_and_pictures_leave_it_as_it_was(untouched: Any, edit: unsee.Edit) -> None:
    with guards.named("sld-max", "church").applied(untouched), edit.applied(untouched):
        assert not any(black(picture) for picture in render(untouched, SHOTS, Sampling(2, 3.0)).values())
    record(untouched, ["a church"], seeds=[0], runs=Runs(2, sampler="DDIMScheduler"))


def test_a_method_that_fails_leaves_it_as_it_was(untouched: Any) -> None:
    def stop(stage: str, *_: int) -> None:
        if stage == "fit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unsee.Hybrid(**QUICK)(untouched, unsee.Concept("church"), progress=stop)


def test_the_focus_chooses_one_of_two_denoisers() -> None:
    model = Model.of(zoo.build("wan-2.2"))
    before = dict(vars(model.pipe))
    for key in ("transformer", "transformer_2"):
        assert denoiser(replace(model, focus=key))[0] == key
    assert vars(model.pipe) == before


def a_folder(checked: Path, _: pytest.MonkeyPatch, __: Path) -> str:
    return str(checked)


def a_hub_id(checked: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> str:
    place = cache / "models--owner--model"
    shutil.copytree(checked, place / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return "owner/model"


@pytest.mark.parametrize("named", [a_folder, a_hub_id])
def test_what_is_loaded_has_no_safety_checker(
    checked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: Callable[..., str]
) -> None:
    model = named(checked, monkeypatch, tmp_path)
    pipe = load(model)
    assert left_out(pipe) == ("safety_checker",)
    assert pipe.safety_checker is None
    assert not black(pipe("a church", num_inference_steps=1).images[0])
    assert left_out(load("tiny")) == ()


def test_safety_checkers_and_watermarkers_are_recognised() -> None:
    import diffusers

    for kind in ("StableDiffusionPipeline", "StableDiffusionPipelineSafe", "AltDiffusionPipeline", "IFPipeline",
                 "StableDiffusionControlNetPipeline", "LatentConsistencyModelPipeline"):  # fmt: skip
        assert "safety_checker" in checkers(getattr(diffusers, kind)), kind
    for kind in ("Cosmos2TextToImagePipeline", "StableDiffusionXLPipeline", "FluxPipeline"):
        assert not checkers(getattr(diffusers, kind)), kind
