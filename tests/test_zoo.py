"""Every method on every family: what holds for one pipeline holds for all."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import zoo
from torch import Tensor

from unsee import Concept, Edit, InputError, methods
from unsee.denoising.activations import inputs as inputs_of
from unsee.denoising.activations import second_moments
from unsee.denoising.calls import Call, Trajectory, output_of
from unsee.denoising.guidance import for_pictures, guided
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import checkpointed, replay
from unsee.denoising.rows import single_rows, stack
from unsee.evaluate.render import Sampling, Shot, render
from unsee.fit.loop import trainable
from unsee.fit.monitor import error
from unsee.fit.resume import ResumeFile
from unsee.guards import NegativePrompt
from unsee.methods.columns import changed
from unsee.methods.esd import ESD
from unsee.methods.hybrid import Hybrid
from unsee.methods.prompts import TEMPLATES, stand_ins
from unsee.methods.settings import UPDATES
from unsee.methods.targets import esd_target, preserving, without_implicit
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import Model
from unsee.models.sampling import draw
from unsee.models.weights import BLOCKS, SELECTIONS, reads_text, select, text_input_weights

TWO_DENOISERS = {"wan-2.2"}
FAMILIES = [family for family in zoo.ZOO if family not in TWO_DENOISERS]
SMALL = {
    "record_steps": 3, "updates": 40, "lr": 0.05, "batch": 4, "runs": 6, "keep_runs": 2, "keep_weight": 1,
    "preserve_words": 6, "rank": 4, "start": "base", "context_words": 0, "rounds": 1, "searches": 1, "held_out": 0,
    "neutral": ("cat", "house"), "templates": TEMPLATES,
}  # fmt: skip
"""Settings of methods that keep a test short; a method takes those that it has. Where weights are random, a closed form
is no place near what is learned, and what is learned of a name among other words says nothing of the name alone."""
GUIDANCE = 3.0


@cache
def built(family: str) -> Any:
    return zoo.build(family)


@cache
def trajectory(family: str) -> Trajectory:
    return record(built(family), ["a church", "a dog"], seeds=[7, 8], runs=Runs(3, GUIDANCE))


def state(pipe: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in denoiser(pipe)[1].state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def answers(pipe: Any, family: str) -> Tensor:
    """What a pipeline's denoiser answers now to the recorded calls for the concept."""
    return torch.stack([replay(denoiser(pipe)[1], step.concept) for step in trajectory(family)])


@contextmanager
def unchanged(family: str) -> Iterator[None]:
    """Fails where a family's pipeline is afterwards other than it was."""
    pipe = built(family)
    before = state(pipe)
    yield
    assert same(before, state(pipe)), "the base model was changed"
    assert not any(weight.requires_grad for weight in denoiser(pipe)[1].parameters())
    assert not denoiser(pipe)[1]._forward_hooks


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Iterator[str]:
    """A family, whose pipeline a test leaves as it was."""
    with unchanged(request.param):
        yield request.param


@pytest.mark.parametrize("family", zoo.ZOO)
def test_a_saved_folder_is_the_same_model(family: str, tmp_path: Path) -> None:
    pipe = zoo.build(family)
    pipe.save_pretrained(tmp_path)
    again = load(str(tmp_path))
    for here, there in zip(denoisers(pipe).values(), denoisers(again).values(), strict=True):
        assert fingerprint(here) == fingerprint(there)


@torch.no_grad()
def test_preservation_prompts_lose_an_implicit_concept(family: str) -> None:
    pipe = built(family)
    rng, net = torch.Generator().manual_seed(0), denoiser(pipe)[1]
    concepts = [Concept("church")]
    prompts = ["a dog", "a cat"]
    frozen, _ = preserving(pipe, prompts, Runs(2, 3.0, "pipeline", 16), rng)
    kept, beside = without_implicit(pipe, frozen, prompts, concepts, partial(esd_target, 1.0))
    for asked, asked_for in zip(kept, beside, strict=True):
        k, c = replay(net, asked), replay(net, asked_for)
        assert (c - k).abs().max() > 1e-5
        torch.testing.assert_close(asked.output, k - (c - k), atol=1e-4, rtol=1e-3)
        assert torch.equal(asked_for.output, asked.output)
        assert stack(single_rows(asked) + single_rows(asked_for)).output.shape[0] == 4


