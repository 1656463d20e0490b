"""What every method that is installed keeps to, whatever it does."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from conftest import QUICK
from typer.main import get_command

import unsee
from benchmarks.methods import variants
from benchmarks.methods_page import slug
from unsee import methods
from unsee.cli.main import app
from unsee.cli.terminal import pairs
from unsee.denoising.record import conditions
from unsee.denoising.replay import replay
from unsee.edits.card import settings_of
from unsee.edits.edit import Edit, LowRank
from unsee.errors import InputError
from unsee.io.settings_file import read
from unsee.methods.presets import PRESETS
from unsee.runs import erase as erasing
from unsee.runs.config import build
from unsee.runs.configure import configure, method_of
from unsee.runs.erase import erase, plan

SMALL: dict[str, Any] = {
    **QUICK,
    "updates": 2,
    "record_steps": 2,
    "held_out": 0,
    "preserve_words": 8,
    "context_words": 2,
    "neutral": ("cat", "house"),
    "rank": 2,
    "rounds": 1,
    "searches": 1,
}


def settings(name: str) -> dict[str, Any]:
    """Those of SMALL that a method has."""
    known = {field.name for field in dataclasses.fields(methods.find(name))}
    return {key: value for key, value in SMALL.items() if key in known}


def tensors(edit: Edit) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, delta in edit.deltas.items():
        found |= {f"{name}.up": delta.up, f"{name}.down": delta.down} if isinstance(delta, LowRank) else {name: delta}
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module", params=methods.names())
def made(request: pytest.FixtureRequest, tiny: Any) -> tuple[str, Any, Edit]:
    """A method's name, the method, and an edit that it made."""
    method = methods.find(request.param)(**settings(request.param))
    return request.param, method, method(tiny, unsee.Concept("church"), seed=1)


def test_the_concept_moves_and_the_base_comes_back(pipe: Any, made: Any) -> None:
    _, _, edit = made
    call = conditions(pipe, ["church"])
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    with edit.applied(pipe), torch.no_grad():
        moved = (replay(pipe.unet, call) - call.output).abs().max()
    assert moved > 1e-3
    assert same(dict(pipe.unet.state_dict()), before)
    assert torch.equal(replay(pipe.unet, call), call.output)


def test_scale_zero_is_the_base(pipe: Any, made: Any) -> None:
    _, _, edit = made
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    with edit.applied(pipe, 0.0):
        assert same(dict(pipe.unet.state_dict()), before)


def test_a_file_gives_back_the_same_bits(pipe: Any, made: Any, tmp_path: Path) -> None:
    _, _, edit = made
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert again.card == edit.card
    assert same(tensors(again), tensors(edit))


def test_another_seed_gives_another_edit(pipe: Any, made: Any) -> None:
    """That one seed gives one edit is what `test_a_whole_run_repeats_from_its_record` shows."""
    _, method, edit = made
    assert not same(tensors(method(pipe, unsee.Concept("church"), seed=2)), tensors(edit))


def test_a_method_changes_only_the_weights_that_it_names(pipe: Any, made: Any) -> None:
    _, method, edit = made
    assert set(edit.deltas) == {f"unet.{name}" for name in method.weights(pipe.unet)}
    assert all(torch.isfinite(tensor).all() for tensor in tensors(edit).values())


def test_the_card_is_enough_to_do_it_again(pipe: Any, made: Any) -> None:
    name, method, edit = made
    assert edit.card.method == name
    resolved = method.resolved(pipe.unet, edit.card.concepts)
    assert methods.find(edit.card.method)(**edit.card.settings) == resolved
    assert edit.card.concepts == (unsee.Concept("church"),)
    assert bool(edit.card.kept) == hasattr(method, "keep_weight")


def test_a_whole_run_repeats_from_its_record(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, _ = made
    monkeypatch.setattr(erasing, "page", lambda *_, **__: "")  # which repeats nothing
    values = {"concepts": [{"erase": "dog"}], "method": name, "settings": settings(name), "pictures": 2, "steps": 1}
    report = erase(plan(build(values)), tmp_path, tmp_path / "cache")
    planned = plan(build(read(tmp_path / "run.json")))
    again = planned.method(planned.model, planned.config.concepts, seed=planned.config.seed)
    first = Edit.load(tmp_path / "edit.safetensors")
    assert dataclasses.replace(first.card, claims=None) == again.card  # what was measured of it comes after it is made
    first = dataclasses.replace(first, card=again.card)
    bits = [edit.save(tmp_path / "bits.safetensors").read_bytes() for edit in (first, again)]
    assert bits[0] == bits[1]
    assert report.record["config"]["settings"] == settings_of(planned.method)


@pytest.mark.parametrize("name", methods.names())
def test_settings_that_are_unknown_or_wrong_are_refused_in_a_line(name: str) -> None:
    kind = methods.find(name)
    with pytest.raises(InputError, match="unknown setting 'templatess': did you mean 'templates'"):
        configure(kind, {"templatess": ["{}"]})
    with pytest.raises(InputError, match=r"^templates\.0: "):
        configure(kind, {"templates": ["no place for a word"]})
    number = next(name for name in ("eta", "keep_weight") if hasattr(kind, name))
    with pytest.raises(InputError, match=f"^{number}: "):
        configure(kind, {number: -1})
    with pytest.raises(InputError, match="unknown preset 'nonesuch'"):
        configure(kind, {}, "nonesuch")


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name in methods.names() for preset in methods.find(name).presets]
)
def test_every_preset_is_valid_and_acts(name: str, preset: str) -> None:
    method = configure(methods.find(name), {}, preset)
    assert (method == methods.find(name)()) is (preset == "object")  # for which the defaults are made


