"""What a pipeline is and knows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from conftest import QUICK
from diffusers.hooks import apply_group_offloading
from transformers import BertTokenizer

import unsee
from unsee.denoising.record import Runs, record
from unsee.errors import InputError
from unsee.evaluate.render import Sampling, Shot, render
from unsee.models.denoisers import denoisers
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import Model, call_options, model_name
from unsee.models.model_card import model_card
from unsee.models.names import BUNDLED
from unsee.models.text import check_prompts, vocabulary
from unsee.runs.config import build
from unsee.runs.erase import plan


def test_the_vocabulary_is_of_whole_words(tiny: Any) -> None:
    words = vocabulary(tiny)
    assert {"castle", "horse", "neon"} <= set(words)
    assert all(word.isalpha() and len(word) > 2 for word in words)
    assert words == sorted(set(words))


def test_a_vocabulary_of_word_pieces_has_words_too() -> None:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[unused1]",
        "castle",
        "Horse",
        "of",
        "##stle",
        "##s",
        "c3po",
    ]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    assert vocabulary(SimpleNamespace(components={"tokenizer": tokenizer})) == ["castle", "horse"]


def test_a_prompt_that_is_cut_says_where(tiny: Any) -> None:
    check_prompts(tiny, ["a church"])
    with pytest.raises(InputError, match="would be cut off"):
        check_prompts(tiny, ["a church " * 30])


def test_a_loaded_model_is_frozen_and_laid_out_for_its_device(tiny: Any) -> None:
    assert not any(weight.requires_grad for weight in tiny.unet.parameters())
    assert not tiny.unet.training
    assert tiny.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert tiny.unet.dtype == torch.float32
    assert model_name(tiny) == "tiny"


def test_the_card_names_detectors_by_kind(tmp_path: Path, pipe: Any) -> None:
    card = model_card("tiny")
    assert "objects" in card.detectors
    assert all((Path(place) / "config.json").is_file() for place in card.detectors.values())
    pipe.save_pretrained(tmp_path)
    for said, wrong in (("steps: 0", "steps: input should be greater"), ("words: [a]", "words: input should be a")):
        (tmp_path / "README.md").write_text(f"---\nunsee:\n  {said}\n---\n")
        with pytest.raises(InputError, match=f"the card of .* cannot be read: {wrong}"):
            load(str(tmp_path))


def test_the_card_is_read_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    for room in ("models.load", "runs.erase"):
        monkeypatch.setattr(f"unsee.{room}.model_card", lambda name: read.append(name) or model_card(name))
    plan(build({"concepts": "church", "settings": QUICK}))
    assert read == ["tiny"]


def test_nothing_is_set_on_a_pipeline(pipe: Any) -> None:
    before = dict(vars(pipe))
    edit = unsee.UCE(preserve_words=0, context_words=0)(Model.of(pipe, call={"height": 32, "width": 32}), "church")
    assert edit.card.call == {"height": 32, "width": 32}
    assert edit.card.base == "tiny"
    assert vars(pipe) == before
    assert Model.of(pipe).call == {}


def test_a_card_names_a_folder_without_its_path(tiny: Any, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "copy")
    copy = load(str(tmp_path / "copy"))
    assert model_name(copy) == "copy"
    assert fingerprint(copy.unet) == fingerprint(tiny.unet)
    with pytest.raises(InputError, match="has no denoiser"):
        denoisers(object())


CPU = torch.device("cpu")
MOVING = {
    "enable_sequential_cpu_offload": lambda pipe: pipe.enable_sequential_cpu_offload(device="cpu"),
    "enable_group_offload": lambda pipe: pipe.unet.enable_group_offload(CPU, CPU, "leaf_level"),
    "enable_layerwise_casting": lambda pipe: pipe.unet.enable_layerwise_casting(compute_dtype=torch.float32),
}


@pytest.mark.parametrize("how", MOVING)
def test_weights_that_are_replaced_when_used_are_refused(how: str) -> None:
    pipe = zoo.build("sd")
    edit = unsee.Hybrid(record_steps=2, updates=1, runs=1, keep_runs=1)(pipe, unsee.Concept("church"))
    MOVING[how](pipe)
    with pytest.raises(InputError, match=f"{how} replaces the weights of StableDiffusionPipeline.unet"):
        unsee.Hybrid()(pipe, unsee.Concept("church"))
    with pytest.raises(InputError, match=f"{how} replaces"), edit.applied(pipe):
        pass


def test_a_denoiser_that_moves_as_a_whole_is_not_trained_but_may_be_edited() -> None:
    pipe = zoo.build("sd")
    edit = unsee.Hybrid(record_steps=2, updates=1, runs=1, keep_runs=1)(pipe, unsee.Concept("church"))

    def draw() -> Any:
        return pipe("a church", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt")[0]

    base = draw()
    with edit.applied(pipe):
        expected = draw()
    pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(InputError, match="is moved between devices by enable_model_cpu_offload"):
        unsee.Hybrid()(pipe, unsee.Concept("church"))
    with edit.applied(pipe):
        assert torch.equal(draw(), expected)
    assert torch.equal(draw(), base)
    assert not torch.equal(base, expected)


def test_other_parts_may_move() -> None:
    pipe = zoo.build("sd")
    expected = record(pipe, ["a church"], seeds=[0], runs=Runs(2))
    apply_group_offloading(pipe.text_encoder, CPU, CPU, "leaf_level")
    for step, other in zip(record(pipe, ["a church"], seeds=[0], runs=Runs(2)), expected, strict=True):
        torch.testing.assert_close(step.concept.output, other.concept.output)


def test_options_of_every_call_come_with_a_model_s_card(tmp_path: Path) -> None:
    zoo.build("sd").save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nunsee:\n  call: {height: 24, width: 32}\n---\n")
    pipe = unsee.load(str(tmp_path))
    assert call_options(pipe) == {"height": 24, "width": 32}
    assert call_options(Model.of(pipe, call={"width": 16})) == {"height": 24, "width": 16}
    assert call_options(unsee.load(str(tmp_path), call={"height": 8})) == {"height": 8, "width": 32}
    (tmp_path / "README.md").write_text("---\nunsee:\n  call: {heigth: 24}\n---\n")
    with pytest.raises(InputError, match="did you mean 'height'"):
        unsee.load(str(tmp_path))
    (tmp_path / "README.md").write_text("---\nunsee:\n  call: [height, 24]\n---\n")
    with pytest.raises(InputError, match="the card of .* cannot be read: call: input should be a valid dict"):
        unsee.load(str(tmp_path))


@pytest.mark.parametrize("name", ["mini-flow", "mini-flow-turbo"])
def test_the_second_miniature_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLED, name, tmp_path / name)
    with pytest.raises(InputError, match=f"{name} does not .* run `make mini-flow`"):
        unsee.load(name)
    zoo.build("sd3").save_pretrained(tmp_path / name)
    assert model_name(unsee.load(name)) == name


def test_options_of_every_call_belong_to_the_model() -> None:
    model = Model(zoo.build("sd"), call={"height": 24, "width": 32})
    (step,) = record(model, ["a church"], seeds=[0], runs=Runs(2), at=[0])
    assert step.concept.output.shape == (1, 4, 12, 16)
    with pytest.raises(InputError, match="unknown option of StableDiffusionPipeline 'heigth': did you mean 'height'"):
        Model.of(model, call={"heigth": 24})
    with pytest.raises(InputError, match="guidance_scale cannot be a call option"):
        Model.of(model, call={"guidance_scale": 2.0})
    with pytest.raises(InputError, match="StableDiffusionPipeline cannot be run so: `height` and `width`"):
        render(Model.of(model, call={"height": 25}), [Shot("a church", 0)], Sampling(1, 2.0))
    with pytest.raises(InputError, match="StableDiffusionPipeline cannot be run so"):
        render(Model.of(model, call={"height": "tall"}), [Shot("a church", 0)], Sampling(1, 2.0))


def test_the_miniature_loads_with_the_stock_line(shipped: Any) -> None:
    """In one precision, to the very numbers that `load` gives."""
    from diffusers import DiffusionPipeline

    stock = DiffusionPipeline.from_pretrained(BUNDLED["mini"])
    assert stock("a church", num_inference_steps=1, output_type="pt")[0].isfinite().all()
    for name in ("unet", "vae", "text_encoder"):
        here, there = getattr(shipped, name).state_dict(), getattr(stock, name).state_dict()
        assert all(torch.equal(value, there[key]) and value.dtype == torch.float32 for key, value in here.items()), name


def test_loading_leaves_the_bars_of_libraries_as_they_were() -> None:
    from diffusers.utils import logging

    assert logging.is_progress_bar_enabled()
    load("tiny")
    assert logging.is_progress_bar_enabled()