@dataclass(frozen=True)
class Made:
    """An edit and the pipeline, held-out runs and method that it belongs to."""

    edit: Edit
    family: str

    @property
    def pipe(self) -> Any:
        return built(self.family)


@cache
def made(method: str, family: str) -> Made:
    kind = methods.find(method)
    taken = {setting.name for setting in fields(kind)}
    settings = {name: value for name, value in SMALL.items() if name in taken}
    if method in BETWEEN:  # of which only the direction is tested
        settings["updates"] = 10
    return Made(kind(**settings)(built(family), Concept("church")), family)


CLOSED = ("balance", "oce", "speed", "uce")
"""Methods that aim at what layers read, not at eq. 6."""
BASIC = ("esd", "hybrid")
BUILT_ON_OTHERS = tuple(name for name in methods.names() if name not in (*CLOSED, *BASIC))
"""What they add to hybrid and ESD knows no family."""


def pairs() -> list[tuple[str, str]]:
    """The methods and families that are tried together: with UNSEE_FULL=1 all of them.

    Else each method on "sd", and on the k-th family the k-th closed form, the k-th of ESD and hybrid, and the k-th of
    those that are built on them, each counted round: of ten methods three or four a family, of each at least one that
    learns and one that solves; and for each method a U-Net, transformers of several kinds, and two denoisers below.
    """
    if zoo.FULL:
        return [(method, family) for family in FAMILIES for method in methods.names()]
    found = [(method, "sd") for method in methods.names()]
    for k, family in enumerate(FAMILIES):
        found += [(some[k % len(some)], family) for some in (CLOSED, BASIC, BUILT_ON_OTHERS)]
    return list(dict.fromkeys(found))


def test_each_family_meets_methods_of_both_kinds_and_each_method_families_of_several() -> None:
    families, tried = (defaultdict[str, set[str]](set) for _ in range(2))
    for method, family in pairs():
        families[method].add(family)
        tried[family].add(method)
    assert families.keys() == set(methods.names())
    assert tried.keys() == set(FAMILIES)
    assert all(some & {*CLOSED} and some - {*CLOSED} for some in tried.values())
    for some in families.values():
        assert len({type(denoiser(built(family))[1]) for family in some}) >= 4


@pytest.fixture(params=pairs(), ids="-".join)
def edited(request: pytest.FixtureRequest) -> Iterator[Made]:
    method, family = request.param
    with unchanged(family):
        yield made(method, family)


def test_replay_gives_what_was_recorded(family: str) -> None:
    net = denoiser(built(family))[1]
    for step in trajectory(family):
        for call in (step.concept, step.null):
            with torch.no_grad():
                torch.testing.assert_close(replay(net, call), call.output, atol=2e-4, rtol=2e-4)


def test_the_call_with_the_prompt_is_told_from_the_one_without(family: str) -> None:
    pipe, asked = built(family), conditions(built(family), ["a church", "a dog"], answered=False)
    assert len(asked.output) == 2
    for step in trajectory(family):
        with torch.no_grad():
            answer = replay(denoiser(pipe)[1], asked, like=step.concept)
        torch.testing.assert_close(answer, step.concept.output, atol=2e-4, rtol=2e-4)
        assert (answer - step.null.output).abs().max() > 1e-2


CURVED = {"sd", "sd-v", "sdxl", "pixart-sigma", "cogview3", "qwen-image", "lumina2"}
"""Families whose sampler does not step along the guided prediction; the last two rescale it for each token first."""


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in CURVED], indirect=True)
def test_the_sampler_follows_the_guided_prediction(family: str) -> None:
    """Flow samplers step along u + scale (c - u), either way: c, u and scale are what they are said to be."""
    latent = next(iter(trajectory(family)[0].concept.arguments))
    for now, following in pairwise(trajectory(family)):
        c, u = now.concept.output, now.null.output
        before, after = (step.concept.arguments[latent] for step in (now, following))
        if isinstance(before, list):
            before, after = torch.stack(before), torch.stack(after)
        along = torch.nn.functional.cosine_similarity(
            (after - before).flatten(), (u + GUIDANCE * (c - u)).flatten(), dim=0
        )
        assert abs(along) > 0.9999


