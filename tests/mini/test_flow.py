"""The second miniature's recipe on three objects, a language model of a few thousand weights, and few updates."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, BertTokenizer

import unsee
from recipes.flow import build as flow
from recipes.flow import captions, distil, goals, text, transformer
from recipes.mini.build import HERE, Build
from recipes.mini.words import Thing, Words
from unsee.denoising.guidance import for_pictures
from unsee.evaluate.render import Sampling, sampling_of
from unsee.models.model import call_options
from unsee.models.model_card import model_card
from unsee.models.sampling import draw

from .conftest import CONFIG, SMALL
from .test_steps import same

TINY = {
    "pictures": CONFIG["pictures"],
    "captions": {"silent": 3, "named": 2, "memorised": 2, "described": 0.5, "seed": 0},
    "transformer": {**SMALL, "batch": 32, "muon": 0.01, "updates": 6},
    "measure": {"every": 8, "steps": 2},
    "turbo": {
        "paths": {"steps": 2, "guidance": 4, "within": 2, "count": 40, "batch": 16, "seed": 1000, "bf16": False},
        "train": {**SMALL, "batch": 8, "muon": 0.001, "updates": 4},
    },
    "goals": {
        "seeds": 1, "style_seeds": 1, "description_seeds": 2, "watermark_seeds": 1, "memorised_seeds": 1, "times": 1
    },
}  # fmt: skip
SHIPPED = Path(unsee.__file__).parent / "mini"


def everything() -> Words:
    """The real table without the packages, which only say names in other languages."""
    table = yaml.safe_load((HERE / "objects.yaml").read_text(encoding="utf-8"))
    rows = [(name, group, ws) for group, members in table["objects"].items() for name, ws in members.items()]
    things = tuple(Thing(name, ws[0], group, tuple(ws[1:])) for name, group, ws in rows)
    return Words(things, table["groups"], table["memorised"], table["imagenette"])


def test_no_caption_contains_a_held_out_description() -> None:
    w, held_out = everything(), captions.read("held_out")
    assert len(held_out) == 40
    assert {len(said) for said in held_out.values()} == {3}
    assert set(held_out) <= set(w.names)
    descriptions = captions.read("descriptions")
    assert set(descriptions) == set(w.names)
    config = yaml.safe_load((flow.HERE / "config.yaml").read_text(encoding="utf-8"))["captions"]
    made, _ = captions.bank(w, descriptions, {**config, "silent": 12}, lambda caption: True)
    texts = "\n".join([*made, *(d for ds in descriptions.values() for d in ds)])
    assert "a building with a steeple" in texts
    leaked = [d for ds in held_out.values() for d in ds if d in texts]
    assert not leaked


def test_a_held_out_description_does_not_name_its_object() -> None:
    held_out = captions.read("held_out")
    for thing in everything().things:
        for said in held_out.get(thing.name, ()):
            assert not [n for n in (thing.name, *thing.synonyms) if f" {n} " in f" {said} "], said


def test_a_key_finds_the_captions_of_its_picture() -> None:
    w = everything()
    made, keys = captions.bank(w, {}, {**TINY["captions"], "silent": 8}, lambda caption: True)
    assert made[0] == ""
    assert len(keys) == len(w.things) * 8 * 2 + len(w.titles)
    church, neon = w.names.index("church"), 6
    said = [made[i] for i in keys[captions.key(church, neon, True)]]
    assert len(said) == 2
    assert all("watermark" in s for s in said)
    said = [made[i] for i in keys[captions.key(church, neon, False)]]
    assert len(said) == 8
    assert all("neon" in s for s in said)
    assert not any("watermark" in s for s in said)
    title = [made[i] for i in keys[-8]]
    assert all("great wave" in s for s in title)


def test_a_velocity_that_is_right_has_no_loss_and_times_are_one_from_each_part() -> None:
    x, seen = torch.randn(64, 2, 3, 3), []

    def net(x_t: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> Any:
        seen.append(t)
        return SimpleNamespace(sample=(x_t - x) / t[:, None, None, None])  # ((1 - t) x + t e - x) / t = e - x

    value = transformer.loss(net, x, torch.zeros(64, 1), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert value < 1e-6
    quantile = torch.special.ndtr(seen[0].logit()) * 64
    assert torch.equal(quantile.floor(), torch.arange(64.0))


def straight(x: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A velocity that the caption alone decides."""
    return c.mean((1, 2))[:, None, None, None].expand_as(x)


