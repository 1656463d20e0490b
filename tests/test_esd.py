"""Targets, by hand and against the network; ESD as the paper has it; hybrid: what it learns, and what it may touch."""

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from conftest import QUICK
from PIL import Image

import unsee
from unsee.denoising.activations import second_moments
from unsee.denoising.calls import Call
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import replay
from unsee.denoising.rows import single_rows
from unsee.errors import InputError
from unsee.methods.esd import ESD
from unsee.methods.hybrid import CLOSED_FORM_ETA, Hybrid
from unsee.methods.lora import LoRA
from unsee.methods.prompts import NEUTRAL, TEMPLATES, WITH, in_templates, other_words, preserved_words, with_contexts
from unsee.methods.settings import RUNS, UPDATES, Settings
from unsee.methods.targets import Erasing, esd_target, preserving, steer, without_implicit
from unsee.methods.uce import UCE, optimum
from unsee.models.weights import select, text_input_weights
from unsee.runs.config import build
from unsee.runs.erase import plan


@pytest.mark.parametrize(("eta", "target"), [(0.0, 1.0), (1.0, -1.0), (3.0, -5.0)])
def test_the_target_of_eq_6_is_that_derived_by_hand(eta: float, target: float) -> None:
    # u = 1, c = 3:  u - eta (c - u) = 1 - 2 eta
    assert steer(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(1.0), eta).item() == target


def predict(pipe: Any, prompt: str, like: Any) -> torch.Tensor:
    """The network's answer to a prompt at a recorded x and t, by the pipeline's own encoder and nothing of unsee."""
    text, empty = pipe.encode_prompt(prompt, "cpu", 1, True, "")
    embedding = text if prompt else empty
    with torch.no_grad():
        return pipe.unet(like.arguments["sample"], like.arguments["timestep"], embedding).sample


RECORDED = Runs(3, 3.0, "pipeline", 4)