def rows_asked(pipe: Any, **options: Any) -> int:
    """How many rows a denoiser answers in one step of a picture's run."""
    rows: list[int] = []
    handle = denoiser(pipe)[1].register_forward_hook(lambda *call: rows.append(len(output_of(call[-1]))))
    try:
        draw(pipe, ["a church"], [0], 1, output_type="latent", **options)
    finally:
        handle.remove()
    return sum(rows)


DISTILLED = {"flux-dev", "flux-schnell"}
"""Families whose pictures are guided by a number that the network reads, unless they are asked otherwise."""


def test_pictures_are_drawn_with_guidance(family: str) -> None:
    pipe = built(family)
    assert rows_asked(pipe, **for_pictures(pipe, 1.0)) == 1
    assert rows_asked(pipe, **for_pictures(pipe, 3.0)) == (1 if family in DISTILLED else 2)


def test_guidance_and_a_negative_prompt_are_options_of_pictures() -> None:
    pipe = zoo.build("flux-dev")
    alone = conditions(pipe, ["a church"])
    plain = record(pipe, ["a church"], seeds=[0], runs=Runs(2))
    guided = Model.of(pipe, call={"true_cfg_scale": 2.0})
    assert rows_asked(guided, **for_pictures(guided, 3.0)) == 2
    without_dog, with_dog = (Model.of(guided, call={"negative_prompt": text}) for text in ("a dog", ""))
    shots = [Shot("a church", 0), Shot("a cat", 1)]
    pictures, others = (render(model, shots, Sampling(2, 3.0)) for model in (without_dog, with_dog))
    assert all(pictures[shot].tobytes() != others[shot].tobytes() for shot in shots)
    # recorded runs have nothing of both: their guidance is the method's
    assert torch.equal(conditions(without_dog, ["a church"]).output, alone.output)
    for step, other in zip(record(without_dog, ["a church"], seeds=[0], runs=Runs(2)), plain, strict=True):
        assert torch.equal(step.null.output, other.null.output)


BETWEEN = ("gem", "stereo")
"""Methods whose targets are others than that of eq. 6, on the same side of the concept."""


def reads_otherwise(pipe: Any, edit: Edit, key: str) -> None:
    """A closed form moves what a matrix reads of the name towards what it reads of any word there."""
    names = [name.removeprefix(f"{key}.").removesuffix(".weight") for name in edit.deltas if name.startswith(f"{key}.")]
    others = stand_ins(pipe, "church", len(TEMPLATES), [Concept("church")], torch.Generator().manual_seed(9))
    words = [*["church"] * len(TEMPLATES), *others]
    heard = inputs_of(pipe, [way.format(word) for way, word in zip(2 * TEMPLATES, words, strict=True)], names)
    towards = torch.zeros(())
    for name in names:
        W, D = denoiser(pipe)[1].get_submodule(name).weight, edit.deltas[f"{key}.{name}.weight"]
        D = D if isinstance(D, Tensor) else D.dense(W.shape)
        c, other = (x.to(W) for x in changed("church", "others", W, *heard[name].chunk(2)))
        if edit.card.method == "oce":  # a rotation turns a name over: that is no way towards other words
            assert ((c - other) @ D.T).norm() > 0.1 * ((c - other) @ W.T).norm()
            continue
        one = ((c @ D.T) * ((other - c) @ W.T)).sum() / (W @ W.T).trace()
        assert one > 0 or edit.card.method == "speed"  # of all its matrices together
        towards += one
    assert edit.card.method == "oce" or towards > 0