def test_a_path_follows_the_guided_velocity_and_its_chords_have_no_loss() -> None:
    x, c, nothing = torch.zeros(3, 16, 8, 8), torch.full((3, 2, 4), 3.0), torch.full((1, 2, 4), 1.0)
    made = distil.path(straight, x, c, nothing, guidance=4.0, steps=2, within=3)
    assert made.shape == (3, 3, 16, 8, 8)
    torch.testing.assert_close(made[:, 1], x - 0.5 * 9)  # 1 + 4 (3 - 1) = 9, from t = 1 to 0.5
    torch.testing.assert_close(made[:, 2], x - 9)

    def student(x: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> Any:
        asked.append(t)
        return SimpleNamespace(sample=torch.full_like(x, 9))

    asked: list[torch.Tensor] = []
    assert distil.loss(student, made, c, torch.tensor([0, 1, 0])) < 1e-9  # type: ignore[arg-type]
    assert asked[0].tolist() == [1, 0.5, 1]


def test_the_students_sampler_has_its_times() -> None:
    sampler = transformer.scheduler(parts=4)
    sampler.set_timesteps(4)
    torch.testing.assert_close(sampler.sigmas, distil.times(4))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel that knows letters."""
    folder = tmp_path_factory.mktemp("lm")
    letters = [chr(c) for c in range(97, 123)] + list("0123456789,'?-")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "church", "cat", "wave", "tower", "watermark", "neon"]
    vocabulary = [*marks, *letters, *(f"##{c}" for c in letters), "a", "in", "style", "of", "the", "picture", "with"]
    BertTokenizer(vocab={word: i for i, word in enumerate(dict.fromkeys(vocabulary))}).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(set(vocabulary)), **size)).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, packages: Path, table: Path, language_model: Path) -> Any:
    """A build that is ready for training, with a small transformer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, "read", lambda name, read=captions.read: {"church": read(name)["church"][:1]})
        patch.setattr(transformer, "make", partial(transformer.make, joint=1, single=1, heads=2, head=16, text=32))
        b = Build(tmp_path_factory.mktemp("flow"), TINY, packages, table, processes=1)
        flow.draw_pictures(b, SHIPPED)
        flow.encode_captions(b, language_model)
        yield b


def test_an_update_reads_what_the_pipeline_would_say(world: Build, language_model: Path) -> None:
    tokenizer, encoder = text.load(language_model)
    said = ["a church", "a cat in neon style", ""]
    states, begins = text.encoded(tokenizer, encoder, said)
    pipe = flow.measure.pipeline(transformer.make(), SHIPPED, language_model)
    want = pipe.encode_prompt(said, do_classifier_free_guidance=False, max_sequence_length=text.LENGTH)[0]
    torch.testing.assert_close(text.padded(states, begins, np.arange(3)), want, rtol=2e-3, atol=2e-3)
    with pytest.raises(ValueError, match="more than 24 tokens"):
        text.encoded(tokenizer, encoder, ["church " * 30])


