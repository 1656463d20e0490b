"""Causal tracing: what is patched by itself changes nothing, and what everything passes through changes everything."""

from typing import Any

import pytest
import torch
import zoo_more

from benchmarks.weights.parts import ALL, places, selections
from unsee.denoising.guidance import for_pictures
from unsee.denoising.intercept import steered
from unsee.denoising.record import conditions
from unsee.denoising.replay import at_point_of, replay
from unsee.denoising.trace import Place, activations, exchanged, moved
from unsee.errors import InputError
from unsee.models.denoisers import denoiser
from unsee.models.model import Model
from unsee.models.sampling import draw
from unsee.models.weights import own_parameters, select


@pytest.fixture(scope="module")
def joint() -> Any:
    return zoo_more.build("auraflow")


def asked(pipe: Any) -> tuple[Any, Any, Any]:
    """The denoiser, and its calls for two prompts at one x and t."""
    _, net = denoiser(pipe)
    call, other = (conditions(pipe, [prompt] * 2, seeds=[0, 1]) for prompt in ("a church", "a dog"))
    return net, call, at_point_of(net, other, call)


@torch.no_grad()
def shares(pipe: Any, some: list[Place]) -> torch.Tensor:
    net, call, other = asked(pipe)
    return moved(replay(net, call), replay(net, other), exchanged(net, call, other, some))


def test_patching_a_runs_own_activations_changes_nothing(pipe: Any) -> None:
    net, call, _ = asked(pipe)
    with torch.no_grad():
        torch.testing.assert_close(exchanged(net, call, call, [Place("mid_block.attentions.0", 0)]), replay(net, call))
    assert not any(module._forward_hooks for module in net.modules())


def test_the_last_layer_moves_everything(pipe: Any) -> None:
    torch.testing.assert_close(shares(pipe, [Place("conv_out")]), torch.ones(2))
    torch.testing.assert_close(shares(pipe, []), torch.zeros(2))


def test_what_the_text_says_enters_by_its_embedder_and_leaves_by_both_streams(joint: Any) -> None:
    torch.testing.assert_close(shares(joint, [Place("context_embedder")]), torch.ones(2))
    both = [Place("joint_transformer_blocks.0", part) for part in (0, 1)]
    torch.testing.assert_close(shares(joint, both), torch.ones(2))
    net, call, _ = asked(joint)
    where = places(net, call)
    text, image = (where[f"{side} after the block"]["single_transformer_blocks.0"] for side in ("text", "image"))
    torch.testing.assert_close(shares(joint, list(text)), torch.zeros(2))  # the last block: no text is read behind it
    torch.testing.assert_close(shares(joint, list(image)), torch.ones(2))
    assert len(where["text values"][ALL]) == 2
    assert where["text values"]["joint_transformer_blocks.0"] == (
        Place("joint_transformer_blocks.0.attn.add_v_proj"),
    )  # fmt: skip


def test_a_run_under_the_anchors_activations_draws_the_anchor(pipe: Any) -> None:
    def drawn(prompt: str) -> Any:
        model = Model.of(pipe)
        return draw(model, [prompt], [3], 2, **for_pictures(model, 4.0), output_type="np").images

    net, want = pipe.unet, drawn("a dog")
    with steered(pipe, "a dog", again=lambda call, other: exchanged(net, call, other, [Place("conv_out")])):
        found = drawn("a church")
    assert abs(found - want).max() < 1e-4
    assert abs(drawn("a church") - want).max() > 1e-3


def test_places_that_cannot_be_patched_are_named(pipe: Any) -> None:
    net, call, _ = asked(pipe)
    with pytest.raises(InputError, match="returns several values"):
        activations(net, call, [Place("mid_block.attentions.0")])
    with pytest.raises(InputError, match="down_blocks is not reached"):
        activations(net, call, [Place("down_blocks")])
    with pytest.raises(InputError, match="names"):
        places(torch.nn.Sequential(torch.nn.Linear(2, 2)), call)


def test_selections_are_parts_of_the_denoiser_each_once(pipe: Any, joint: Any) -> None:
    for net, some in ((pipe.unet, "cross-attention keys and values"), (denoiser(joint)[1], "text MLP")):
        found = selections(net)
        assert {some, ALL} <= set(found)
        chosen = [frozenset(select(net, pattern)) for pattern in found.values()]
        assert len(set(chosen)) == len(chosen)
        assert chosen[-1] == set(own_parameters(net))
    text, image = (select(denoiser(joint)[1], selections(denoiser(joint)[1])[f"{x} stream"]) for x in ("text", "image"))
    assert not set(text) & set(image)
