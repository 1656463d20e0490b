"""Every text-to-image class of diffusers: erased from, or refused in one right line, and never wrong without a word."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import families
import pytest
import torch
import zoo_more
import zoo_refused
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from families import ERASES, LACKING, NEEDS, NOT_BUILT, REFUSED
from zoo import WIDTH, ZOO, build
from zoo_more import MORE

from unsee import Concept, InputError, guards
from unsee.denoising.guidance import for_pictures, guided, unguided
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import replay
from unsee.denoising.rows import single_rows, stack
from unsee.methods.hybrid import Hybrid
from unsee.methods.uce import UCE
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.encoding import each_text_once
from unsee.models.fingerprint import fingerprint
from unsee.models.model import Model
from unsee.models.sampling import draw
from unsee.models.weights import SELECTIONS, reads_text, select, text_input_weights

ONCE = Hybrid(record_steps=2, updates=2, batch=2, runs=2, keep_runs=2, preserve_words=4, context_words=0, held_out=0)

SLOW = {"Ideogram4Pipeline", "Kandinsky5T2IPipeline", "QwenImage21Pipeline"}
"""Classes whose texts take seconds to encode: they are recorded, and what was recorded is put together."""


def built(name: str) -> Any:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    return (zoo_refused if name in zoo_refused.REFUSED else zoo_more).build(name)


def refused(kind: str) -> Any:
    return built({"BriaFiboPipeline": "fibo", "Kandinsky5T2IPipeline": "kandinsky5"}.get(kind, kind))


def test_every_class_of_diffusers_is_known() -> None:
    """A class that diffusers adds has no line yet: try it, and say what came of it in tests/families.py."""
    classes = {kind.__name__ for kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    assert not classes - {*ERASES, *REFUSED, *LACKING, *NOT_BUILT}


def test_the_page_is_what_is_tested() -> None:
    text = families.PAGE.read_text()
    assert families.page(text) == text, "run: python tests/families.py"


def test_a_class_that_is_erased_from_has_a_build_of_its_own() -> None:
    assert set(ERASES.values()) <= {*ZOO, *MORE}
    assert all(hasattr(diffusers, kind) for kind in ERASES)


@pytest.mark.parametrize("name", [name for name in MORE if name in ERASES.values()])
def test_a_family_goes_through_recording_erasing_and_drawing(name: str) -> None:
    """Recorded, replayed, erased from, solved for and guarded; afterwards it is what it was."""
    pipe = built(name)
    assert ERASES[type(pipe).__name__] == name
    net = denoiser(pipe)[1]
    base = fingerprint(net)
    steps = record(pipe, ["a church", "a dog on a hill"], seeds=[7, 8], runs=Runs(2, 3.0))
    rows = [row for step in steps for call in (step.concept, step.null) for row in single_rows(call)]
    together = stack(rows)
    with torch.no_grad():
        torch.testing.assert_close(replay(net, together), together.output, atol=2e-4, rtol=2e-4)
    assert (steps[0].concept.output - steps[0].null.output).abs().max() > 1e-3

    edit = ONCE(pipe, Concept("church"))
    with edit.applied(pipe), torch.no_grad():
        assert (replay(net, together) - together.output).abs().max() > 0
    assert UCE(context_words=0, preserve_words=4)(pipe, Concept("church")).deltas
    chosen = {selection: set(select(net, selection)) for selection in SELECTIONS}
    assert chosen["cross-kv"] <= chosen["cross"] < chosen["all"]
    assert all(reads_text(matrix, net) for matrix in text_input_weights(net))

    options = {**for_pictures(pipe, 4.0), "output_type": "np" if name == "kandinsky2" else "latent"}
    drawn = draw(pipe, ["a church"], [0], 2, **options)[0]
    if name in ("flux-kontext",):  # its guidance is a number that the network reads
        return
    with guards.named("sld-max", "a dog").applied(pipe):
        assert not torch.equal(torch.as_tensor(draw(pipe, ["a church"], [0], 2, **options)[0]), torch.as_tensor(drawn))
    assert fingerprint(net) == base
    assert not net._forward_hooks


@pytest.mark.parametrize("kind", REFUSED)
def test_a_class_is_refused_in_one_line(kind: str) -> None:
    line, _ = REFUSED[kind]
    pipe = refused(kind)
    assert type(pipe).__name__ == kind
    with pytest.raises(InputError) as raised:
        if kind in SLOW:  # refused as late as anything is
            steps = record(pipe, ["a church", "a dog on a hill"], seeds=[7, 8], runs=Runs(2))
            stack([row for step in steps for call in (step.concept, step.null) for row in single_rows(call)])
        else:
            ONCE(pipe, Concept("church"))
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [kind for kind, (_, why) in REFUSED.items() if "pag_scale=0" in why])
def test_without_perturbed_attention_it_is_erased_from(kind: str) -> None:
    assert ONCE(Model.of(built(kind), call={"pag_scale": 0.0}), Concept("church")).deltas


@pytest.mark.parametrize("kind", [kind for kind, (_, why) in REFUSED.items() if "UCE" in why])
def test_uce_works_where_the_page_says_so(kind: str) -> None:
    """On what the entrance reads: the text of the concept moves, and the edit is taken off again."""
    pipe = refused(kind)
    net = denoiser(pipe)[1]
    edit = UCE(context_words=0, preserve_words=4, templates=("{}", "a {}"), neutral=("a dog",))(pipe, Concept("church"))
    layers = list(text_input_weights(net))
    assert {name.partition(".")[2] for name in edit.deltas} == set(layers)
    before = {name: net.get_parameter(name).clone() for name in layers}
    with edit.applied(pipe):
        assert not any(torch.equal(net.get_parameter(name), weight) for name, weight in before.items())
    assert all(torch.equal(net.get_parameter(name), weight) for name, weight in before.items())


@pytest.mark.parametrize("kind", sorted(LACKING))
def test_a_class_without_a_denoiser_says_so(kind: str) -> None:
    pipe = object.__new__(getattr(diffusers, kind))
    assert not {"unet", "transformer"} & set(inspect.signature(type(pipe).__init__).parameters)
    with pytest.raises(InputError, match=f"{kind} has no denoiser"):
        denoisers(pipe)


def test_what_a_pipeline_raises_is_one_line_with_its_cause() -> None:
    pipe = build("sd")
    pipe.unet.conv_in.register_forward_pre_hook(lambda *_: {}["nothing"])
    with pytest.raises(InputError, match="StableDiffusionPipeline is not supported: it raises KeyError") as refused:
        record(pipe, ["a church"], seeds=[0], runs=Runs(2))
    assert isinstance(refused.value.__cause__, KeyError)


class AlwaysGuides(diffusers.StableDiffusionPipeline):
    """Has two rows for each prompt at any guidance scale, as OmniGen has."""

    @property
    def do_classifier_free_guidance(self) -> bool:
        return True


def test_a_pipeline_that_always_guides_is_refused() -> None:
    parts = build("sd").components
    pipe = AlwaysGuides(**parts, requires_safety_checker=False)
    with pytest.raises(InputError, match="AlwaysGuides is not supported: it predicts more than once for each prompt"):
        record(pipe, ["a church", "a dog"], seeds=[0, 1], runs=Runs(2))


@pytest.mark.parametrize("name", ["cosmos2", "kandinsky3"])
def test_a_scale_that_counts_from_0_is_measured(name: str) -> None:
    """Both follow c + s (c - u), and guide only where their s is above 1; Kandinsky 3's sampler adds noise."""
    pipe = built(name)
    assert guided(pipe, 3.0) == {"guidance_scale": 2.0}
    assert unguided(pipe) == {"guidance_scale": 1.0}
    with pytest.raises(InputError, match="does not guide at a scale of 1.5: take a scale above 2"):
        for_pictures(pipe, 1.5)


