"""Robust erasing: what its rounds find joins what is learned; searches and the closed form by hand."""

from typing import Any

import pytest
import torch
from conftest import QUICK

import unsee
from unsee.denoising.conditioned import asked, text_of
from unsee.denoising.mapped import mapped, matrices
from unsee.denoising.record import Runs, record
from unsee.denoising.rows import single_rows, stack
from unsee.fit.search import any_of, learn, soft, tokens
from unsee.methods.rounds import Rounds
from unsee.models.encoding import KEPT, each_text_once
from unsee.models.weights import temporary_values

SMALL: dict[str, Any] = {**QUICK, "record_steps": 2, "held_out": 0, "rounds": 2, "searches": 2}


def rows(pipe: Any) -> list[Any]:
    steps = record(pipe, ["a church"] * 2, seeds=[0, 1], runs=Runs(2, 3.0))
    return [row for step in steps for row in single_rows(step.concept)]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("kind", ["soft", "token"])
def test_a_search_lowers_its_error_also_where_texts_are_kept(pipe: Any, kind: str, kept: bool) -> None:
    """`each_text_once` must not answer for a token whose vector has changed."""
    own, rng = rows(pipe), torch.Generator().manual_seed(0)

    def error(text: Any) -> float:
        every = stack(own)
        return float((asked(pipe.unet, text, every) - every.output).square().mean())

    with each_text_once(pipe, KEPT if kept else 0):
        what = soft(pipe, "a picture") if kind == "soft" else tokens(pipe, "a {}", 1, rng)
        before = what.fixed()
        assert list(learn(pipe, what, any_of(own), [3, 12], rng)) == [3, 12]
        after = what.fixed()
    with torch.no_grad():
        assert error(after) < error(before)


def test_the_map_restores_what_an_invertible_edit_of_all_matrices_did(pipe: Any) -> None:
    """W0 B with one B for all is undone by B^-1: the edited matrices read the mapped text as the base's the text."""
    W0 = matrices(pipe)
    features = next(iter(W0.values())).shape[1]
    rng = torch.Generator().manual_seed(0)
    B = torch.eye(features).double() + 0.02 * torch.randn(features, features, generator=rng).double()
    W = {name: w @ B for name, w in W0.items()}
    text = text_of(pipe, "a church")
    said = mapped(pipe, "a church", W, W0, 1e-9)
    for name, value in said.arguments.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            e, new = text.arguments[name].double(), value.double()
            assert all(torch.allclose(new @ W[k].T, e @ W0[k].T, atol=1e-4) for k in W)


def test_a_third_of_the_rows_has_no_prompt_and_a_third_a_found_text(pipe: Any) -> None:
    own = rows(pipe)
    found = Rounds(every=2, searches=1).begin(pipe, [unsee.Concept("church")], own)
    weights = {name: one for name, one in pipe.unet.named_parameters() if "attn2.to_v" in name}
    rng = torch.Generator().manual_seed(0)
    found.renew(1, rng)
    assert len(found.texts) == 1  # no round at update 1
    with temporary_values(weights, {name: 2 * one.data for name, one in weights.items()}):
        found.renew(2, rng)
    assert len(found.texts) == 1 + 3 + 2  # a soft prompt, one token, four tokens; two dampings of the map
    rows_ = found.rows(own[:3], rng)
    read = [row.arguments["encoder_hidden_states"] for row in rows_]
    assert torch.equal(read[0], own[0].arguments["encoder_hidden_states"])
    assert torch.equal(read[1], found.texts[0].arguments["encoder_hidden_states"])
    assert any(torch.equal(read[2], text.arguments["encoder_hidden_states"]) for text in found.texts[1:])
    assert all(torch.equal(row.output, one.output) for row, one in zip(rows_, own, strict=False))
    assert all(torch.equal(row.arguments["sample"], one.arguments["sample"]) for row, one in zip(rows_, own))


def test_rounds_change_what_is_learned(pipe: Any) -> None:
    """With other attacks the same seed gives another edit; with none of the searches' updates it is not hybrid's."""
    one = unsee.Robust(**SMALL)(pipe, "church")
    other = unsee.Robust(**{**SMALL, "searches": 3})(pipe, "church")
    name = next(name for name in one.deltas if name.endswith("to_v.weight"))
    assert one.card.settings["rounds"] == 2
    assert not torch.equal(one.deltas[name], other.deltas[name])  # type: ignore[arg-type]
    assert any("conv" in name for name in one.deltas)
    assert any("attn2" in name for name in one.deltas)