def test_erasing_moves_the_prediction_away_from_the_concept(edited: Made) -> None:
    """Towards the target of eq. 6, on runs that were not shown; at least towards the prediction without a prompt."""
    steps = trajectory(edited.family)
    c, u = (torch.stack([getattr(step, kind).output[:1] for step in steps]) for kind in ("concept", "null"))
    with edited.edit.applied(edited.pipe):
        now = answers(edited.pipe, edited.family)[:, :1]
    if edited.edit.card.method in CLOSED:
        reads_otherwise(edited.pipe, edited.edit, denoiser(edited.pipe)[0])
    elif edited.edit.card.method in BETWEEN:
        assert ((now - c) * (u - c)).sum() > 0
    else:
        target, most = u - (c - u), 0.97 if edited.edit.card.method == "lora" else 0.9  # rank 4 learns more slowly
        assert (now - target).square().mean() < most * (c - target).square().mean()


def test_a_fit_starts_at_the_closed_form_where_a_family_has_one(family: str) -> None:
    pipe = built(family)
    few = {"preserve_words": 6, "context_words": 2, "neutral": ("cat", "house"), "held_out": 0}
    method = Hybrid(record_steps=2, updates=1, lr=1e-12, batch=2, runs=2, keep_runs=2, **few)
    edit = method(pipe, Concept("church"))
    moved = {name for name, delta in edit.deltas.items() if isinstance(delta, Tensor) and delta.abs().max() > 1e-9}
    key, net = denoiser(pipe)
    assert moved == {f"{key}.{name}" for name in method.weights(net).keys() & text_input_weights(net).keys()}


def test_where_no_closed_form_is_near_the_defaults_learn_long_enough() -> None:
    """The keys and values of joint attention are behind the embedder by which the prompt enters."""
    pipe = built("sd3")
    edit = Hybrid(select=r"add_[kv]_proj", record_steps=3, batch=4, keep_runs=4, preserve_words=6)(
        pipe, Concept("church")
    )
    assert edit.card.settings["updates"] == UPDATES["base"]
    (_, before, _), *_, (_, after, kept) = edit.card.curve
    assert after < 0.7 * before
    assert kept < after


def test_a_file_gives_the_same_model_in_a_fresh_build(edited: Made, tmp_path: Path) -> None:
    again = Edit.load(edited.edit.save(tmp_path / "edit.safetensors"))
    with edited.edit.applied(edited.pipe):
        expected, weights = answers(edited.pipe, edited.family), state(edited.pipe)
    fresh = zoo.build(edited.family)
    with again.applied(fresh):
        assert same(state(fresh), weights)
        assert torch.equal(answers(fresh, edited.family), expected)


def test_scale_zero_is_the_base_and_an_exception_restores_it(edited: Made) -> None:
    base = state(edited.pipe)
    with edited.edit.applied(edited.pipe, 0.0):
        assert same(base, state(edited.pipe))
    with pytest.raises(RuntimeError, match="stop"), edited.edit.applied(edited.pipe):
        assert not same(base, state(edited.pipe))
        raise RuntimeError("stop")
    assert same(base, state(edited.pipe))


def test_rows_of_all_prompts_are_learned_together(family: str) -> None:
    """Also where a pipeline makes a text as long as the longest beside it."""
    net, calls = (
        denoiser(built(family))[1],
        [conditions(built(family), [prompt]) for prompt in ("a", "a picture of a dog")],
    )
    together = stack(calls)
    with torch.no_grad():
        expected = torch.cat([replay(net, call) for call in calls])
        torch.testing.assert_close(replay(net, together), expected, atol=2e-4, rtol=2e-4)


def test_selections_fit_together(family: str) -> None:
    net = denoiser(built(family))[1]
    chosen = {selection: set(select(net, selection)) for selection in SELECTIONS}
    assert chosen["cross"] | chosen["noncross"] == chosen["all"] == {name for name, _ in net.named_parameters()}
    assert not chosen["cross"] & chosen["noncross"]
    assert chosen["cross-kv"] <= chosen["cross"]
    assert chosen["self"] < chosen["noncross"]
    assert set(text_input_weights(net)) <= {name for name in chosen["cross"] if reads_text(name, net)}