@pytest.mark.parametrize("name", ["hybrid", "lora"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_settings_for_what_is_erased(pipe: Any, name: str, preset: str) -> None:
    method = configure(methods.find(name), settings(name), preset)
    attention = [weight for weight in method.weights(pipe.unet) if ".attn2." in weight]
    assert bool(attention) is (preset != "explicit")  # what appears unnamed is erased where no text is read
    prompts = [way.format("Ada Lovelace") for way in method.templates]
    assert "Ada Lovelace" in prompts
    if preset != "object":
        assert not any(" a Ada" in f" {prompt}" for prompt in prompts)


def test_explicit_settings_go_before_a_preset() -> None:
    method = configure(methods.find("hybrid"), {"select": "self"}, "explicit")
    assert (method.select, method.keep_weight) == ("self", 1.0)


def test_every_variant_of_the_page_is_a_command() -> None:
    """What benchmarks.methods runs for docs/methods.md, as far as its words go."""
    found = variants(("church", "castle"), Path("known.png"))
    assert len({slug(variant.name) for variant in found}) == len(found)
    command = get_command(app).commands["erase"]  # type: ignore[attr-defined]
    for variant in found:
        given = command.make_context("erase", shlex.split(variant.words)).params
        chosen = {key: given[key] for key in ("select", "eta") if given[key] is not None}
        kind = methods.find(given["method"] or ("esd" if given["preset"] == "paper" else "hybrid"))
        configure(kind, {**pairs(given["settings"], "--set"), **chosen}, given["preset"])
    offered = {variant.words.partition("--preset ")[2].split(" ")[0] for variant in found}
    assert {*PRESETS, *(name for kind in methods.names() for name in methods.find(kind).presets)} - {
        "object"
    } <= offered


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"concepts": "church, castle"}, "balance"),
        ({"concepts": "church", "settings": {"limit": 0.3}}, "balance"),
        ({"concepts": "church", "settings": {"updates": 4}}, "hybrid"),
        ({"concepts": [{"erase": "hat", "from_": "cowboy"}]}, "hybrid"),
        ({"concepts": "church", "method": "uce"}, "uce"),
    ],
)
def test_the_default_method_is_balance_for_names_and_hybrid_for_all_else(config: dict[str, Any], method: str) -> None:
    assert method_of(build(config)) == method
    assert method_of(build(config), "style") in ("hybrid", config.get("method"))


def test_a_style_that_the_models_card_lists_has_the_preset_for_styles() -> None:
    """So that its subjects stay; an object beside it takes the default, and so does a user who chose."""

    def chosen(concepts: str, **given: Any) -> tuple[str | None, bool]:
        config = plan(build({"concepts": concepts, "model": "tiny", "pictures": 2, "steps": 1, **given})).config
        return config.method, "art by {}" in config.settings["templates"]

    assert chosen("ink") == chosen("ink, neon") == ("balance", True)
    assert chosen("ink, church") == chosen("church") == chosen("ink", method="balance") == ("balance", False)
    assert chosen("ink", settings={"strength": 1.3}) == ("balance", False)


def test_few_names_are_for_uce_where_the_prompt_enters_by_an_embedder(tmp_path: Path) -> None:
    """Other wording comes through what balance solves for there (docs/LOG.md); many names need its limits."""
    zoo.build("sd3").save_pretrained(tmp_path)

    def chosen(model: str, **given: Any) -> str:
        values = {"concepts": "church", "model": model, "pictures": 2, "steps": 1, **given}
        return str(plan(build(values)).config.method)

    assert chosen(str(tmp_path)) == "uce"
    eleven = "church, dog, car, key, tree, fish, pizza, house, bird, moon, sun"
    assert chosen(str(tmp_path), concepts=eleven.removesuffix(", sun")) == "uce"
    assert chosen(str(tmp_path), concepts=eleven) == "balance"
    assert chosen(str(tmp_path), settings={"limit": 0.3}) == "balance"
    assert chosen(str(tmp_path), method="balance") == "balance"
    assert chosen("tiny") == "balance"


@pytest.mark.parametrize("method", ["hybrid", "lora"])
def test_a_selection_that_hardly_erases_names_is_said_in_the_plan(method: str) -> None:
    values = {"concepts": "church", "model": "tiny", "method": method, "pictures": 2, "steps": 1}
    said = {
        select: [note for note in plan(build({**values, "settings": {"select": select}})).notes if "hardly" in note]
        for select in ("cross-kv", "noncross", "self", "attn2.to_k")
    }
    assert not said["cross-kv"]
    assert "noncross hardly erases what a prompt names: on the miniature noncross left 40 of 48" in said["noncross"][0]
    assert len(said["noncross"]) == len(said["self"]) == 1
    assert (
        "attn2.to_k hardly erases what a prompt names unless it holds all that reads the prompt"
        in said["attn2.to_k"][0]
    )
    explicit = {**values, "settings": {"select": "noncross", "implicit": True}}
    assert not any("hardly" in note for note in plan(build(explicit)).notes)