def test_a_denoiser_whose_prediction_is_not_finite_is_refused() -> None:
    """Numbers that overflow, or weights that were left as the memory was."""
    pipe = build("sd")
    pipe.unet.conv_out.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="its unet predicts numbers that are not finite in float32"):
        record(pipe, ["a church"], seeds=[0], runs=Runs(2))


def test_text_lengths_serve_as_a_mask() -> None:
    """Texts of two lengths are put together where the denoiser takes their lengths, and answered as alone."""
    pipe = built("ernie")
    net = denoiser(pipe)[1]
    calls = [conditions(pipe, [prompt], seeds=[0]) for prompt in ("a cat", "a red house beside a lake")]
    together = stack(calls)
    assert together.arguments["text_lens"].tolist() == [call.arguments["text_bth"].shape[1] for call in calls]
    with torch.no_grad():
        torch.testing.assert_close(replay(net, together), together.output, atol=1e-5, rtol=1e-5)


def test_rows_of_an_encoder_that_answers_tokens_first() -> None:
    """Kolors' ChatGLM returns (tokens, B, features): repeated prompts are put back into B."""
    encoder = zoo_more.chatglm()
    ids = torch.tensor([[1, 5, 6, 3], [1, 7, 8, 3], [1, 5, 6, 3], [1, 5, 6, 3]])
    places = torch.arange(4).expand(4, 4)
    asked = {"input_ids": ids, "position_ids": places, "output_hidden_states": True}
    with torch.no_grad():
        plain = encoder(**asked).hidden_states[-1]
        with each_text_once(SimpleNamespace(components={"text_encoder": encoder})):
            once = encoder(**asked).hidden_states[-1]
    assert plain.shape == (4, 4, WIDTH)
    torch.testing.assert_close(once, plain)


class Forgetful(torch.nn.Module):
    """A layer that answers by how often it was asked."""

    def __init__(self, unet: Any):
        super().__init__()
        self.conv = unet.conv_in
        self.last = 0.0

    def forward(self, x: Any) -> Any:
        self.last += 0.1
        return self.conv(x) + self.last


def test_a_denoiser_whose_prediction_changes_when_repeated_is_refused() -> None:
    """Caches that reuse an earlier step's features, for one."""
    pipe = build("sd")
    pipe.unet.conv_in = Forgetful(pipe.unet)
    with pytest.raises(InputError, match="its UNet2DConditionModel predicts something else when a call is repeated"):
        record(pipe, ["a church", "a dog"], seeds=[0, 1], runs=Runs(2))


def test_calls_with_different_shared_values_are_not_joined() -> None:
    """What is one for a whole call has to be the same in all of them."""
    pipe = build("flux-dev")
    (step,) = record(pipe, ["a church"], seeds=[0], runs=Runs(2), at=[0])
    moved = {**step.null.arguments, "img_ids": step.null.arguments["img_ids"] + 1}
    with pytest.raises(InputError, match="calls with different img_ids cannot be learned together"):
        stack([step.concept, replace(step.null, arguments=moved)])