def asking(
    pipe: Any, concept: unsee.Concept, count: int = 1, *, eta: float = 1.0, contexts: Any = (), **options: Any
) -> list[Call]:
    """Calls that ask for a concept by its bare name, with ESD's targets."""
    erasing = Erasing(RECORDED, partial(esd_target, eta), ("{}",), contexts)
    return erasing.calls(pipe, concept, count, torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("eta", [0.0, 1.0, 3.0])
def test_targets_are_the_frozen_models_steered_away(pipe: Any, eta: float) -> None:
    for row in asking(pipe, unsee.Concept("church"), eta=eta):
        c, u = predict(pipe, "church", row), predict(pipe, "", row)
        torch.testing.assert_close(row.output, u - eta * (c - u), atol=1e-4, rtol=1e-4)


def test_targets_with_an_anchor_start_at_the_anchor(pipe: Any) -> None:
    concept = unsee.Concept("church", anchor="castle")
    for row in asking(pipe, concept):
        c, a = predict(pipe, "church", row), predict(pipe, "castle", row)
        torch.testing.assert_close(row.output, 2 * a - c, atol=1e-4, rtol=1e-4)


def test_a_context_word_stays_in_the_target(pipe: Any) -> None:
    rows = asking(pipe, unsee.Concept("church"), 2, contexts=["{}", "{} in ink style"])
    beside = []
    for row in (one for call in rows for one in single_rows(call)):
        plain, styled = predict(pipe, "church", row), predict(pipe, "church in ink style", row)
        beside.append(torch.allclose(replay(pipe.unet, row), styled, atol=1e-4))
        c, u = (styled, predict(pipe, "in ink style", row)) if beside[-1] else (plain, predict(pipe, "", row))
        torch.testing.assert_close(row.output, 2 * u - c, atol=1e-4, rtol=1e-4)
    assert 0 < sum(beside) < len(beside)


def test_erasing_from_a_whole_records_prompts_for_the_whole(pipe: Any) -> None:
    concept = unsee.Concept("crown", from_="cowboy")
    for row in asking(pipe, concept):
        b, c, u = (predict(pipe, prompt, row) for prompt in ("cowboy", "crown", ""))
        torch.testing.assert_close(row.output, b - (c - u), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(replay(pipe.unet, row), b, atol=1e-4, rtol=1e-4)  # the row asks with "cowboy"


@pytest.mark.parametrize("anchor", [None, "hat"])
def test_a_part_is_what_it_adds_to_its_whole_and_half_of_the_runs_ask_for_both(pipe: Any, anchor: str | None) -> None:
    concept = unsee.Concept("crown", from_="cowboy", anchor=anchor)
    erasing = Erasing(RECORDED, partial(esd_target, 1.0), ("{}",), with_whole=WITH)
    calls = erasing.calls(pipe, concept, 2, torch.Generator().manual_seed(0))
    for row, prompt in zip(single_rows(calls[0]), ("cowboy", "cowboy with a crown"), strict=True):
        b, c = (predict(pipe, text, row) for text in ("cowboy", "cowboy with a crown"))
        u = predict(pipe, "cowboy with a hat", row) if anchor else b
        torch.testing.assert_close(row.output, b - (c - u), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(replay(pipe.unet, row), predict(pipe, prompt, row), atol=1e-4, rtol=1e-4)


def test_context_words_stand_beside_names_and_not_beside_parts(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.methods import targets

    asked: list[list[str]] = []

    def spy(pipe: Any, prompts: Any, **options: Any) -> Any:
        asked.append(list(prompts))
        return record(pipe, prompts, **options)

    monkeypatch.setattr(targets, "record", spy)
    both = (unsee.Concept("church"), unsee.Concept("crown", from_="cowboy"))
    made = Hybrid(**{**QUICK, "runs": 8, "context_words": 8})(pipe, both)
    assert made.card.concepts == both
    assert not set(asked[0]) <= {way.format("church") for way in TEMPLATES}
    whole = {way.format("cowboy") for way in TEMPLATES}
    assert set(asked[1]) <= whole | {WITH.format(prompt, "crown") for prompt in whole}
    assert set(asked[1]) & whole
    assert set(asked[1]) - whole
    assert any(prompt.endswith("with a crown") for prompt in asked[2])  # elsewhere it stays


def says(pipe: Any, row: Any, word: str) -> bool:
    """Whether a row asks with a word, under any template."""
    asked = conditions(pipe, [template.format(word) for template in TEMPLATES]).arguments["encoder_hidden_states"]
    return any(torch.allclose(row.arguments["encoder_hidden_states"][0], one, atol=1e-5) for one in asked)


def test_targets_of_preservation_prompts_are_the_frozen_models(pipe: Any) -> None:
    keep, empty = preserving(pipe, ["a castle"], RECORDED, torch.Generator().manual_seed(0))
    for rows in (keep, empty):
        for row in rows[:4]:
            torch.testing.assert_close(replay(pipe.unet, row), row.output, atol=1e-4, rtol=1e-4)
    assert says(pipe, keep[0], "castle")


@pytest.mark.parametrize("names", [("church",), ("church", "neon")])
def test_targets_of_preservation_prompts_lose_an_implicit_concept(pipe: Any, names: tuple[str, ...]) -> None:
    prompts, concepts = ["a castle", "a dog"], [unsee.Concept(name) for name in names]
    frozen, _ = preserving(pipe, prompts, RECORDED, torch.Generator().manual_seed(0))
    keep, beside = without_implicit(pipe, frozen, prompts, concepts, partial(esd_target, 0.5))
    assert len(beside) == len(names) * len(keep)
    for step, call in enumerate(keep):
        asked = beside[step * len(names) : (step + 1) * len(names)]
        for run, (k, row) in enumerate(zip(prompts, single_rows(call), strict=True)):
            e = predict(pipe, k, row)
            with_names = [predict(pipe, f"{k}, {name}", row) for name in names]
            target = e - 0.5 * sum(c - e for c in with_names)
            torch.testing.assert_close(row.output, target, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(replay(pipe.unet, row), e, atol=1e-4, rtol=1e-4)  # k asks for it
            for call_with, c in zip(asked, with_names, strict=True):  # and so does each name beside k
                one = single_rows(call_with)[run]
                torch.testing.assert_close(one.output, target, atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(replay(pipe.unet, one), c, atol=1e-4, rtol=1e-4)


def test_an_implicit_concept_needs_preservation_prompts(pipe: Any) -> None:
    with pytest.raises(unsee.InputError, match="keep_weight"):
        Hybrid(**{**QUICK, "implicit": True, "keep_weight": 0})(pipe, unsee.Concept("church"))


def test_a_neutral_word_that_is_erased_is_not_kept(pipe: Any) -> None:
    kept = Hybrid(**QUICK)(pipe, unsee.Concept("cat", keep=("castle",))).card.kept
    assert NEUTRAL[0] == "cat"
    assert kept[:2] == ("castle", NEUTRAL[1])
    assert "cat" not in kept


def test_other_words_of_the_tokenizer_change_little(shipped: Any) -> None:
    """For what an edit changes in answers to the concept, those to words that nobody named change less."""

    def share(spared: int) -> float:
        edit = Hybrid(**{**QUICK, "updates": 6, "keep_weight": 0, "preserve_words": spared})(
            shipped, unsee.Concept("church")
        )
        names = single_rows(conditions(shipped, ["a church", "church", "a picture of a church", "church in a forest"]))
        others = single_rows(conditions(shipped, ["castle", "an owl", "guitar", "a key"]))
        with edit.applied(shipped), torch.no_grad():
            moved = [
                sum((replay(shipped.unet, row) - row.output).square().mean().item() for row in rows)
                for rows in (others, names)
            ]
        return moved[0] / moved[1]

    assert share(spared=100) < 0.3 * share(spared=0)


def test_only_selected_weights_change(pipe: Any) -> None:
    for selection in ("cross", "cross-kv", "self", "noncross"):
        edit = Hybrid(**{**QUICK, "updates": 1, "record_steps": 2, "held_out": 0}, select=selection)(
            pipe, unsee.Concept("church")
        )
        assert set(edit.deltas) == {f"unet.{name}" for name in select(pipe.unet, selection)}
        before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
        with edit.applied(pipe):
            changed = {f"unet.{n}" for n, value in pipe.unet.state_dict().items() if not torch.equal(value, before[n])}
        assert changed <= set(edit.deltas)
        assert changed


@pytest.mark.parametrize(
    ("method", "concept", "start"),
    [
        (Hybrid(), unsee.Concept("church"), "closed-form"),
        (Hybrid(start="base"), unsee.Concept("church"), "base"),
        (Hybrid(select="noncross"), unsee.Concept("church"), "base"),
        (Hybrid(keep_weight=0, preserve_words=0), unsee.Concept("church"), "base"),
        (Hybrid(), unsee.Concept("crown", from_="cowboy"), "base"),
        (LoRA(), unsee.Concept("church"), "closed-form"),
        (LoRA(action="enhance"), unsee.Concept("church"), "base"),
    ],
)
def test_a_fit_takes_longer_where_no_closed_form_is_near(
    pipe: Any, method: Hybrid, concept: unsee.Concept, start: str
) -> None:
    resolved = method.resolved(pipe.unet, [concept])
    assert (resolved.updates, resolved.runs) == (UPDATES[start], RUNS[start])
    assert UPDATES["base"] > UPDATES["closed-form"]
    for known in (UPDATES, RUNS):
        said = f"None: {known['closed-form']} after a closed form, {known['base']} from the base"
        assert said in str(Settings.__doc__)
    given = dataclasses.replace(method, updates=7, runs=3, lr=0.1)
    assert given.resolved(pipe.unet, [concept]) == given


def test_a_plan_says_how_long_a_fit_takes() -> None:
    values = {"concepts": [{"erase": "church"}], "settings": {"start": "base"}}
    settings = plan(build(values)).config.settings
    assert (settings["updates"], settings["runs"]) == (UPDATES["base"], RUNS["base"])


STILL = {**QUICK, "updates": 1, "lr": 1e-12, "preserve_words": 8, "record_steps": 2}


def test_matrices_that_read_the_prompt_start_at_the_closed_form(pipe: Any) -> None:
    church = unsee.Concept("church")
    edit = Hybrid(**STILL)(pipe, church)
    names = {name.removesuffix(".weight"): weight for name, weight in text_input_weights(pipe.unet).items()}
    rng = torch.Generator().manual_seed(0)
    kept = (*preserved_words((church,), Hybrid(**STILL).neutral), *other_words(pipe, 8, (church,), list(names), rng))
    ways = with_contexts(pipe, TEMPLATES, STILL["context_words"], (church,), rng)
    moments = second_moments(pipe, in_templates(ways, kept, rng, each=2), list(names))
    for layer, delta in optimum(pipe, (church,), names, moments, ways, rng, UCE(eta=CLOSED_FORM_ETA)).items():
        dense = delta.dense(names[layer].shape)
        found = edit.deltas[f"unet.{layer}.weight"]
        assert isinstance(found, torch.Tensor)
        assert (found - dense).abs().max() < 1e-3 * dense.abs().max()


@pytest.mark.parametrize(
    ("settings", "concept"),
    [
        ({"start": "base"}, unsee.Concept("church")),
        ({"select": "noncross"}, unsee.Concept("church")),
        (
            {"preserve_words": 0, "keep_weight": 0},
            unsee.Concept("church"),
        ),  # nothing stays: a closed form would move it all
        ({}, unsee.Concept("crown", from_="cowboy")),
    ],
)
def test_layers_that_do_not_read_the_prompt_start_at_the_base(
    pipe: Any, settings: dict[str, Any], concept: unsee.Concept
) -> None:
    edit = Hybrid(**{**STILL, **settings})(pipe, concept)
    assert max(float(delta.abs().max()) for delta in edit.deltas.values() if isinstance(delta, torch.Tensor)) < 1e-10


def test_the_loss_of_erasing_falls(shipped: Any) -> None:
    method = Hybrid(**{**QUICK, "runs": 4, "updates": 8, "batch": 4, "keep_weight": 0})
    edit = method(shipped, unsee.Concept("church"))
    rows = asking(shipped, unsee.Concept("church"), 4)

    def loss() -> float:
        with torch.no_grad():
            return sum((replay(shipped.unet, row) - row.output).square().mean().item() for row in rows)

    base = loss()
    with edit.applied(shipped):
        assert loss() < 0.7 * base


def test_the_paper_preset_draws_from_the_edited_model(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record for every update, of one row, at one step; the frozen model gives the targets."""
    from unsee.methods import targets

    calls: list[Any] = []

    def spy(model: Any, prompts: Any, **options: Any) -> Any:
        calls.append((list(prompts), options["at"], {n: v.clone() for n, v in select(pipe.unet, "cross").items()}))
        return record(model, prompts, **options)

    monkeypatch.setattr(targets, "record", spy)
    preset = {**ESD.presets["paper"], "updates": 3, "record_steps": 5, "lr": 1e-3}
    ESD(**preset)(pipe, unsee.Concept("church"))
    assert [prompts for prompts, _, _ in calls] == [["church"]] * 3
    assert all(len(at) == 1 for _, at, _ in calls)
    name = next(iter(calls[0][2]))
    assert not torch.equal(calls[0][2][name], calls[2][2][name])


@pytest.mark.parametrize("method", [Hybrid, LoRA])
def test_targets_are_the_frozen_models_where_a_fit_starts_elsewhere(
    pipe: Any, monkeypatch: pytest.MonkeyPatch, method: type[Hybrid]
) -> None:
    from unsee.methods import hybrid

    learned: list[Call] = []

    def listen(net: Any, weights: Any, make_batch: Any, *options: Any, **more: Any) -> None:
        learned.extend(single_rows(make_batch(0).call)[:2])

    monkeypatch.setattr(hybrid, "fit", listen)
    quick = method(**{**QUICK, "context_words": 0, "templates": ("{}",), "keep_weight": 0, "batch": 2})
    assert quick.starts(pipe.unet, [unsee.Concept("church")]) == "closed-form"
    quick(pipe, unsee.Concept("church"))
    assert len(learned) == 2
    for row in learned:
        c, u = predict(pipe, "church", row), predict(pipe, "", row)
        torch.testing.assert_close(row.output, 2 * u - c, atol=1e-4, rtol=1e-4)


def test_re_recorded_targets_are_the_frozen_models(pipe: Any, edit: unsee.Edit) -> None:
    from unsee.models.weights import temporary_values

    weights = select(pipe.unet, "cross")
    frozen = {name: weight.data for name, weight in weights.items()}
    with edit.applied(pipe, 20.0):
        rows = asking(pipe, unsee.Concept("church"), at=[2], frozen=partial(temporary_values, weights, frozen))
    for row in rows:
        c, u = predict(pipe, "church", row), predict(pipe, "", row)
        torch.testing.assert_close(row.output, 2 * u - c, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"eta": -1},
        {"eta": float("nan")},
        {"lr": 0},
        {"updates": 0},
        {"templates": ("a",)},
        {"templates": ("{} and {}",)},
        {"record_guidance": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Hybrid(**wrong)


def test_words_to_keep_are_learned_and_others_are_held_out(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from unsee.methods import hybrid

    learned: list[Call] = []
    fit = hybrid.fit

    def listen(net: Any, weights: Any, make_batch: Any, *how: Any, **options: Any) -> list[float]:
        learned.extend(make_batch(k).call for k in range(12))
        return fit(net, weights, make_batch, *how, **options)

    monkeypatch.setattr(hybrid, "fit", listen)
    concept = unsee.Concept("church", keep=("castle", "mosque"))
    quick = Hybrid(
        **{**QUICK, "context_words": 0, "templates": ("{}",), "neutral": ("cat",), "keep_runs": 1, "batch": 4}
    )
    edit = quick(pipe, concept)
    text = {
        word: conditions(pipe, [word]).arguments["encoder_hidden_states"][0] for word in ("castle", "mosque", "cat")
    }
    rows = [row for call in learned for row in call.arguments["encoder_hidden_states"]]
    asked = {word for word, want in text.items() if any(torch.allclose(row, want, atol=1e-4) for row in rows)}
    assert asked == {"castle", "mosque"}
    assert edit.card.curve  # by the cat
    assert Hybrid(**{**QUICK, "neutral": ()})(pipe, unsee.Concept("church", keep=("castle",))).card.curve == ()


KINDS = [unsee.Concept("crown", from_="cowboy"), unsee.Concept("church", anchor="castle"), unsee.Concept("church")]


@pytest.mark.parametrize("concept", KINDS)
def test_the_paper_preset_takes_every_kind_of_concept(pipe: Any, concept: unsee.Concept) -> None:
    edit = ESD(**{**ESD.presets["paper"], "updates": 2, "record_steps": 3})(pipe, concept)
    assert any(bool(delta.any()) for delta in edit.deltas.values() if isinstance(delta, torch.Tensor))


def test_patience_needs_rows_that_are_held_out(pipe: Any) -> None:
    with pytest.raises(InputError, match="patience needs held-out rows"):
        Hybrid(**{**QUICK, "patience": 2, "held_out": 0})(pipe, unsee.Concept("church"))


def test_a_memorised_picture_is_erased_at_its_own_levels_of_noise(pipe: Any, tmp_path: Any) -> None:
    """Sec. 5.4: x_t is the real picture with the noise of t, whatever the model would draw."""
    image = tmp_path / "known.png"
    pipe("a castle", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0].save(image)
    concept = unsee.Concept("the great wave", image=str(image))
    quick = Hybrid(**{**QUICK, "templates": ("{}",)})
    calls = asking(pipe, concept, 2)
    with torch.no_grad():
        pixels = pipe.image_processor.preprocess(Image.open(image)).to(memory_format=torch.channels_last)
        z = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
    for call in calls:
        abar = pipe.scheduler.alphas_cumprod[int(call.arguments["timestep"][0])]
        noise = (call.arguments["sample"] - abar.sqrt() * z) / (1 - abar).sqrt()
        assert abs((noise * z).mean()) < 0.2 * z.square().mean()
    row = single_rows(calls[-1])[0]
    c, u = predict(pipe, "the great wave", row), predict(pipe, "", row)
    torch.testing.assert_close(row.output, 2 * u - c, atol=1e-4, rtol=1e-4)
    edit = quick(pipe, concept)
    assert any(bool(delta.any()) for delta in edit.deltas.values() if isinstance(delta, torch.Tensor))
