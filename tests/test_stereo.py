"""STEREO: the composed target by hand and against the network; what is searched, and where each fit starts."""

from typing import Any

import pytest
import torch
from conftest import QUICK

import unsee
from unsee.denoising.conditioned import asked, text_of
from unsee.denoising.replay import replay
from unsee.methods import stereo
from unsee.methods.stereo import STEREO, Goal, composed
from unsee.progress import no_progress

SMALL: dict[str, Any] = {
    **{k: v for k, v in QUICK.items() if hasattr(STEREO, k)},
    "record_steps": 2,
    "rounds": 2,
    "searches": 2,
}


@pytest.mark.parametrize(("eta", "wanted"), [(0.0, 2.0), (1.0, -1.0), (3.0, -7.0)])
def test_the_composed_target_is_that_derived_by_hand(eta: float, wanted: float) -> None:
    # u = 1, a = 2, v = 3 and 5:  a - eta ((2 + 4) / 2) = 2 - 3 eta
    u, a, *away = (torch.tensor(one) for one in (1.0, 2.0, 3.0, 5.0))
    assert composed(u, a, away, eta).item() == wanted


def test_targets_are_the_frozen_models_composed(pipe: Any) -> None:
    concept, rng = unsee.Concept("church", anchor="castle"), torch.Generator().manual_seed(0)
    goal = Goal.of(pipe, concept, STEREO(**SMALL), rng, no_progress)
    text = text_of(pipe, "a fish")
    first = goal.last(1.0)
    goal.add(pipe.unet, text)
    again, every = goal.last(1.0), goal.all(2.0)
    assert len(every) == 2 * len(first) == 2 * len(again)
    knows = goal.knows()
    half = len(first)
    with torch.no_grad():
        for k, row in enumerate(first):
            c, u = replay(pipe.unet, row), asked(pipe.unet, text_of(pipe, ""), row)
            v, a = (asked(pipe.unet, text_of(pipe, word), row) for word in ("a fish", "castle"))
            close = {"atol": 1e-4, "rtol": 1e-4}
            torch.testing.assert_close(knows[k].output, c, **close)
            torch.testing.assert_close(row.output, u - (c - u), **close)
            torch.testing.assert_close(again[k].output, u - (v - u), **close)
            torch.testing.assert_close(replay(pipe.unet, again[k]), v, **close)  # it asks with what was found
            for one in (every[k], every[half + k]):
                torch.testing.assert_close(one.output, a - 2 * ((c - u) + (v - u)) / 2, **close)
            torch.testing.assert_close(replay(pipe.unet, every[half + k]), v, **close)


def test_each_round_searches_the_model_as_it_is_and_the_last_fit_starts_at_the_base(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(STEREO(**SMALL).weights(pipe.unet)))
    frozen, seen = pipe.unet.get_parameter(name).data.clone(), []
    fit, learn = stereo.fit, stereo.learn

    def at(what: str, call: Any) -> Any:
        def noted(*given: Any, **more: Any) -> Any:
            seen.append((what, torch.equal(pipe.unet.get_parameter(name).data, frozen)))
            return call(*given, **more)

        return noted

    monkeypatch.setattr(stereo, "fit", at("fit", fit))
    monkeypatch.setattr(stereo, "learn", at("search", learn))
    edit = STEREO(**SMALL)(pipe, "church")
    assert seen == [("fit", True), ("search", False), ("fit", False), ("search", False), ("fit", True)]
    assert not any("attn2" in one for one in edit.deltas)


def test_other_searches_give_another_edit_and_anchors_are_what_stays(pipe: Any) -> None:
    one, other, kept = (
        STEREO(**{**SMALL, **more})(pipe, unsee.Concept("church", keep=keep))
        for more, keep in (({}, ()), ({"searches": 3}, ()), ({}, ("dog",)))
    )
    name = next(iter(one.deltas))
    assert not torch.equal(one.deltas[name], other.deltas[name])  # type: ignore[arg-type]
    assert not torch.equal(one.deltas[name], kept.deltas[name])  # type: ignore[arg-type]


def test_what_no_prompt_names_is_refused(pipe: Any) -> None:
    with pytest.raises(unsee.InputError, match="stereo moves names, so it cannot erase 'crown' from 'cowboy'"):
        STEREO(**SMALL)(pipe, unsee.Concept("crown", from_="cowboy"))
