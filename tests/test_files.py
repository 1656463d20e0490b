"""Edits that leave for other tools and come back, add up, and keep what they claim."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from huggingface_hub import ModelCard
from huggingface_hub.utils import httpx
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import unsee
from unsee.edits.algebra import difference, merge, undo
from unsee.edits.card import Card, Claims
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.evaluate.cache import Memory
from unsee.evaluate.detectors import load_detector
from unsee.export import hub
from unsee.export.foreign import adopt
from unsee.export.formats import FORMATS, matrices, rounded
from unsee.export.lowrank import low_rank
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import model_name
from unsee.models.model_card import model_card
from unsee.runs.config import EvalConfig
from unsee.runs.evaluate import measure
from unsee.runs.export import Precision, export
from unsee.runs.verify import Claim, held, prepare, sentences, within


@pytest.fixture(scope="session")
def everywhere(tiny: Any) -> unsee.Edit:
    """An edit of linear layers, convolutions, norms and biases alike: small random differences, reproducible."""
    rng = torch.Generator().manual_seed(0)
    parameters = dict(tiny.unet.named_parameters())
    names = [name for name in parameters if ("resnets.0" in name or "attn1" in name or "time_emb" in name)]
    deltas = {f"unet.{n}": 0.02 * torch.randn(parameters[n].shape, generator=rng) for n in names}
    card = Card("none", {}, (unsee.Concept("church"),), "tiny", fingerprint(tiny.unet), 0, {})
    return unsee.Edit(deltas, card)


def thin(edit: unsee.Edit, rank: int, seed: int = 0) -> unsee.Edit:
    """An edit of the same matrices that is of low rank, as a closed form would give it."""
    rng = torch.Generator().manual_seed(seed)
    deltas = {
        name: LowRank(
            0.1 * torch.randn(delta.shape[0], rank, generator=rng), torch.randn(rank, delta.shape[1], generator=rng)
        )
        for name, delta in edit.deltas.items()
        if isinstance(delta, torch.Tensor)
    }
    return unsee.Edit(dict(deltas), edit.card)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_reads_back(pipe: Any, edit: unsee.Edit, tmp_path: Path, to: str) -> None:
    done = export(
        edit, pipe, to, tmp_path / "out.safetensors", precision=Precision(energy=1.0 if FORMATS[to].low_rank else None)
    )
    assert done.effect > 0.01  # the edit is seen at all
    if FORMATS[to].low_rank:
        assert done.loss
        assert done.loss.kept == pytest.approx(1, abs=1e-6)
        assert done.difference < 1e-3
        assert done.lost < 1e-3
    else:
        assert done.exact
        assert done.difference < 1e-5
        assert done.lost == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize("to", ["delta", "diffusers-lora", "kohya-lora", "comfy"])
def test_convolutions_and_biases_read_back(pipe: Any, everywhere: unsee.Edit, tmp_path: Path, to: str) -> None:
    done = export(
        everywhere,
        pipe,
        to,
        tmp_path / "out.safetensors",
        precision=Precision(rank=2 if FORMATS[to].low_rank else None),
    )
    assert done.difference < 1e-3
    assert done.exact is not FORMATS[to].low_rank
    if done.loss:
        assert set(done.loss.ranks.values()) == {2}
        assert "unet.mid_block.resnets.0.norm1.weight" in done.loss.out
        assert 0 < done.loss.kept < 1
        assert done.lost > 0.01  # what is lost is seen


@pytest.mark.parametrize("to", ["diffusers-lora", "kohya-lora"])
def test_low_rank_differences_are_exported_unchanged(pipe: Any, edit: unsee.Edit, tmp_path: Path, to: str) -> None:
    closed = thin(edit, 3)
    path = export(closed, pipe, to, tmp_path / "out.safetensors").path
    again = adopt(path, pipe)
    for name, delta in closed.deltas.items():
        found = again.deltas[name]
        assert isinstance(found, LowRank)
        assert isinstance(delta, LowRank)
        assert torch.equal(found.up, delta.up)
        assert torch.equal(found.down, delta.down)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["unsee_origin"])["method"] == edit.card.method


def test_ranks_that_differ_survive_both_lora_formats(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    """diffusers 0.42 scales wrongly when alpha differs from layer to layer; what is written here must not trip it."""
    mixed = unsee.Edit({**thin(edit, 1).deltas, **dict(list(thin(edit, 4).deltas.items())[::2])}, edit.card)
    for to in ("diffusers-lora", "kohya-lora"):
        assert export(mixed, pipe, to, tmp_path / f"{to}.safetensors").difference < 1e-3


def test_a_lower_rank_is_the_nearest_approximation(edit: unsee.Edit) -> None:
    """By Eckart and Young, what is left out is the sum of the squares of the singular values beyond the rank."""
    name = next(iter(edit.deltas))
    delta = torch.randn(edit.deltas[name].shape, generator=torch.Generator().manual_seed(0))
    cut, loss = low_rank(unsee.Edit({name: delta}, edit.card), [name], rank=2)
    values = torch.linalg.svdvals(delta).square()
    found = cut.deltas[name]
    assert isinstance(found, LowRank)
    assert float((found.dense(delta.shape) - delta).square().sum()) == pytest.approx(float(values[2:].sum()), rel=1e-3)
    assert loss.kept == pytest.approx(float(values[:2].sum() / values.sum()), rel=1e-5)
    enough, loss = low_rank(unsee.Edit({name: delta}, edit.card), [name], energy=0.9)
    rank = loss.ranks[name]
    assert values[:rank].sum() >= 0.9 * values.sum() > values[: rank - 1].sum()
    product = unsee.Edit({name: LowRank(torch.eye(len(delta)), delta)}, edit.card)
    same, again = low_rank(product, [name], rank=rank)
    assert again.kept == pytest.approx(loss.kept, rel=1e-5)
    torch.testing.assert_close(same.deltas[name].dense(delta.shape), enough.deltas[name].dense(delta.shape))  # type: ignore[union-attr]


def comfyui(weights: dict[str, torch.Tensor], file: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What ComfyUI makes of .diff keys: for every weight of a UNet, lora_unet_ and its layer with underscores."""
    weights, used = dict(weights), set()
    for name in [name for name in weights if name.endswith(".weight")]:
        layer = name[: -len(".weight")]
        key = "lora_unet_" + layer.replace(".", "_")
        for mark, target in ((".diff", name), (".diff_b", layer + ".bias")):
            if key + mark in file:
                weights[target] = weights[target] + file[key + mark]
                used.add(key + mark)
    assert used == set(file), "a key that ComfyUI would not load"
    return weights


