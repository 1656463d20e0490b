"""The evidence page at its smallest: two pictures a row, one experiment with all columns and one with an edit each."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import evidence
from unsee import guards, methods
from unsee.edit import Edit
from unsee.evaluate.records import Evaluation, Measured
from unsee.evaluate.statistics import Difference, Score

QUICK = ["--set", "updates=1", "steps=2", "batch=2", "runs=2", "keep_runs=1", "spared=0", 'neutral=["cat"]']


def test_the_page_has_a_column_for_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other methods are left to their own tests here: the default, guards, and what is said of goals."""
    monkeypatch.setattr(methods, "names", lambda: ["esd"])
    out = tmp_path / "evidence.md"
    words = ["-n", "2", "--steps", "1", "--only", "style", "eta", "--work", str(tmp_path / "work"), "--out", str(out)]
    evidence.main([*words, *QUICK])
    text = out.read_text()
    assert "|  | base | default | " + " | ".join(guards.names()) + " | n | unit |" in text
    assert "|  | base | eta 1 | eta 3 | eta 10 | n | unit |" in text
    assert "| the style, per cent | - | <= 3 |" in text
    assert "python -m benchmarks.evidence -n 2" in text
    assert Evaluation.from_json((tmp_path / "work" / "style" / "evaluation.json").read_bytes()).n == 2
    drawn = sorted((tmp_path / "work" / "pictures").rglob("*.png"))
    evidence.main([*words, *QUICK])  # nothing is made or drawn again
    assert sorted((tmp_path / "work" / "pictures").rglob("*.png")) == drawn
    assert out.read_text() == text


def test_a_twin_is_an_edit_that_leads_to_it(mini: Any, tmp_path: Path) -> None:
    shop = evidence.Workshop("mini", tmp_path, {})
    with torch.no_grad():
        mini.unet.conv_out.bias.add_(1)
        mini.save_pretrained(tmp_path / "twin")
        mini.unet.conv_out.bias.sub_(1)
    edit = Edit.load(shop.twin(str(tmp_path / "twin"), "church"))
    before = mini.unet.conv_out.bias.clone()
    with edit.applied(mini):
        torch.testing.assert_close(mini.unet.conv_out.bias, before + 1)
    assert torch.equal(mini.unet.conv_out.bias, before)


def measured(row: str, before: float, after: float, column: str = "default", gone: bool = False) -> Measured:
    def score(value: float) -> Score:
        return Score(value, value, value, 100)

    change = Difference(after - before, -1, 1, 100, True)
    return Measured("objects", row, column, "share", gone, score(after), score(before), change)


def found(*numbers: Measured) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(columns=[SimpleNamespace(name="default", kind="edit")], measured=numbers)


def test_goals_are_judged_by_the_worst_number() -> None:
    (experiment,) = [one for one in evidence.experiments({}, "church", "ink", "stamp") if one.name == "object"]
    lines = list(
        evidence.judged(experiment, found(measured("erased", 1, 0.005, gone=True), measured("all others", 0.98, 0.96)))
    )
    assert lines[0] == "| erased, per cent | 54.2 (church) | <= 1 | 0.5 (erased) | 100 | yes |"
    assert lines[1] == "| all others lose, points | 15.0 | <= 0.5 | 2.0 (all others) | 100 | **no** |"
    assert lines[2].endswith("| not measured |  |  |")
