"""What a pipeline is and knows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from unsee import pipelines
from unsee.errors import InputError


def test_the_vocabulary_is_of_whole_words(mini: Any) -> None:
    words = pipelines.vocabulary(mini)
    assert {"castle", "horse", "neon"} <= set(words)
    assert all(word.isalpha() and len(word) > 2 for word in words)
    assert words == sorted(set(words))


def test_a_prompt_that_is_cut_says_where(mini: Any) -> None:
    pipelines.check_prompts(mini, ["a church"])
    with pytest.raises(InputError, match="would be cut off"):
        pipelines.check_prompts(mini, ["a church " * 30])


def test_a_loaded_model_is_frozen_and_laid_out_for_its_device(mini: Any) -> None:
    assert not any(weight.requires_grad for weight in mini.unet.parameters())
    assert not mini.unet.training
    assert mini.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert mini.unet.dtype == torch.float32
    assert pipelines.name(mini) == "mini"


def test_the_card_names_judges_by_kind() -> None:
    said = pipelines.card("mini")
    assert "objects" in said["judges"]
    assert all((Path(place) / "config.json").is_file() for place in said["judges"].values())


def test_a_folder_that_moved_keeps_its_name_only(mini: Any, tmp_path: Path) -> None:
    mini.save_pretrained(tmp_path / "copy")
    copy = pipelines.load(str(tmp_path / "copy"))
    assert pipelines.name(copy) == "copy"
    assert pipelines.fingerprint(copy.unet) == pipelines.fingerprint(mini.unet)
    with pytest.raises(InputError, match="has no denoiser"):
        pipelines.denoisers(object())