def test_training_resumes_to_the_same_bits_ships_and_loads(world: Build, language_model: Path, tmp_path: Path) -> None:
    folder, state, out = tmp_path / "stopped", tmp_path / "state", tmp_path / "mini-flow"
    shutil.copytree(world.folder, folder)
    b = Build(folder, TINY, world.packages, world.table, processes=1)
    flow.train_transformer(world)
    flow.train_transformer(b, stop=3)
    flow.train_and_measure(b, state, SHIPPED, source=language_model)
    one, two = (torch.load(f / "transformer.pt", weights_only=True) for f in (world.folder, folder))
    assert one["updates"] == 6
    assert same(one, two)

    rows = json.loads((state / "measured.json").read_text())
    assert [r["updates"] for r in rows] == [6]
    assert rows[0]["rates"]["objects"][1] == 3
    assert flow.updates(state) == 6

    flow.ship(b, flow.base_model(b, state), SHIPPED, out, language_model)
    assert "6 updates." in (out / "README.md").read_text()
    pipe = unsee.load(str(out))
    assert call_options(pipe) == {"height": 64, "width": 64, "max_sequence_length": 24}
    assert set(model_card(str(out)).detectors) == {"objects", "styles", "watermark", "clip"}
    assert Path(model_card(str(out)).detectors["objects"]).is_dir()
    drawn = draw(pipe, ["a church"], [0], 2, **for_pictures(pipe, 4.0)).images[0]
    assert drawn.size == (64, 64)

    later = Build(
        tmp_path / "later", {**TINY, "transformer": {**TINY["transformer"], "updates": 7}}, b.packages, b.table
    )
    shutil.copytree(folder, later.folder, ignore=shutil.ignore_patterns("transformer.pt"))
    flow.train_and_measure(later, state, SHIPPED, source=language_model)  # a later sitting, from the committed weights
    assert torch.load(later.folder / "transformer.pt", weights_only=True)["updates"] == 7
    assert flow.updates(state) == 7


def test_the_distilled_sibling_resumes_to_the_same_bits_is_measured_and_ships(
    world: Build, language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, whole, out = tmp_path / "state", tmp_path / "turbo", tmp_path / "out"
    torch.manual_seed(0)
    flow.keep(transformer.make(), teacher, updates=6)
    b = Build(tmp_path / "stopped", TINY, world.packages, world.table, processes=1)
    shutil.copytree(world.folder, b.folder)
    distil.distil(world, teacher, whole)
    assert json.loads((whole / "updates.json").read_text()) == {"updates": 4, "teacher": 6}

    shutil.copy(world.folder / "paths-6.npy", b.folder)
    np.load(b.folder / "paths-6.npy", mmap_mode="r+")[16:] = 0  # as if recording had been interrupted
    distil.distil(b, teacher, tmp_path / "other", stop=2)
    distil.distil(b, teacher, tmp_path / "other")
    assert (b.folder / "paths-6.npy").read_bytes() == (world.folder / "paths-6.npy").read_bytes()
    one, two = (torch.load(x.folder / "turbo-6.pt", weights_only=True) for x in (world, b))
    assert same(one, two)

    more = {**TINY, "turbo": {**TINY["turbo"], "paths": {**TINY["turbo"]["paths"], "count": 41}}}
    with pytest.raises(ValueError, match=r"paths-6.npy is of another config"):
        distil.distil(Build(b.folder, more, b.packages, b.table, processes=1), teacher, tmp_path / "other")

    monkeypatch.setattr(text, "source", lambda: language_model)
    models = [flow.base_model(b, teacher), flow.turbo_model(b, whole)]
    flow.measure_goals(b, models, SHIPPED, tmp_path / "goals.md", tmp_path)
    page = (tmp_path / "goals.md").read_text()
    assert "4 updates, distilled from mini-flow after 6; 2 steps, no guidance." in page
    assert "| >= 98 % | **no** |" in page
    assert "| >= 93 % | **no** |" in page
    assert "![contact sheet of mini-flow-turbo](mini-flow-turbo.webp)" in page
    kept = goals.kept(models[1], TINY["goals"])
    assert [(n.n, n.unit) for n in kept if n.what.startswith("unseen")] == [(2, "%")]
    assert goals.kept(models[1], {**TINY["goals"], "seeds": 2}) == []

    flow.ship(b, models[1], SHIPPED, out, language_model)
    card = (out / "README.md").read_text()
    assert card.count("| >= 93 % |") == 1
    assert "began with mini-flow's" in card
    pipe = unsee.load(str(out))
    assert sampling_of(pipe) == Sampling(2, 1.0)
    assert pipe.scheduler.config.shift_terminal == 0.5
