"""Configurations, settings and cards of earlier versions are still read."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from safetensors.torch import save_file

import unsee
from unsee import methods
from unsee.edits.card import read_card
from unsee.edits.earlier import HYBRID, RENAMED
from unsee.errors import InputError
from unsee.methods.esd import ESD
from unsee.methods.hybrid import Hybrid
from unsee.runs.config import RunConfig, build
from unsee.runs.configure import configure

OLD = {
    "start": "closed-form",
    "company": 3,
    "spared": 5,
    "unasked": True,
    "checkpointing": True,
    "steps": 7,
    "guidance_scale": 2.0,
}
NEW = {
    "start": "closed-form",
    "context_words": 3,
    "preserve_words": 5,
    "implicit": True,
    "gradient_checkpointing": True,
    "record_steps": 7,
    "record_guidance": 2.0,
}


def configured(method: str, settings: dict[str, Any]) -> tuple[RunConfig, Any]:
    config = build({"concepts": "church", "method": method, "settings": settings})
    assert config.method
    return config, configure(methods.find(config.method), config.settings)


def test_a_configuration_of_an_earlier_version_becomes_hybrid_with_the_settings_renamed() -> None:
    assert OLD.keys() - {"start"} == RENAMED.keys()
    config, method = configured("esd", OLD)
    assert config.method == "hybrid"
    assert config.settings == NEW
    assert type(method) is Hybrid
    assert {name: getattr(method, name) for name in NEW} == NEW


@pytest.mark.parametrize(("setting", "value"), [("company", 3), ("spared", 5), ("start", "base")])
def test_one_setting_that_only_hybrid_had_makes_esd_hybrid(setting: str, value: Any) -> None:
    config, method = configured("esd", {setting: value})
    assert config.method == "hybrid"
    assert getattr(method, RENAMED.get(setting, setting)) == value


def test_a_configuration_of_esd_stays_esd() -> None:
    config, method = configured("esd", {"eta": 2.0, "checkpointing": True, "steps": 7})
    assert config.method == "esd"
    assert (type(method), method.eta, method.gradient_checkpointing, method.record_steps) == (ESD, 2.0, True, 7)


def test_esd_with_a_setting_of_hybrid_in_this_versions_names_is_refused() -> None:
    with pytest.raises(
        InputError, match="esd has no setting 'keep_weight': leave it out, or take the method .* hybrid or"
    ):
        configured("esd", {"keep_weight": 2.0})
    assert {RENAMED.get(name, name) for name in HYBRID} <= {one.name for one in fields(Hybrid)}
    assert not HYBRID & {one.name for one in fields(ESD)}


def test_setting_steps_by_set_means_record_steps_and_a_note_says_so(run: Run) -> None:
    code, _, err = run("erase", "church", "--method", "hybrid", "--set", "steps=3", "--dry-run")
    assert code == 0, err
    assert "note     the setting steps is now called record_steps" in err


def written(path: Path, card: dict[str, Any]) -> Path:
    """A file as an earlier version wrote it."""
    save_file({"unet.conv_in.weight": torch.zeros(2, 2)}, path, metadata={"unsee": json.dumps(card)})
    return path


def old_card(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The card that an earlier version wrote for one concept."""
    concept = {"erase": "church", "from_": None, "anchor": None, "keep": []}
    versions = {"python": "3.12.3", "unsee": "0.0.1", "torch": "2.9.0", "diffusers": "0.35.2"}
    base = {"base": "mini", "base_hash": "ab" * 32, "seed": 0, "versions": versions}
    return {"method": method, "settings": settings, "concepts": [concept], **base, "kept": ["castle"], "curve": []}


def test_a_card_of_an_earlier_version_is_read_as_hybrid(tmp_path: Path) -> None:
    path = written(tmp_path / "edit.safetensors", old_card("esd", {"eta": 1.0, "updates": 12, **OLD}))
    card = read_card(path)
    assert (card.method, card.settings) == ("hybrid", {"eta": 1.0, "updates": 12, **NEW})
    assert unsee.Edit.load(path).card == card
    assert read_card(unsee.Edit.load(path).save(tmp_path / "again.safetensors")) == card


@pytest.mark.parametrize(
    ("method", "settings", "read"),
    [
        ("esd", {"company": 3}, ("hybrid", {"context_words": 3})),
        ("esd", {"spared": 5}, ("hybrid", {"preserve_words": 5})),
        ("esd", {"eta": 1.0, "record_steps": 6}, ("esd", {"eta": 1.0, "record_steps": 6})),
        ("lora", {"rank": 4, "unasked": True}, ("lora", {"rank": 4, "implicit": True})),
        ("uce", {"spared": 5}, ("uce", {"preserve_words": 5})),
        ("adopt", {"steps": 5}, ("adopt", {"steps": 5})),
    ],
)
def test_a_card_is_read_in_the_names_of_this_version(
    tmp_path: Path, method: str, settings: dict[str, Any], read: tuple[str, dict[str, Any]]
) -> None:
    card = read_card(written(tmp_path / "edit.safetensors", old_card(method, settings)))
    assert (card.method, card.settings) == read


def test_the_card_of_a_merge_of_an_earlier_version_names_hybrid_in_its_parts(tmp_path: Path) -> None:
    parts = [{"weight": 0.5, **old_card("esd", OLD)}, {"weight": -1.0, **old_card("uce", {"spared": 5})}]
    card = read_card(written(tmp_path / "edit.safetensors", old_card("merge", {"edits": parts})))
    found = [(one["weight"], one["method"], one["settings"]) for one in card.settings["edits"]]
    assert found == [(0.5, "hybrid", NEW), (-1.0, "uce", {"preserve_words": 5})]