@torch.no_grad()
def inputs(pipe: Any, prompt: str, seed: int) -> dict[str, Tensor]:
    """What each linear layer of a denoiser reads at the first step of an unguided run: (rows, features)."""
    net, seen = denoiser(pipe)[1], dict[str, Tensor]()

    def listen(name: str, x: Tensor) -> None:  # what a pre-hook returns takes the place of what the layer reads
        seen.setdefault(name, x.clone())

    handles = [
        layer.register_forward_pre_hook(lambda _, x, name=name: listen(name, x[0]))
        for name, layer in net.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    conditions(pipe, [prompt], seeds=[seed], steps=3)
    for handle in handles:
        handle.remove()
    return {name: x.flatten(0, -2) for name, x in seen.items()}


def test_layers_that_read_the_text_are_those_named(family: str) -> None:
    """What a layer reads decides, not its name: tokens of the prompt alone, many of them."""
    pipe = built(family)
    one, other = inputs(pipe, "a church", 0), inputs(pipe, "a church", 1)
    another = inputs(pipe, "a dog on a beach", 0)
    named = {name for name in one if reads_text(f"{name}.weight", denoiser(pipe)[1])}
    text_alone = {
        name
        for name in one
        if len(one[name]) > 1 and torch.equal(one[name], other[name]) and not torch.equal(one[name], another[name])
    }
    # Later joint blocks read text tokens that have seen the picture: as many as the first reads.
    assert text_alone <= named
    tokens = {len(one[name]) for name in text_alone}
    assert {len(one[name]) for name in named} <= tokens
    metric = second_moments(pipe, ["a church", "a dog"], sorted(named))
    assert all(moment.shape == (one[name].shape[1],) * 2 for name, moment in metric.items())


def test_a_learned_variance_is_no_part_of_a_prediction() -> None:
    """PixArt answers with twice the channels of its latent; its sampler reads the first half."""
    net = denoiser(built("pixart-sigma"))[1]
    for step in trajectory("pixart-sigma"):
        for call in (step.concept, step.null):
            assert call.output.shape == call.arguments["hidden_states"].shape
            with torch.no_grad():
                whole = net(**call.arguments)[0]
            assert whole.shape[1] == 2 * call.output.shape[1]
            torch.testing.assert_close(whole[:, :4], call.output, atol=2e-4, rtol=2e-4)
    with trainable({"proj_out": net.proj_out.weight}):
        error(net, Call(step.null.arguments, step.null.output + 1)).sum().backward()
        patches = net.proj_out.weight.grad.unflatten(0, (-1, 8))  # (pixels of a patch, channels, features)
        assert patches[:, :4].abs().amin(dim=(0, 2)).min() > 1e-3
        assert not patches[:, 4:].any()


def test_a_guard_leaves_a_learned_variance_alone() -> None:
    pipe = zoo.build("pixart-sigma")
    options = {"output_type": "latent", **for_pictures(pipe, 4.0)}

    def latents(**more: Any) -> Tensor:
        return draw(pipe, ["a church", "a cat"], [0, 1], 3, **options, **more)[0]  # type: ignore[no-any-return]

    plain = latents()
    with NegativePrompt("a dog").applied(pipe):
        guarded = latents()
    torch.testing.assert_close(guarded, latents(negative_prompt="a dog"), atol=1e-4, rtol=1e-4)
    assert (guarded - plain).abs().max() > 1e-2


@pytest.mark.parametrize("method", methods.names())
def test_of_two_denoisers_each_is_edited_on_the_steps_that_it_answers(method: str, tmp_path: Path) -> None:
    """As for one: targets fall, a file gives the same model again, the base comes back."""
    pipe = built("wan-2.2")
    keys = ["transformer", "transformer_2"]
    assert list(denoisers(pipe)) == keys
    base = {key: fingerprint(net) for key, net in denoisers(pipe).items()}
    kind = methods.find(method)
    taken = {setting.name for setting in fields(kind)}
    settings = {**SMALL, "record_steps": 4, "updates": 8, "lr": 0.04, "runs": 3}
    edit = kind(**{name: value for name, value in settings.items() if name in taken})(pipe, Concept("church"))
    assert {name.split(".")[0] for name in edit.deltas} == set(keys)
    runs = {}
    for key in keys:
        runs[key] = record(replace(Model.of(pipe), focus=key), ["a church"], seeds=[7], runs=Runs(4))
    times = [float(step.concept.arguments["timestep"][0]) for key in keys for step in runs[key]]
    assert len(times) == 4
    assert times == sorted(times, reverse=True)
    assert times[len(runs[keys[0]])] < 500 <= times[len(runs[keys[0]]) - 1]  # boundary_ratio 0.5 of 1000
    for key, steps in runs.items():
        c, u = (torch.stack([getattr(step, half).output for step in steps]) for half in ("concept", "null"))
        with edit.applied(pipe), torch.no_grad():
            now = torch.stack([replay(denoisers(pipe)[key], step.concept) for step in steps])
        if edit.card.method in CLOSED:
            reads_otherwise(replace(Model.of(pipe), focus=key), edit, key)
        else:
            target = u - (c - u)
            assert (now - target).square().mean() < 0.9 * (c - target).square().mean()
    again = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    with edit.applied(pipe):
        edited = {key: fingerprint(net) for key, net in denoisers(pipe).items()}
    fresh = zoo.build("wan-2.2")
    with again.applied(fresh):
        assert {key: fingerprint(net) for key, net in denoisers(fresh).items()} == edited
    assert all(edited[key] != base[key] for key in keys)
    assert {key: fingerprint(net) for key, net in denoisers(pipe).items()} == base
    fresh.transformer_2.proj_out.weight.data += 1
    with pytest.raises(InputError, match="was made for"):
        again.check(fresh)


def test_a_fit_of_two_denoisers_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    pipe, concept = built("wan-2.2"), Concept("church")
    few = {"preserve_words": 6, "context_words": 2, "neutral": ("cat", "house"), "held_out": 1}
    method = Hybrid(record_steps=4, updates=2, batch=2, runs=2, keep_runs=1, **few)
    whole = method(pipe, concept)

    class Stopped(Exception):
        pass

    fits = 0

    def stop(stage: str, done: int, total: int) -> None:
        nonlocal fits
        fits += stage == "fit" and done > 0
        if fits == 3:  # in the second denoiser's fit
            raise Stopped

    with pytest.raises(Stopped):
        method(pipe, concept, progress=stop, resume=ResumeFile(tmp_path / "state.safetensors", every=0))
    assert len(list(tmp_path.iterdir())) == 2
    edit = method(pipe, concept, resume=ResumeFile(tmp_path / "state.safetensors", every=0))
    assert edit.card == whole.card
    assert all(torch.equal(edit.deltas[name], delta) for name, delta in whole.deltas.items())


def test_what_works_on_one_network_refuses_two() -> None:
    pipe = built("wan-2.2")
    with (
        pytest.raises(InputError, match=r"two denoisers \(transformer, transformer_2\)"),
        NegativePrompt("a dog").applied(pipe),
    ):
        pass
    with pytest.raises(InputError, match="rerecord is for pipelines with one denoiser"):
        ESD(**ESD.presets["paper"])(pipe, Concept("church"))
    with pytest.raises(InputError, match="none of the 1 steps of a run calls the transformer_2"):
        record(replace(Model.of(pipe), focus="transformer_2"), ["a church"], seeds=[0], runs=Runs(1))


def test_a_time_for_each_token_is_recorded() -> None:
    """Wan 2.2 of 5 B parameters has one denoiser, and says the time of each token."""
    parts = zoo.build("wan").components
    pipe = Model(diffusers.WanPipeline(**parts, expand_timesteps=True), call=zoo.ZOO["wan"][1])
    (step,) = record(pipe, ["a church", "a dog"], seeds=[0, 1], runs=Runs(3), at=[1])
    assert step.concept.arguments["timestep"].shape == (2, 16)
    with torch.no_grad():
        again = replay(parts["transformer"], step.concept)
    torch.testing.assert_close(again, step.concept.output, atol=2e-4, rtol=2e-4)


def test_guidance_that_is_distilled_is_refused() -> None:
    pipe = zoo.build("flux2-klein")
    pipe.register_to_config(is_distilled=True)
    with pytest.raises(InputError, match="Flux2KleinPipeline does not predict once with the prompt and once without"):
        record(pipe, ["a church"], seeds=[0], runs=Runs(4), at=[0])
    conditions(pipe, ["a church"])  # what needs no guidance goes on


def test_guidance_of_three_terms_is_refused() -> None:
    parts = zoo.build("sd").components
    pipe = diffusers.StableDiffusionPAGPipeline(**parts, requires_safety_checker=False, pag_applied_layers="mid")
    with pytest.raises(InputError, match="third term, perturbed attention"):
        record(pipe, ["a church", "a dog"], seeds=[0, 1], runs=Runs(3))


def test_an_error_of_a_pipeline_about_its_options_is_one_line() -> None:
    pipe = Model.of(zoo.build("sana"), call={"height": 20})
    with pytest.raises(
        InputError, match="SanaPipeline cannot be run so: `height` and `width` have to be divisible by 32"
    ):
        conditions(pipe, ["a church"])


def kept_for_backward(pipe: Any, family: str) -> int:
    """Bytes that are kept for the way back by an answer to one recorded call."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        replay(denoiser(pipe)[1], trajectory(family)[0].concept).square().mean()
    return sum(sizes.values())


FORGETFUL = {"chroma"}
"""Families whose denoiser, in diffusers 0.42, leaves an attention mask out when it checkpoints."""


def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradient(family: str) -> None:
    pipe, net = built(family), denoiser(built(family))[1]
    weights = select(net, "cross-kv")

    def measure() -> tuple[int, dict[str, Tensor]]:
        with trainable(weights):
            kept = kept_for_backward(pipe, family)
            replay(net, trajectory(family)[0].concept).square().mean().backward()
            return kept, {name: weight.grad for name, weight in weights.items() if weight.grad is not None}

    plain, expected = measure()
    call = trajectory(family)[0].concept
    if family in FORGETFUL:
        with (
            pytest.raises(InputError, match="predicts something else with gradient checkpointing"),
            checkpointed(net, call),
        ):
            pass
        assert measure()[0] == plain
        return
    with checkpointed(net, call):
        less, gradients = measure()
    assert less < plain
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)
    assert measure()[0] == plain


ATTENTION = {
    "cross-attention": BLOCKS[0].kv,
    "joint attention": r"\b(add_[qkv]_proj|txt_kv_proj)\.",
    "single stream": BLOCKS[1].kv,
}
TABLE = Path(__file__).parents[1] / "docs" / "families.md"


def row(family: str) -> str:
    """A family's line in docs/families.md, from what its build does."""
    pipe, net = built(family), denoiser(built(family))[1]
    trajectory(family)  # what is found out once for each pipeline
    names = [name for name, _ in net.named_parameters()]
    kind = next(kind for kind, pattern in ATTENTION.items() if any(re.search(pattern, name) for name in names))
    outputs: list[Tensor] = []
    handle = net.register_forward_hook(lambda *call: outputs.append(output_of(call[-1])))
    (step,) = record(pipe, ["a church"], seeds=[7], runs=Runs(3), at=[0])
    handle.remove()
    _, *asked = outputs  # the first is the unguided run's, by which the two are told apart
    together = torch.cat(asked)[:, : step.concept.output.shape[1]]
    c_first = (together[:1] - step.concept.output).abs().max() < (together[1:] - step.concept.output).abs().max()
    calls = f"{'one call' if len(asked) == 1 else 'two calls'}, {'c, u' if c_first else 'u, c'}"
    option, scale = next((name, value) for name, value in guided(pipe, 3.0).items() if name.endswith("scale"))
    asked = f"`{option}`{' + 1' if scale == 2.0 else ''}"
    memory = "refused" if family in FORGETFUL else "yes"
    return f"| {family} | {type(pipe).__name__} | {type(net).__name__} | {kind} | {asked}: {calls} | {memory} |"


def test_the_table_of_families_says_what_they_do(family: str) -> None:
    assert row(family) in TABLE.read_text().splitlines()
