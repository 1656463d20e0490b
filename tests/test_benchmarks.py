"""The table of all benchmarks; what they measure is run by hand."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_attacks import siege

import unsee
from benchmarks import __main__ as table
from benchmarks import drawing, many, redteam
from benchmarks.many_page import Base, Cell, harmonic, page, plot, result, row
from benchmarks.redteam_page import curves, half_of_twin, heat, text
from benchmarks.weights import __main__ as weights
from benchmarks.weights.page import Found, taken, tradeoff
from unsee.errors import InputError
from unsee.evaluate.attacked import ATTACKED, BASE, TAUGHT, TWIN, VERSION, Attacked, Cost, Row
from unsee.evaluate.statistics import rate
from unsee.runs import tradeoff as tradeoff_runs
from unsee.runs.attack import besiege
from unsee.runs.controls import excess


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
    return Cell(method, number, 0, {"church": erased}, kept, {word: [True, True] for word in kept}, 2.0)


def test_many_concepts_are_pooled_over_draws() -> None:
    """One of four pictures of what is erased is left, and three quarters of the others: Ho = 2 .75 .75 / 1.5."""
    some = [cell("uce", 1, [True, False], [True] * 4), cell("uce", 1, [False, False], [True, True, False, False])]
    found = result(some)
    assert (found.erased.value, found.erased.n) == (0.25, 4)
    assert (found.kept.value, found.kept.n) == (0.75, 8)
    assert found.ho.value == pytest.approx(0.75)
    assert all(one.low <= one.value <= one.high for one in (found.erased, found.kept, found.ho))
    assert "| cat 2/4; still seen: church 1/4 | 2.0 | 2" in row(some)
    assert harmonic(1, 0) == 0
    assert harmonic(0, 2) == 1
    how = {"steps": 10, "guidance_scale": 4.0, "each": 2}
    space = {"words": 3, "channels": 8, "participation": 2.5, "90 %": 3, "99 %": 5}
    text = page(some, Base(how, some[0].base, space), "many")
    assert "| 1 | 75.0 (" in text
    assert "2.5; 3 directions" in text
    drawn = plot([*some, cell("a<b", 10, [False] * 2, [True] * 4)])
    assert ": 1 75.0 %</title>" in drawn
    assert "a&lt;b: 10 100.0 %</title>" in drawn


@pytest.mark.usefixtures("mini_is_tiny")
def test_cells_of_many_concepts_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "ROOT", tmp_path)
    monkeypatch.setattr(many, "RECORDS", tmp_path / "records")
    (tmp_path / "docs").mkdir()
    words = ["--draws", "1", "--steps", "1", "--methods", "uce preserve_words=8 context_words=0", "--numbers", "3"]
    many.main(words)
    (path,) = (tmp_path / "records" / "many").glob("cell-*.json")
    found = json.loads(path.read_text())
    assert (len(found["erased"]), len(found["others"])) == (3, 130)
    assert all(len(hits) == math.ceil(many.ERASED / 3) for hits in found["erased"].values())
    before = path.stat().st_mtime_ns
    many.main(words)
    assert path.stat().st_mtime_ns == before
    assert "| 3 | uce preserve_words=8 context_words=0 |" in (tmp_path / "docs" / "many.md").read_text()
    with pytest.raises(InputError, match="of other pictures or of another model"):
        many.main([*words, "--steps", "2"])
    for wrong in ("nothing", "uce etta=0", "uce eta=-1"):
        with pytest.raises(InputError):
            many.method_of(wrong)
    assert many.drawn_words("abcdef", 2, 1) == many.drawn_words("abcdef", 4, 1)[:2]


def test_the_page_of_many_concepts_is_that_of_its_records() -> None:
    base, found = many.recorded(many.RECORDS / "many")
    assert base
    assert (many.ROOT / "docs" / "many.md").read_text() == page(found, base, "many"), "python -m benchmarks.many --draw"


def test_the_red_team_has_a_figure_of_what_was_measured() -> None:
    """Two methods and two attacks by hand: cells hold the excess in points, curves the share at its passes."""

    def made(method: str, hits: int, control: int) -> Attacked:
        def one(attack: str, axis: str, tried: str, column: str, count: int) -> Row:
            share = rate([True] * count + [False] * (10 - count))
            return Row(attack, axis, tried, column, share, share.value, Cost(0, 240, 1.0))

        tried = "8 pictures, 240 passes"
        rows = (
            one("soft", "continuous text", tried, ATTACKED, hits),
            one("soft", "continuous text", tried, TAUGHT, control),
            one("seeds", "name", "the name", ATTACKED, 0),
        )
        every = {
            (row.attack, row.row, row.column): [True] * round(10 * row.score.value)
            + [False] * round(10 - 10 * row.score.value)
            for row in rows
        }
        return Attacked(
            VERSION, "", "church", {"name": "mini", "hash": ""}, {"method": method, "hash": ""},
            {"steps": 10, "guidance_scale": 4.0}, 10, 0, (0,), "small", 240, "", {}, "cpu", 1.0, (), rows,
            tuple(excess(rows, every)), (),
        )  # fmt: skip

    found = {"one": [made("one", 9, 2)], "two": [made("two", 3, 3)]}
    root = ElementTree.fromstring(heat(found))
    cells = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert cells.count("70") == 1  # 9 of 10, minus 2 of 10
    assert cells.count("0") == 3
    assert "Heat map" in (root.findtext("{http://www.w3.org/2000/svg}title") or "")
    drawn = curves(found)
    for method, share in (("one", 90), ("two", 30)):
        assert f"<title>{method}, soft: 240: {share} %</title>" in drawn
    learns = [
        replace(row, column=TWIN, search=Cost(0, n, 1.0))
        for n, row in zip((60, 120), found["one"][0].rows, strict=False)
    ]
    rows = {(row.attack, str(k), row.column): row for k, row in enumerate(learns)}
    assert half_of_twin([rows], "soft") == "60"  # nine of ten by then; two of ten for the other
    assert half_of_twin([{("soft", "0", TWIN): learns[1]}], "soft") == "never"
    assert half_of_twin([rows], "token") == ""
    written = text(found, {})
    assert "| one | yes, seeds +0 | no, soft +70 | not tested | not tested |" in written
    assert "| two | yes, seeds +0 | yes, soft +0 | not tested | not tested |" in written
    assert written.count("](redteam-") == 2


@pytest.mark.parametrize("model", [one for one, name in redteam.PAGES.items() if (redteam.RECORDS / name).is_dir()])
def test_the_page_of_attacks_is_that_of_its_records(model: str) -> None:
    found = redteam.recorded(model)
    known = redteam.known(model)
    page = redteam.ROOT / "docs" / f"{redteam.PAGES[model]}.md"
    assert page.read_text() == text(found, known, model, redteam.PAGES[model])
    assert page.with_name(f"{page.stem}-heat.svg").read_text() == heat(found)
    assert page.with_name(f"{page.stem}-effort.svg").read_text() == curves(found)


def test_a_guard_is_tried_where_no_weights_are_needed(tiny: object, edit: unsee.Edit) -> None:
    assert redteam.guarded(siege(tiny, edit, "token"), "sld") is None
    assert redteam.guarded(siege(tiny, edit, "rounding"), "sld") is None
    where = redteam.guarded(siege(tiny, edit, "negative"), "negative prompt")
    assert where is not None
    found = besiege(where)
    assert found.edit["method"] == "negative prompt"
    assert {row.column for row in found.rows} == {ATTACKED, BASE}


def test_plots_contain_their_numbers() -> None:
    assert [drawing.beyond(x) for x in (0, 0.3, 1, 1.01, -13, 50.1)] == [0, 0.5, 1, 2, -20, 100]
    heat_map = ElementTree.fromstring(
        drawing.heat("a title", {"row": {"one": -0.001, "two": 1.2}}, ["one", "two", "x"])
    )
    texts = [node.text for node in heat_map.iter("{http://www.w3.org/2000/svg}text")]
    assert {"row", "one", "two", "x", "a title", "0", "120"} == {*texts}


def test_selections_and_traces_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tradeoff_runs, "RUNS", 4)
    out = tmp_path / "weights.md"
    given = ["--model", "tiny", "--method", "esd updates=1 record_steps=2 batch=2 runs=2", "--pictures", "2"]
    given += ["--runs", "2", "--steps", "2", "--only", "trace", "cross-attention queries"]
    given += ["--work", str(tmp_path), "--out", str(out)]
    weights.main(given)
    text = out.read_text()
    assert "| cross-attention queries | 0.0" in text
    assert "| cross-attention values | " in text
    for name in ("selections", "blocks", "steps"):
        assert ElementTree.fromstring((tmp_path / f"weights-tiny-{name}.svg").read_text()) is not None
        assert f"(weights-tiny-{name}.svg)" in text
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.suffix in (".json", ".safetensors")}
    weights.main(given)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert out.read_text() == text
    with pytest.raises(InputError, match="did you mean 'self-attention'"):
        weights.main([*given, "--only", "self-atention"])


def test_a_selection_is_shown_at_the_scale_that_was_taken() -> None:
    seen = {"concept": (rate([True] * 4), rate([False] * 4))}
    curve = ((0.5, 0.4, 1.0), (1.0, 0.9, 0.7))
    one = weights.Selected("text MLP", (10, 100), curve, 1.0, seen)
    assert taken(one) == (0.9, 0.7)
    assert "<title>text MLP: 90 % removed, 70 % kept</title>" in tradeoff(Found("m", {}, [one], []))


def test_remaining_knowledge_is_measured_once_and_shown_on_the_page(
    tiny: Any, edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redteam, "RECORDS", tmp_path)
    (tmp_path / "redteam").mkdir()
    monkeypatch.setattr(redteam, "PICTURES", 2)
    monkeypatch.setattr(redteam.unsee, "load", lambda _: tiny)
    edit.save(tmp_path / "uce.safetensors")
    tiny.unet.save_pretrained(tmp_path / "twin")
    found = redteam.know(tmp_path, ["uce", "sld"], tmp_path / "twin")
    assert list(found) == ["uce", "twin"]  # a guard changes no denoiser
    church = found["twin"][0]
    assert church.row.startswith("church: gap left")
    assert church.score.value == pytest.approx(1, abs=1e-4)  # this twin is the base
    (tmp_path / "uce.safetensors").unlink()
    assert redteam.know(tmp_path, ["uce"], tmp_path / "twin") == found
    page = text({}, found)
    assert "| pictures of | uce | twin |" in page
    assert re.search(r"^\| church \| -?\d+ \(-?\d+ to -?\d+\)( \*)? \| 100 \(100 to 100\)", page, re.M)
