"""What is recorded is what the pipeline did; asked again, the denoiser answers the same."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from unsee.denoising.activations import inputs, second_moments
from unsee.denoising.calls import Call
from unsee.denoising.guidance import guided
from unsee.denoising.record import Runs, conditions, record
from unsee.denoising.replay import replay
from unsee.denoising.rows import rows_of, same, select_rows, single_rows, spread, stack
from unsee.errors import InputError
from unsee.models.model import Model


def test_replay_gives_what_was_recorded(pipe: Any) -> None:
    for step in record(pipe, ["church", "a castle"], seeds=[1, 2], runs=Runs(3)):
        for call in (step.concept, step.null):
            with torch.no_grad():
                torch.testing.assert_close(replay(pipe.unet, call), call.output, atol=1e-5, rtol=1e-5)


def test_the_level_of_x_is_the_time_that_is_recorded(pipe: Any) -> None:
    """From x_T alone, the sampler's own formula leads from each recorded x and t to the next."""
    guidance, steps = 3.0, 5
    trajectory = record(pipe, ["church"], seeds=[3], runs=Runs(steps, guidance))
    pipe.scheduler.set_timesteps(steps)
    assert [int(step.concept.arguments["timestep"]) for step in trajectory] == pipe.scheduler.timesteps.tolist()
    for now, following in pairwise(trajectory):
        c, u = now.concept.output, now.null.output
        x, t = now.concept.arguments["sample"], int(now.concept.arguments["timestep"])
        x_next = pipe.scheduler.step(u + guidance * (c - u), t, x).prev_sample
        torch.testing.assert_close(following.concept.arguments["sample"], x_next, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(following.null.arguments["sample"], x_next, atol=1e-5, rtol=1e-5)


def test_concept_and_null_are_told_apart(pipe: Any) -> None:
    (step,) = record(pipe, ["church"], seeds=[0], runs=Runs(4), at=[1])
    church, _ = pipe.encode_prompt("church", "cpu", 1, False)
    nothing, _ = pipe.encode_prompt("", "cpu", 1, False)
    torch.testing.assert_close(step.concept.arguments["encoder_hidden_states"], church)
    torch.testing.assert_close(step.null.arguments["encoder_hidden_states"], nothing)


def test_a_run_does_not_depend_on_what_runs_beside_it(pipe: Any) -> None:
    alone = record(pipe, ["church"], seeds=[5], runs=Runs(3))
    beside = record(pipe, ["castle", "church", "dog"], seeds=[4, 5, 6], runs=Runs(3))
    for one, many in zip(alone, beside, strict=True):
        torch.testing.assert_close(
            select_rows(many.concept, slice(1, 2)).output, one.concept.output, atol=1e-4, rtol=1e-4
        )


def test_a_run_stops_after_the_last_step_that_is_wanted(pipe: Any) -> None:
    record(pipe, ["church"], seeds=[0], runs=Runs(2))  # what is found out once for each pipeline
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    trajectory = record(pipe, ["church"], seeds=[0], runs=Runs(10), at=[0, 2])
    handle.remove()
    assert len(trajectory) == 2
    assert len(calls) == 1 + 3  # one to tell the halves apart, three steps
    full = record(pipe, ["church"], seeds=[0], runs=Runs(10))
    torch.testing.assert_close(trajectory[1].null.output, full[2].null.output)


def test_rows_come_apart_and_together(pipe: Any) -> None:
    call = conditions(pipe, ["church", "castle", "dog"])
    again = stack(single_rows(call))
    assert again.arguments.keys() == call.arguments.keys()
    for name, value in call.arguments.items():
        assert (
            torch.equal(again.arguments[name], value)
            if isinstance(value, torch.Tensor)
            else again.arguments[name] == value
        )
    assert torch.equal(again.output, call.output)


def call(rows: int, tokens: int = 3) -> Call:
    """Arguments as families pass them, with sizes that meet by chance: layers, tokens and rows may all be 2 or 3."""
    texts = torch.randn(2, rows, tokens, 4)
    arguments = {
        "x": [torch.randn(4) for _ in range(rows)],
        "timestep": torch.zeros(rows),
        "layers": texts,
        "each": list(texts),
        "more": {"sizes": torch.ones(rows, 2), "rope": (torch.ones(tokens, 2), torch.ones(1, 2))},
        "ids": torch.ones(3, 2),
        "scale": 2.0,
        "nothing": None,
    }
    return Call(arguments, torch.randn(rows, 4))


ROWS = {("x",): 0, ("timestep",): 0, ("layers",): 1, ("each", 0): 0, ("each", 1): 0, ("more", "sizes"): 0}


def test_rows_are_what_doubles_wherever_it_is() -> None:
    """In any dimension, in lists with an item a row, in lists and dicts that hold some; sizes say nothing."""
    assert rows_of(call(1), call(2)) == ROWS
    assert rows_of(call(2), call(4)) == ROWS
    with pytest.raises(InputError, match=r"ids has neither a row for each prompt nor one value for all"):
        rows_of(call(1), Call({**call(2).arguments, "ids": torch.ones(4, 2)}, torch.zeros(2)))


@pytest.mark.parametrize("count", [2, 3])
def test_rows_in_any_place_come_apart_and_together(count: int) -> None:
    whole = replace(call(count), rows=ROWS)
    first, *_ = rows = single_rows(whole)
    assert first.arguments["layers"].shape == (2, 1, 3, 4)
    assert torch.equal(first.arguments["each"][1], whole.arguments["each"][1][:1])
    assert first.arguments["ids"].shape == (3, 2)  # three ids are no three rows
    again = stack(rows)
    assert same(again.arguments, whole.arguments)
    assert torch.equal(again.output, whole.output)


def test_one_row_for_all_is_spread_and_another_number_refused() -> None:
    whole = replace(call(2), rows=ROWS)
    one = {**whole.arguments, "layers": whole.arguments["layers"][:, :1]}
    assert spread(replace(whole, arguments=one)).arguments["layers"].shape == (2, 2, 3, 4)
    with pytest.raises(InputError, match="timestep has 3 rows where the latent has 2"):
        spread(replace(whole, arguments={**whole.arguments, "timestep": torch.zeros(3)}))


def test_a_text_is_padded_whatever_its_mask_is_called() -> None:
    """Also where a mask is left out as long as nothing is padded."""

    def asked(tokens: int, mask: bool) -> Call:
        arguments = {
            "encoder_hidden_states": torch.ones(1, tokens, 4),
            "encoder_mask": torch.ones(1, tokens, dtype=torch.bool) if mask else None,
        }
        return Call(arguments, torch.zeros(1, 4), {("encoder_hidden_states",): 0, ("encoder_mask",): 0})

    for mask in (True, False):
        together = stack([asked(2, mask), asked(3, mask)]).arguments
        assert together["encoder_hidden_states"].sum(-1).tolist() == [[4, 4, 0], [4, 4, 4]]
        assert together["encoder_mask"].tolist() == [[True, True, False], [True, True, True]]


def test_another_sampler_stands_in_and_leaves(pipe: Any) -> None:
    before = pipe.scheduler
    record(pipe, ["church"], seeds=[0], runs=Runs(3, sampler="EulerDiscreteScheduler"))
    assert pipe.scheduler is before
    with pytest.raises(InputError, match="did you mean 'DDIMScheduler'"):
        record(pipe, ["church"], seeds=[0], runs=Runs(3, sampler="ddimscheduler"))


def test_the_pipeline_keeps_no_hook(pipe: Any) -> None:
    record(pipe, ["church"], seeds=[0], runs=Runs(2))
    assert not pipe.unet._forward_hooks


def test_second_moments_are_those_of_the_text(pipe: Any) -> None:
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    prompts = ["church", "a castle", "a dog"]
    tokens = conditions(pipe, prompts).arguments["encoder_hidden_states"].flatten(0, 1)
    moments = second_moments(pipe, prompts, [layer], batch=2)
    torch.testing.assert_close(moments[layer].float(), tokens.T @ tokens / len(tokens), atol=1e-4, rtol=1e-4)
    assert not pipe.unet.get_submodule(layer)._forward_pre_hooks


def test_text_features_are_captured_without_the_denoiser(pipe: Any) -> None:
    """Keys of cross-attention read an argument of the call; queries read what the denoiser computes."""
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    computed: list[int] = []
    guided(pipe, 3.0)  # found out once for each pipeline
    handle = pipe.unet.conv_in.register_forward_hook(lambda _, __, output: computed.append(len(output)))
    prompts = ["church", "a castle", "a dog"]
    try:
        text = inputs(pipe, prompts, [f"{block}.to_k", f"{block}.to_v"])
        assert computed == [1]  # to find that out
        both = inputs(pipe, prompts, [f"{block}.to_k", f"{block}.to_q"])
        assert computed == [1, 1, 3]
    finally:
        handle.remove()
    assert torch.equal(text[f"{block}.to_k"], conditions(pipe, prompts).arguments["encoder_hidden_states"])
    assert torch.equal(both[f"{block}.to_k"], text[f"{block}.to_v"])


def test_a_picture_is_noised_to_the_level_of_each_step(pipe: Any) -> None:
    image = pipe("a castle", num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0]
    trajectory = record(pipe, ["a castle", "a dog"], seeds=[1, 2], runs=Runs(4), image=image)
    assert len(trajectory) == 4
    with torch.no_grad():
        pixels = pipe.image_processor.preprocess(image).to(memory_format=torch.channels_last)
        posterior = pipe.vae.encode(pixels).latent_dist
        z, spread = (value * pipe.vae.config.scaling_factor for value in (posterior.mean, posterior.std))
    levels = []
    for step in trajectory:
        abar = pipe.scheduler.alphas_cumprod[int(step.concept.arguments["timestep"][0])]
        noise = (step.concept.arguments["sample"] - abar.sqrt() * z) / (1 - abar).sqrt()
        # x_t = sqrt(abar) (z + spread noise') + sqrt(1 - abar) noise
        wide = (1 + abar / (1 - abar) * spread.square().mean()).sqrt()
        assert noise.std().item() == pytest.approx(wide.item(), rel=0.1)
        assert abs((noise * z).mean()) < 0.15 * z.square().mean()
        levels.append(float(abar))
        torch.testing.assert_close(replay(pipe.unet, step.null), step.null.output, atol=1e-4, rtol=1e-4)
    assert levels == sorted(set(levels))
    asked = conditions(pipe, ["a castle", "a dog"]).arguments["encoder_hidden_states"]
    torch.testing.assert_close(trajectory[0].concept.arguments["encoder_hidden_states"], asked)


def test_a_picture_meets_every_step_and_the_options_that_are_kept(pipe: Any) -> None:
    """Of 50 steps too, where steps * strength is no whole number in floating point."""
    image = pipe("a castle", num_inference_steps=1, generator=torch.Generator().manual_seed(0)).images[0]
    pipe.scheduler.set_timesteps(50)
    times = pipe.scheduler.timesteps.tolist()
    heard: list[Any] = []

    def listen(module: Any, args: Any, kwargs: Any) -> None:
        heard.append(kwargs.get("cross_attention_kwargs"))

    handle = pipe.unet.register_forward_pre_hook(listen, with_kwargs=True)
    model = Model.of(pipe, call={"cross_attention_kwargs": {}, "height": 64})
    try:
        trajectory = record(model, ["a castle"], seeds=[1], runs=Runs(50), at=[0, 21, 28, 49], image=image)
    finally:
        handle.remove()
    assert [int(step.concept.arguments["timestep"][0]) for step in trajectory] == [times[k] for k in (0, 21, 28, 49)]
    assert {} in heard[1:]