def test_comfyui_applies_every_key(pipe: Any, everywhere: unsee.Edit, tmp_path: Path) -> None:
    path = export(everywhere, pipe, "comfy", tmp_path / "out.safetensors").path
    found = comfyui(pipe.unet.state_dict(), load_file(path))
    with everywhere.applied(pipe):
        assert all(torch.equal(found[name], value) for name, value in pipe.unet.state_dict().items())


def test_an_export_in_half_precision_is_read_back_and_small(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    path = export(
        edit, pipe, "diffusers-lora", tmp_path / "out.safetensors", precision=Precision(4, dtype=torch.float16)
    ).path
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}


def test_an_export_that_reads_back_wrong_is_not_left_there(
    pipe: Any, edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = merge([edit], [0.5])
    wrong = dataclasses.replace(FORMATS["comfy"], write=lambda _, pipe, path: FORMATS["comfy"].write(half, pipe, path))
    monkeypatch.setitem(FORMATS, "wrong", wrong)
    with pytest.raises(InputError, match="more than the tolerance"):
        export(edit, pipe, "wrong", tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_formats_refuse_what_they_cannot_hold(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    for to, precision, message in (
        ("lora", Precision(), "unknown format 'lora'"),
        ("comfy", Precision(rank=2), "belong to LoRA formats"),
        ("kohya-lora", Precision(rank=2, energy=0.5), "not both"),
        ("kohya-lora", Precision(rank=0), "must be 1 or more"),
        ("kohya-lora", Precision(energy=1.5), "at most 1"),
        ("delta", Precision(dtype=torch.float16), "the model's own weights"),
    ):
        with pytest.raises(InputError, match=message):
            export(edit, pipe, to, out, precision=precision)
    norm = "unet.mid_block.resnets.0.norm1.weight"
    with pytest.raises(InputError, match="changes no matrix"):
        low_rank(unsee.Edit({norm: torch.ones(128)}, edit.card), matrices(pipe))
    (tmp_path / "home").mkdir()
    with pytest.raises(InputError, match="something else"):
        export(edit, pipe, "pipeline", tmp_path / "home", force=True)
    out.touch()
    with pytest.raises(InputError, match="exists already"):
        export(edit, pipe, "comfy", out)


def test_edits_add_up_scale_and_negate(pipe: Any, edit: unsee.Edit) -> None:
    other = thin(edit, 2)
    both = merge([edit, other], [0.5, -2.0])
    name = next(iter(edit.deltas))
    weight = pipe.unet.get_parameter(name.removeprefix("unet."))
    base = weight.detach().clone()
    with edit.applied(pipe, 0.5):
        first = weight.detach() - base
    with other.applied(pipe, -2.0):
        second = weight.detach() - base
    with both.applied(pipe):
        torch.testing.assert_close(weight.detach(), base + first + second)
    assert [card["weight"] for card in both.card.settings["edits"]] == [0.5, -2.0]
    ranks = merge([other, thin(edit, 3, seed=1)])
    found = ranks.deltas[name]
    assert isinstance(found, LowRank)
    assert found.up.shape[1] == 5
    assert both.card.concepts == edit.card.concepts
    nothing = merge([edit, edit], [1.0, -1.0])
    assert not any(delta.any() for delta in nothing.deltas.values() if isinstance(delta, torch.Tensor))
    with pytest.raises(InputError, match="one weight for each"):
        merge([edit], [1.0, 2.0])
    with pytest.raises(InputError, match="finite"):
        merge([edit], [float("nan")])


def test_diff_measures_what_differs_between_edits(edit: unsee.Edit) -> None:
    same = difference(edit, edit)
    assert same.fields == {}
    assert same.sizes[2] == 0
    assert same.cosine == pytest.approx(1)
    assert difference(edit, merge([edit], [-2.0])).cosine == pytest.approx(-1)
    product = thin(edit, 2)
    dense = unsee.Edit(
        {n: d.dense(edit.deltas[n].shape) for n, d in product.deltas.items() if isinstance(d, LowRank)},  # type: ignore[union-attr]
        edit.card,
    )
    for a in (product, dense):
        for b in (product, dense):
            assert difference(a, b).cosine == pytest.approx(1, abs=1e-5)
            assert difference(a, b).sizes[0] == pytest.approx(difference(b, a).sizes[1], rel=1e-5)


def test_an_edit_on_an_edit_knows_what_it_was_made_on(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    with edit.applied(pipe):
        below = fingerprint(pipe.unet)
        method = unsee.Hybrid(record_steps=4, updates=3, batch=2, runs=2, keep_runs=2, preserve_words=8)
        second = method(pipe, unsee.Concept("castle"))
    assert second.card.base_hash == below != edit.card.base_hash
    with pytest.raises(InputError, match="the weights here are"), second.applied(pipe):
        pass
    with edit.applied(pipe), second.applied(pipe):
        stacked = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    with pytest.raises(InputError, match="made one on top of the other"):
        merge([edit, second])
    with pytest.raises(InputError, match="the weights here are"):
        merge([second, edit], pipe=pipe)
    both = unsee.Edit.load(merge([edit, second], pipe=pipe).save(tmp_path / "both.safetensors"))
    assert [concept.erase for concept in both.card.concepts] == ["church", "castle"]
    with both.applied(pipe):
        for name, value in pipe.unet.state_dict().items():
            torch.testing.assert_close(value, stacked[name], rtol=0, atol=1e-6)


def test_undo_leads_from_the_exported_model_back(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    export(edit, pipe, "pipeline", tmp_path / "edited")
    edited = load(str(tmp_path / "edited"))
    back = undo(edit, pipe)
    with pytest.raises(InputError, match="the weights here are"), back.applied(pipe):
        pass
    with back.applied(edited):
        for name, value in edited.unet.state_dict().items():
            torch.testing.assert_close(value, pipe.unet.state_dict()[name], rtol=0, atol=1e-6)


def test_foreign_weights_become_the_same_model(pipe: Any, everywhere: unsee.Edit, tmp_path: Path) -> None:
    """The ESD authors and UCE save changed weights under the UNet's names."""
    with everywhere.applied(pipe):
        names = [name.removeprefix("unet.") for name in everywhere.deltas]
        changed = {name: pipe.unet.get_parameter(name).detach().contiguous().clone() for name in names}
    save_file(changed, tmp_path / "esd.safetensors")
    torch.save({f"unet.{n}": v for n, v in changed.items()}, tmp_path / "esd.pt")
    by_module: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in changed.items():
        module, _, part = name.rpartition(".")
        by_module.setdefault(module, {})[part] = value
    torch.save(by_module, tmp_path / "modules.pt")
    with pytest.raises(InputError, match="`unpickle`"):
        adopt(tmp_path / "esd.pt", pipe)
    for name in ("esd.safetensors", "esd.pt", "modules.pt"):
        found = adopt(tmp_path / name, pipe, concepts=[unsee.Concept("church")], unpickle=name.endswith(".pt"))
        assert found.card.method == "imported"
        assert len(found.card.settings["sha256"]) == 64
        assert found.card.concepts[0].erase == "church"
        with found.applied(pipe):
            for weight, value in changed.items():
                torch.testing.assert_close(pipe.unet.get_parameter(weight).detach(), value, rtol=0, atol=1e-6)


def test_foreign_adapters_become_the_same_differences(pipe: Any, everywhere: unsee.Edit, tmp_path: Path) -> None:
    held, _ = low_rank(everywhere, matrices(pipe), rank=2)
    for to in ("diffusers-lora", "kohya-lora", "comfy"):
        path = export(held, pipe, to, tmp_path / f"{to}.safetensors").path
        found = adopt(path, pipe)
        assert found.deltas.keys() == held.deltas.keys()
        for name, delta in found.deltas.items():
            want = held.deltas[name]
            assert isinstance(want, LowRank)
            shape = pipe.unet.get_parameter(name.removeprefix("unet.")).shape
            dense = delta.dense(shape) if isinstance(delta, LowRank) else delta
            torch.testing.assert_close(dense, want.dense(shape), rtol=1e-5, atol=1e-6)


def test_alphas_are_obeyed_wherever_they_stand(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    """W + alpha / rank up down: kohya's alphas that differ, and peft's metadata."""
    closed = thin(edit, 2)
    kohya = export(closed, pipe, "kohya-lora", tmp_path / "kohya.safetensors").path
    tensors = load_file(kohya)
    names = sorted(name for name in tensors if name.endswith(".alpha"))
    for k, name in enumerate(names):
        tensors[name] = torch.tensor(float(k + 1))
    text = {name: part for name, part in pipe.text_encoder.named_modules() if isinstance(part, torch.nn.Linear)}
    for name, part in text.items():
        layer = f"lora_te_text_model_{name.removeprefix('text_model.')}".replace(".", "_")
        tensors[f"{layer}.lora_down.weight"] = torch.ones(2, part.in_features)
        tensors[f"{layer}.lora_up.weight"] = torch.ones(part.out_features, 2)
        tensors[f"{layer}.alpha"] = torch.tensor(1.0)
    save_file(tensors, kohya)
    adopted = adopt(kohya, pipe)
    assert adopted.card.settings["left_out"] == {"text encoder": len(text)}
    assert text
    found = adopted.deltas
    by_key = {"lora_" + name.removesuffix(".weight").replace(".", "_"): name for name in closed.deltas}
    for k, name in enumerate(names):
        weight = by_key[name.removesuffix(".alpha")]
        delta, want = found[weight], closed.deltas[weight]
        assert isinstance(delta, LowRank)
        assert isinstance(want, LowRank)
        torch.testing.assert_close(delta.up @ delta.down, (k + 1) / 2 * (want.up @ want.down))
    peft = export(closed, pipe, "diffusers-lora", tmp_path / "peft.safetensors").path
    middle = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    said = {"unet.r": 2, "unet.lora_alpha": 8, "unet.alpha_pattern": {middle: 1}}
    save_file(load_file(peft), peft, metadata={"lora_adapter_metadata": json.dumps(said)})
    for name, delta in adopt(peft, pipe).deltas.items():
        want = closed.deltas[name]
        assert isinstance(delta, LowRank)
        assert isinstance(want, LowRank)
        scale = 0.5 if name == f"unet.{middle}.weight" else 4
        torch.testing.assert_close(delta.up @ delta.down, scale * (want.up @ want.down))


def test_a_lora_goes_on_top_of_a_model(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    closed = thin(edit, 2)
    lora = export(closed, pipe, "diffusers-lora", tmp_path / "style.safetensors").path
    finetune = load(f"tiny+{lora}")
    with closed.applied(pipe):
        want = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    found = finetune.unet.state_dict()
    assert found.keys() == want.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, want[name], rtol=0, atol=1e-5)
    assert model_name(finetune) == "tiny+style.safetensors"
    with pytest.raises(InputError, match="the weights here are"), edit.applied(finetune):
        pass
    carried = edit.forced(finetune)
    assert carried.card.base == "tiny+style.safetensors"
    assert carried.card.forced_from == edit.card.base_hash
    with carried.applied(finetune):
        pass
    assert edit.forced(pipe) is edit
    assert model_card(f"tiny+{lora}").detectors


def test_a_run_claims_and_its_claims_are_found_again(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    detectors = {"objects": load_detector(model_card("tiny").detectors["objects"])}
    # The base against itself: what is drawn is the same before and after, whatever the edit is.
    idle = merge([edit], [0.0])
    idle = dataclasses.replace(idle, card=dataclasses.replace(idle.card, concepts=edit.card.concepts))
    config = EvalConfig(model="here", edits=("edit=there.safetensors",))

    def of(claims: Claims | None) -> unsee.Edit:
        return dataclasses.replace(idle, card=dataclasses.replace(idle.card, claims=claims))

    def found(claims: Claims) -> list[Claim]:
        bench = prepare(of(claims), config, pipe, detectors)
        evaluation, _ = measure(bench, Memory())
        assert bench.config.suites == ("summary",)
        assert (bench.config.model, bench.config.edits, bench.config.pictures) == (
            "here",
            config.edits,
            claims.pictures,
        )
        return held(of(claims).card, evaluation)

    for nothing in (None, Claims(2, 0, 2, 3.0, {"objects": "objects"}, {})):
        with pytest.raises(InputError, match="claims nothing"):
            prepare(of(nothing), config, pipe, detectors)
    for share, holds in ((0.0, True), (1.0, False)):  # a denoiser that has learned nothing draws no church
        claims = Claims(6, 0, 2, 3.0, {"objects": "objects"}, {"church": (share, share)})
        (claim,) = found(claims)
        assert claim.found.row == "church"
        assert claim.found.base is not None
        assert claim.found.score.value == claim.found.base.value
        assert claim.held is holds
        said = sentences([claim])
        assert said[0].startswith("1 of 1" if holds else "0 of 1")
        assert said[1].startswith("holds" if holds else "FAILS")
        assert "≈" in said[1]  # the paired test: an idle edit cannot be told from the base
    with pytest.raises(InputError, match="`detectors` objects=FOLDER"):
        prepare(of(claims), config, pipe, {})
    (claim,) = found(dataclasses.replace(claims, rows={"removed/church": (0.0, 0.0)}, suite="summary"))
    assert (claim.found.row, claim.held) == ("church", True)
    with pytest.raises(InputError, match="a dragon"):
        found(dataclasses.replace(claims, rows={"a dragon": (0.0, 1.0)}))


def test_claims_of_earlier_versions_are_read(edit: unsee.Edit, tmp_path: Path) -> None:
    claims = Claims(2, 0, 2, 3.0, {"objects": "objects"}, {"church": (1.0, 0.0)})
    path = dataclasses.replace(edit, card=dataclasses.replace(edit.card, claims=claims)).save(
        tmp_path / "old.safetensors"
    )
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["unsee"])
    card["claims"]["judges"] = card["claims"].pop("detectors")
    del card["claims"]["suite"]
    save_file(load_file(path), path, metadata={"unsee": json.dumps(card)})
    assert unsee.Edit.load(path).card.claims == claims


def test_a_share_found_again_is_held_whatever_it_is() -> None:
    for n in range(2, 60):
        for hits in range(n + 1):
            assert within(hits / n, hits / n, n)
    assert not within(0.5, 0.0, 12)
    assert within(0.2, 0.0, 12)  # Wilson's interval of 0 of 12 reaches to 24.2 %


def test_the_hub_can_parse_the_model_card(edit: unsee.Edit, tmp_path: Path) -> None:
    claims = Claims(48, 0, 20, 7.5, {"objects": "objects"}, {"church": (1.0, 0.05), "dogs": (0.9, 0.8)})
    card = dataclasses.replace(edit.card, base=f"owner/model@{'0' * 40}", claims=claims)
    path = dataclasses.replace(edit, card=card).save(tmp_path / "edit.safetensors")
    (tmp_path / "before-after.png").write_bytes(b"picture")
    (tmp_path / "run.json").write_text("{}")
    folder = hub.repository(path, "me/no-church", tmp_path / "hub")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "before-after.png", "edit.safetensors"]
    data = ModelCard.load(folder / "README.md").data
    assert data.base_model == "owner/model"
    assert data.base_model_relation == "adapter"
    assert "concept-erasure" in data.tags
    assert {result.dataset_name: result.metric_value for result in data.eval_results} == {
        "church, before": 1.0, "church, after": 0.05, "dogs, before": 0.9, "dogs, after": 0.8,
    }  # fmt: skip
    assert unsee.Edit.load(folder / "edit.safetensors").card == card
    for repo in ("church", "../up/there", "a/b/c", "a b/c"):
        with pytest.raises(InputError, match="names no repository"):
            hub.repository(path, repo, tmp_path / "other")


def test_push_uploads_the_folder_of_the_dry_run(
    edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def upload_folder(self, **options: Any) -> str:
            calls.append((options["repo_id"], options))
            return "address"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert hub.push(tmp_path, "me/no-church", private=True) == "address"
    assert calls[0] == ("me/no-church", {"private": True, "exist_ok": True})
    assert calls[1][1]["folder_path"] == tmp_path

    def unreachable(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no such host")

    monkeypatch.setattr(Api, "create_repo", unreachable)
    with pytest.raises(InputError, match=r"no such host; .* is ready: .* push again"):
        hub.push(tmp_path, "me/no-church")


def test_a_checkpoint_file_is_a_model(pipe: Any, edit: unsee.Edit, tmp_path: Path) -> None:
    """One file in the layout of the first Stable Diffusion releases, with the configuration of a folder here."""
    path = tmp_path / "model.safetensors"
    save_file(single_file(pipe), path)
    loaded = load(f"{path}@tiny")
    for part in ("unet", "vae", "text_encoder"):
        assert fingerprint(getattr(loaded, part)) == fingerprint(getattr(pipe, part))
    assert model_name(loaded) == "model.safetensors"
    with edit.applied(loaded):
        pass
    with pytest.raises(InputError):
        load(f"{path}@{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="whole model file.*`model`"):
        adopt(path, pipe)


def single_file(pipe: Any) -> dict[str, torch.Tensor]:
    """A pipeline's weights under the names of the first Stable Diffusion releases."""
    unet, vae, text = (dict(part.state_dict()) for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    layers = pipe.unet.config.layers_per_block + 1
    tensors = {}
    for name, value in unet.items():
        name = re.sub(r"^time_embedding.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}", name)
        for part, number in (("resnets", 0), ("attentions", 1)):
            name = re.sub(
                rf"^down_blocks.(\d).{part}.(\d)",
                lambda m, number=number: f"input_blocks.{1 + int(m[1]) * layers + int(m[2])}.{number}",
                name,
            )
            name = re.sub(
                rf"^up_blocks.(\d).{part}.(\d)",
                lambda m, number=number: f"output_blocks.{int(m[1]) * layers + int(m[2])}.{number}",
                name,
            )
            name = re.sub(
                rf"^mid_block.{part}.(\d)",
                lambda m, number=number: f"middle_block.{2 * int(m[1]) if number == 0 else 1}",
                name,
            )
        name = re.sub(
            r"^down_blocks.(\d).downsamplers.0.conv", lambda m: f"input_blocks.{(int(m[1]) + 1) * layers}.0.op", name
        )
        name = re.sub(
            r"^up_blocks.(\d).upsamplers.0", lambda m: f"output_blocks.{(int(m[1]) + 1) * layers - 1}.2", name
        )
        outside = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
        inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
        inside |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
        for new, old in outside.items():
            name = re.sub(rf"^{new}\b", old, name)
        if "transformer_blocks" not in name:
            for new, old in inside.items():
                name = name.replace(f".{new}.", f".{old}.")
        tensors[f"model.diffusion_model.{name}"] = value
    blocks = len(pipe.vae.config.block_out_channels)
    for name, value in vae.items():
        name = re.sub(r"\.down_blocks.(\d).resnets", r".down.\1.block", name)
        name = re.sub(r"\.up_blocks.(\d).resnets", lambda m: f".up.{blocks - 1 - int(m[1])}.block", name)
        name = re.sub(r"\.down_blocks.(\d).downsamplers.0", r".down.\1.downsample", name)
        name = re.sub(r"\.up_blocks.(\d).upsamplers.0", lambda m: f".up.{blocks - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"\.mid_block.resnets.(\d)", lambda m: f".mid.block_{int(m[1]) + 1}", name)
        if ".mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = name.replace("to_out.0", "proj_out").replace("to_q", "q").replace("to_k", "k").replace("to_v", "v")
            value = value[:, :, None, None] if value.ndim == 2 else value
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        tensors[f"first_stage_model.{name}"] = value
    for name, value in text.items():
        whole = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{whole}"] = value
    return {name: value.contiguous().clone() for name, value in tensors.items()}


def test_the_commands_on_files_work_one_after_another(run: Run, edit: unsee.Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "a.safetensors")
    code, out, err = run("merge", "a.safetensors", "--weight", -1, "--out", "b.safetensors")
    assert code == 0, err
    code, out, err = run("diff", "a.safetensors", "b.safetensors")
    assert code == 0, err
    assert re.search(r"cosine +-1\.000000", out)
    assert "method                   hybrid  |  merge" in out
    assert max(map(len, out.splitlines())) < 160
    code, out, err = run("show", "b.safetensors")
    assert "-1.0 x church, by hybrid" in out
    assert max(map(len, out.splitlines())) < 250
    code, out, err = run("export", "a.safetensors", "--to", "delta")
    assert code == 0, err
    assert "every weight is the same to the bit" in out
    assert "next: pipe.unet.load_state_dict" in out
    words = ["--model", "tiny", "--out", "c.safetensors", "--concept", "church, castle"]
    code, out, err = run("import", "a-delta.safetensors", *words)
    assert code == 0, err
    assert [one.erase for one in unsee.Edit.load(tmp_path / "c.safetensors").card.concepts] == ["church", "castle"]
    code, out, err = run("verify", "c.safetensors")
    assert code == 0, err
    assert "has no claims" in out
    assert "next: unsee evaluate tiny --edit c.safetensors --suite objects" in out
    code, out, err = run("push", "c.safetensors", "me/church", "--dry-run")
    assert code == 0, err
    assert "nothing was uploaded; next: unsee push c.safetensors me/church" in out
    (tmp_path / "c-hub" / "README.md").write_text("mine")
    assert run("push", "c.safetensors", "--hub", "me/church", "--dry-run")[0] == 0
    assert (tmp_path / "c-hub" / "README.md").read_text() == "mine"  # what one wrote into it is what goes up
    code, out, err = run("merge", "a.safetensors", "--undo", "--out", "undo.safetensors")
    assert code == 0, err
    assert unsee.Edit.load(tmp_path / "undo.safetensors").card.base_hash != edit.card.base_hash


BAD = {
    "unknown format": (["export", "a.safetensors", "--to", "lora"], "unknown format 'lora'"),
    "unknown type": (["export", "a.safetensors", "--to", "comfy", "--dtype", "int8"], "unknown dtype 'int8'"),
    "merge over a file": (["merge", "a.safetensors", "--out", "a.safetensors"], "exists already"),
    "merge into nowhere": (["merge", "a.safetensors", "--out", "no/b.safetensors"], "there is no folder no"),
    "merge to a pickle": (["merge", "a.safetensors", "--out", "b.pt"], "should end in .safetensors"),
    "weights": (["merge", "a.safetensors", "--weight", "1", "--weight", "2", "--out", "b.safetensors"], "one weight"),
    "import of an edit": (["import", "a.safetensors", "--model", "tiny", "--out", "b.safetensors"], "already"),
    "import of nothing": (["import", "n.safetensors", "--model", "tiny", "--out", "b.safetensors"], "there is no"),
    "push to nowhere": (["push", "a.safetensors", "church", "--dry-run"], "names no repository"),
    "push to two": (["push", "a.safetensors", "a/b", "--hub", "a/b", "--dry-run"], "name one repository"),
    "push to none": (["push", "a.safetensors", "--dry-run"], "name one repository"),
    "carry to nowhere": (
        ["merge", "a.safetensors", "--force-base", "--out", "b.safetensors"],
        "name that model with --model",
    ),
    "diff with nothing": (["diff", "a.safetensors", "n.safetensors"], "there is no"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_an_error_of_one_line(run: Run, edit: unsee.Edit, tmp_path: Path, name: str) -> None:
    edit.save(tmp_path / "a.safetensors")
    words, expected = BAD[name]
    code, _, err = run(*words)
    assert code == 2, err
    assert expected in err
    assert err.count("\n") == 1, err
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_rounding_keeps_the_kind_of_a_difference(edit: unsee.Edit) -> None:
    mixed = {**edit.deltas, **dict(list(thin(edit, 1).deltas.items())[:1])}
    half = rounded(unsee.Edit(mixed, edit.card), torch.bfloat16).deltas
    assert [type(delta) for delta in half.values()] == [type(delta) for delta in mixed.values()]
