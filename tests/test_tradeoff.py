"""The trade-off curve: what is left by hand, the rule, and a run that takes its scale."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unsee
from unsee.denoising.calls import Call
from unsee.models.memory import SMALLER, Portions
from unsee.report.plots import scales
from unsee.report.tradeoff import scale_taken
from unsee.runs import tradeoff
from unsee.runs.controls import Passes
from unsee.runs.tradeoff import best, held_out, left, others

SMALL: dict[str, Any] = {"context_words": 2, "preserve_words": 8, "neutral": ("cat",), "templates": ("{}", "a {}")}


def answered(e_0: Tensor, e_t: Tensor) -> Call:
    return Call({"now": e_t}, e_0)


def test_the_share_that_is_left_is_that_derived_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # One run of two steps, y = (0, 0) and (1, 0). What the word adds is (2, 0) and (0, 4), of squares 4 and 16. The
    # edited model still has half of the first, whatever it does across it, and a quarter of the second: the products
    # are 1 * 2 + 5 * 0 and 1 * 4, so (2 + 4) / (4 + 16) is left.
    monkeypatch.setattr(tradeoff, "replay", lambda _, call: call.arguments["now"])
    first = answered(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 5.0]]))
    second = answered(torch.tensor([[1.0, 4.0]]), torch.tensor([[1.0, 1.0]]))
    runs = [[(first, torch.zeros(1, 2)), (second, torch.tensor([[1.0, 0.0]]))]]
    net: Any = None
    torch.testing.assert_close(left(net, runs, Portions(16, "rows", SMALLER)), torch.tensor([0.3]))


def test_more_than_all_that_goes_counts_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "replay", lambda _, call: call.arguments["now"])
    call = answered(torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[-2.0], [3.0], [0.5]]))
    net: Any = None
    found = left(net, [[(call, torch.zeros(3, 1))]], Portions(2, "rows", SMALLER))
    assert found.tolist() == [0.0, 1.0, 0.5]


def test_the_largest_harmonic_mean_is_taken_and_of_equal_ones_the_smallest_scale() -> None:
    # 2 * 0.6 * 0.9 / 1.5 = 0.72; 2 * 0.8 * 0.8 / 1.6 = 0.8; 2 * 1 * 0.6 / 1.6 = 0.75
    assert best([(0.5, 0.6, 0.9), (0.8, 0.8, 0.8), (1.2, 1.0, 0.6)]) == 0.8
    assert best([(0.5, 0.5, 0.5), (1.0, 0.5, 0.5)]) == 0.5
    assert best([(0.5, 0.0, 0.0), (1.0, 0.0, 1.0)]) == 0.5  # nothing is removed at any scale


def test_words_that_are_kept_begin_with_those_of_the_user_and_hold_no_concept(pipe: Any) -> None:
    words = others(pipe, (unsee.Concept("church", keep="castle"),), torch.Generator().manual_seed(0))
    assert words[0] == "castle"
    assert len(words) == len(set(words)) == tradeoff.RUNS
    assert not {"church", "chapel", "kirche"} & set(words)


def test_the_frozen_model_removes_nothing_and_keeps_all(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "RUNS", 2)
    for part in ({}, {"from_": "cowboy"}):
        (held,) = held_out(pipe, (unsee.Concept("crown", **part),), ("a {}",), 0)
        for runs in (held.goes, held.stays):
            found = left(held.net, runs, Portions(16, "rows", SMALLER))
            torch.testing.assert_close(found, torch.ones(2))


def test_a_run_takes_the_scale_of_its_curve(pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "RUNS", 2)
    monkeypatch.setattr(tradeoff, "SCALES", (0.2, 0.6, 1.6))
    how: dict[str, Any] = {"method": "uce", "settings": SMALL, "pictures": 2, "steps": 1}
    report = unsee.erase("church", tmp_path / "run", auto=True, **how)
    card = unsee.Edit.load(report.folder / "edit.safetensors").card
    assert [point[0] for point in card.tradeoff] == [0.2, 0.6, 1.6]
    assert card.scale == best(card.tradeoff)
    whole = unsee.UCE(**SMALL)(pipe, "church")
    for name, delta in report.edit.deltas.items():
        shape = pipe.unet.get_parameter(name.removeprefix("unet.")).shape
        torch.testing.assert_close(delta.dense(shape), card.scale * whole.deltas[name].dense(shape))
    record = json.loads((report.folder / "run.json").read_text())
    assert record["config"]["auto"]
    assert record["tradeoff"]["taken"] == card.scale
    assert scale_taken(card)[0] in record["notes"]
    html = (report.folder / "index.html").read_text()
    assert html.count("<title>scale ") == 3
    assert f"auto: scale {card.scale:g} removes" in html


def test_passes_are_counted_beforehand(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff, "RUNS", 4)
    monkeypatch.setattr(tradeoff, "SCALES", (0.5, 1.0))
    concepts = (unsee.Concept("church"), unsee.Concept("crown", from_="cowboy"))
    edit = unsee.UCE(**SMALL)(pipe, "church")
    with Passes(pipe) as counted:
        tradeoff.balanced(pipe, edit, held_out(pipe, concepts, ("a {}",), 0))
    assert counted.now().passes == pytest.approx(
        tradeoff.passes(concepts), abs=16
    )  # the first call looks how it guides


def test_the_plan_states_the_rule(run: Any) -> None:
    code, out, _ = run("erase", "church", "--auto", "--dry-run")
    assert code == 0
    assert "11 scales of the edit from 0.2 to 1.6 are tried" in out
    assert "harmonic" not in run("erase", "church", "--dry-run")[1]


def test_every_scale_of_the_curve_says_its_numbers() -> None:
    drawn = scales([(0.5, 0.0, 1.0), (1.0, 1.0, 0.25)], 1.0)
    assert "<title>scale 0.5: 0.0 % removed, 100.0 % kept</title>" in drawn
    assert "<title>scale 1: 100.0 % removed, 25.0 % kept</title>" in drawn
