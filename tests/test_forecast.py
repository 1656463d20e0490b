"""--dry-run: what it says of passes, pictures and files is what the run then does."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, Run

from unsee.denoising.replay import replay
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate.render import Sampling
from unsee.models.model import Model
from unsee.runs import attack as attacking
from unsee.runs import erase as erasing
from unsee.runs import evaluate as evaluating
from unsee.runs import forecast, rehearsal
from unsee.runs.attack import columns
from unsee.runs.config import EvalConfig, build
from unsee.runs.controls import Passes
from unsee.runs.forecast import Forecast, Work
from unsee.runs.rehearsal import Rehearsal, silent
from unsee.runs.siege import prepare

FIT: dict[str, Any] = {"updates": 2, "batch": 2, "runs": 2, "record_steps": 3}


def whole(found: Forecast, key: str) -> int:
    return sum(getattr(one, key) for one in found.work)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("hybrid", {**QUICK, "implicit": True, "keep_weight": 1}),
        ("robust", {**QUICK, "rounds": 2, "searches": 2, "updates": 2}),
        ("esd", FIT),
        ("gem", FIT),
        ("stereo", {**FIT, "rounds": 2, "searches": 2}),
    ],
)
def test_erase_takes_the_passes_that_were_forecast(
    method: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any) -> Any:  # test_memory.py tests what a fit keeps in memory
        raise InputError("not asked")

    monkeypatch.setattr(forecast, "expected", unknown)
    monkeypatch.setattr(erasing, "page", lambda *_, **__: "")
    plan = erasing.plan(
        build({"concepts": ["church"], "method": method, "settings": settings, "pictures": 2, "steps": 1})
    )
    said = forecast.of_erase(plan, tmp_path / "run", tmp_path / "cache", batch=8)
    (tmp_path / "run").mkdir()
    with Passes(plan.model) as passes:
        report = erasing.erase(plan, tmp_path / "run", tmp_path / "cache", batch=8)
    done = passes.now()
    assert set(said.files) == set((tmp_path / "run").iterdir()), "files"
    assert whole(said, "pictures") == len(list((tmp_path / "cache").rglob("*.png")))
    assert said.passes == pytest.approx(done.passes + done.with_gradient, rel=0.03, abs=8)
    assert whole(said, "gradients") == pytest.approx(done.with_gradient, abs=1)  # one more row tells the rate
    assert report.edit.deltas


def test_evaluate_takes_the_passes_that_were_forecast(edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "one.safetensors")
    config = EvalConfig(
        model="tiny",
        edits=(str(tmp_path / "one.safetensors"),),
        guards=("sld-max",),
        suites=("objects",),
        pictures=2,
        steps=2,
    )
    bench = evaluating.prepare(config)
    said = forecast.of_evaluate(bench, tmp_path / "out", tmp_path / "cache")
    assert [one.what for one in said.work] == ["draw base", "draw one", "draw sld-max"]
    (tmp_path / "out").mkdir()
    with Passes(bench.context.pipe) as passes:
        evaluating.evaluate(bench, tmp_path / "out", tmp_path / "cache")
    assert set(said.files) == set((tmp_path / "out").iterdir())
    assert whole(said, "pictures") == len(list((tmp_path / "cache").rglob("*.png")))
    assert said.passes == pytest.approx(passes.now().passes, abs=6)  # a few find out how a guard is asked for
    after = forecast.of_evaluate(bench, tmp_path / "out", tmp_path / "cache")
    assert after.passes == whole(after, "pictures") == 0


def test_attack_takes_the_passes_that_were_forecast(edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "one.safetensors")
    names = ["average", "negative"]
    siege = prepare(str(tmp_path / "one.safetensors"), model="tiny", names=names, n=2, steps=2)
    said = forecast.of_attack(siege, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with Passes(siege.model) as passes:
        found = attacking.attack(siege, tmp_path / "out")
    assert set(said.files) == set((tmp_path / "out").iterdir())
    for one in siege.attacks:
        rows = [row for row in found.rows if row.attack == one.name]
        assert len(rows) == one.rows[0] * len(columns(siege, one))
    assert whole(said, "pictures") == 4 + sum(row.score.n for row in found.rows)
    assert said.passes == pytest.approx(passes.now().passes, rel=0.03)


def test_attack_says_what_memory_its_searches_take(
    edit: Edit, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit.save(tmp_path / "one.safetensors")
    counted = 4 * sum(4 * weight.numel() for weight in pipe.unet.parameters())  # copy, gradient, two moments

    def said(*names: str) -> Forecast:
        siege = prepare(str(tmp_path / "one.safetensors"), model="tiny", names=names, n=2, steps=2)
        return forecast.of_attack(siege, tmp_path / "out")

    plain = said("average", "tina")
    assert (plain.fit, plain.warnings) == ("", ())
    assert "0 MB for what is trained, 4 rows" in said("soft").fit
    fit = said("soft", "relearn", "benign").fit
    assert f"{counted / 1e6:.0f} MB for what is trained, 4 rows" in fit
    assert fit.startswith("relearn, benign: about ")
    with monkeypatch.context() as patch:
        patch.setattr(forecast, "free", lambda device: counted // 2)
        assert said("relearn").warnings == ("relearn may not fit into 0.0 GB on cpu",)

    def refused(*_: Any) -> Any:
        raise InputError("no fake tensors")

    monkeypatch.setattr(forecast, "expected", refused)
    assert said("relearn", "stacked").fit == "unknown: no fake tensors"
    assert said("relearn", "stacked").warnings == (
        "the memory of attacks that train (relearn, stacked) is not estimated",
    )


def test_seconds_follow_from_passes_and_pictures() -> None:
    found = Forecast((), one_pass=0.5, one_picture=2.0, peak=None, fit="", files=())
    assert found.seconds(Work("fit", passes=4, gradients=2, pictures=3)) == 4 * 0.5 + 2 * 3 * 0.5 + 3 * 2.0


def test_a_rehearsal_computes_nothing_and_leaves_no_trace(pipe: Any) -> None:
    net, x = pipe.unet, torch.randn(2, pipe.unet.config.in_channels, 8, 8)
    text = torch.zeros(2, 4, net.config.cross_attention_dim)
    with torch.no_grad():
        before = net(x, 1, text)
        with silent(Model.of(pipe), before) as rows:
            assert not net(x[:1], 1, text[:1]).sample.any()
            assert net(x, 1, text).sample.shape == before.sample.shape
        assert rows == [3]
        assert torch.equal(net(x, 1, text).sample, before.sample)
    assert "forward" not in net.__dict__


def test_a_fit_that_is_too_big_names_what_would_fit(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(forecast, "free", lambda device: 10_000)
    code, out, _ = run("erase", "church", "--method", "hybrid", "--dry-run", "-n", 2, "--steps", 1)
    assert code == 0
    assert "does not fit into 0.0 GB" in out
    assert "--method balance" in out


def test_the_commands_print_it_and_do_nothing(run: Run, edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "one.safetensors")
    for words in (
        ["evaluate", "tiny", "--edit", "one.safetensors", "--suite", "objects", "-n", 2],
        ["attack", "one.safetensors", "--model", "tiny", "--attack", "names", "-n", 2],
    ):
        code, out, err = run(*words, "--dry-run")
        assert code == 0, err
        assert "passes" in out
        assert "in all" in out
        assert out.splitlines()[-1] == f"next: unsee {' '.join(map(str, words))}"
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_one_call_that_other_work_holds_up_does_not_decide(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def held_up(net: Any, call: Any) -> Any:
        calls.append(1)
        time.sleep(0.5 if len(calls) == 2 else 0)  # the first is not timed
        return replay(net, call)

    monkeypatch.setattr(rehearsal, "replay", held_up)
    assert Rehearsal(Model.of(tiny), Sampling(2, 3.0), batch=1).one_pass < 0.25
    assert len(calls) == 1 + rehearsal.OFTEN
