"""The table of all benchmarks; what they measure is run by hand."""

import json
import math
import sys
from pathlib import Path

import pytest

import unsee
from benchmarks import __main__ as table
from benchmarks import many
from benchmarks.many_page import Cell, harmonic, page, plot, result, row
from unsee.errors import InputError
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.render import Sampling


def test_the_table_has_medians_of_short_benchmarks_and_one_run_of_long_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = iter([2.0, 9.0, 3.0])
    monkeypatch.setitem(table.BENCHMARKS, "rendering", (lambda: {"pictures side by side": next(values)}, False))
    monkeypatch.setitem(table.BENCHMARKS, "speed", (lambda: {"the paper's loop": 120.4}, True))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "rendering", "speed"])
    table.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "| church gone by the default: times sooner than the paper's loop ends | >= 100 | 120 | 1 |",
        "| pictures drawn side by side, times faster than one by one | >= 2 | 3 | 3 |",
    ]


def cell(method: str, number: int, erased: list[bool], others: list[bool]) -> Cell:
    """Two pictures of one erased word, and two each of two others, which the base model always draws."""
    kept = {"dog": others[:2], "cat": others[2:]}
    base = {word: [True, True] for word in kept}
    how = {"steps": 10, "guidance_scale": 4.0, "each": 2}
    return Cell(method, number, 0, {"church": erased}, kept, base, 2.0, 3.0, "", how)


def test_many_concepts_are_pooled_over_draws() -> None:
    """One of four pictures of what is erased is left, and three quarters of the others: Ho = 2 .75 .75 / 1.5."""
    some = [cell("uce", 1, [True, False], [True] * 4), cell("uce", 1, [False, False], [True, True, False, False])]
    found = result(some)
    assert (found.erased.value, found.erased.n) == (0.25, 4)
    assert (found.kept.value, found.kept.n) == (0.75, 8)
    assert found.ho.value == pytest.approx(0.75)
    assert all(one.low <= one.value <= one.high for one in (found.erased, found.kept, found.ho))
    assert "| cat 2/4; still seen: church 1/4 | 2.0 | 3.0 | 2" in row(some)
    assert harmonic(1, 0) == 0
    assert harmonic(0, 2) == 1
    text = page(some, {"words": 3, "channels": 8, "participation": 2.5, "90 %": 3, "99 %": 5}, "a command", "many")
    assert "| 1 | 75.0 (" in text
    assert "2.5; 3 directions" in text
    assert plot([*some, cell("a<b", 10, [False] * 2, [True] * 4)]).count("<polyline") == 2


@pytest.mark.usefixtures("mini_is_tiny")
def test_cells_of_many_concepts_are_done_once(tmp_path: Path) -> None:
    words = ["--draws", "1", "--each", "1", "--steps", "1", "--work", str(tmp_path), "--out", str(tmp_path / "many.md")]
    words += ["--methods", "uce preserve_words=8 context_words=0", "--numbers", "30"]
    many.main(words)
    (path,) = tmp_path.glob("cell-*.json")
    found = json.loads(path.read_text())
    assert (len(found["erased"]), len(found["others"])) == (30, 103)
    assert all(len(hits) == math.ceil(many.ERASED / 30) for hits in found["erased"].values())
    before = path.stat().st_mtime_ns
    many.main(words)
    assert path.stat().st_mtime_ns == before
    assert "| 30 | uce preserve_words=8 context_words=0 |" in (tmp_path / "many.md").read_text()
    path.write_text(json.dumps({**found, "code": "other"}))
    world = many.World(unsee.load("mini"), detectors_of(unsee.load("mini"))["objects"], Sampling(1, 4.0), 1)
    assert not list(many.cells(tmp_path, world, False))
    assert len(list(many.cells(tmp_path, world, True))) == 1
    for wrong in ("nothing", "uce etta=0", "uce eta=-1"):
        with pytest.raises(InputError):
            many.method_of(wrong)
    assert many.drawn_words("abcdef", 2, 1) == many.drawn_words("abcdef", 4, 1)[:2]
