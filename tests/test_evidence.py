"""Evidence: its tasks and goals, its table, and its page at its smallest, two pictures a row."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_suites import WORDS

from benchmarks import forms, methods_page, near
from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence.forest import Bar, forest, place
from benchmarks.evidence.goals import Result, decided, reached, table
from benchmarks.evidence.page import Line, Said, lines_of, page, plots, square
from benchmarks.evidence.record import EDIT, REFUSED, SECONDS, Cell, read, score, written
from benchmarks.evidence.suites import suites
from benchmarks.evidence.tasks import (
    EVERY_OBJECT,
    GONE,
    METHODS,
    NEIGHBOUR,
    PAPER,
    REST,
    TWIN,
    VARIED,
    Task,
    chosen,
    tasks,
)
from benchmarks.methods import measured as cell_of_run
from benchmarks.methods import variants
from unsee import guards
from unsee.concepts import Concept
from unsee.errors import InputError
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.records import VERSION, Evaluation, Measured, Role
from unsee.evaluate.statistics import Difference, Score, rate
from unsee.models.names import BUNDLED
from unsee.models.words import words_of

DOCS = Path(__file__).parents[1] / "docs"


def every(described: bool = False, compared: bool = True) -> dict[str, Task]:
    return {task.name: task for task in tasks(WORDS, "church", "ink", "stamp", "balance", described, compared)}


def test_cells_are_measured_once_and_stay_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one method and one guard: every other takes the same way."""
    described, out = tmp_path / "held_out.yaml", tmp_path / "page.md"
    described.write_text("{church: [a house of worship], dog: [a barking pet]}")
    given = ["--model", "tiny", "--reference", "tiny", "--pictures", "2", "--beside", "1", "--steps", "1"]
    given += ["--alike", "castle", "--described", str(described), "--work", str(tmp_path / "work"), "--out", str(out)]
    evidence.main([*given, "--tasks", "object", "--by", "uce", "sld-max"])
    assert "pictures at most" in capsys.readouterr().err
    text, rows = out.read_text(), out.with_suffix(".csv").read_text()
    drawn = sorted((tmp_path / "work" / "pictures").rglob("*.png"))
    first = next(line for line in text.splitlines() if line.startswith("| object | uce |"))
    assert re.search(r"\| \d+\.\d \| \d+\.\d <span", first), "seconds, and their ratio"
    assert re.search(r"^\| a house of worship \| \d of 3 \| \d of 3 \| \d of 3 \|$", text, re.M)
    cells = {cell.by: cell for cell in read(rows)}
    assert set(cells) == {"uce", "sld-max"}
    assert {"removed/church", "near/castle", "near/texts", "said/a house of worship"} <= {
        row.key for row in cells["uce"].rows
    }
    assert cells["sld-max"].row(EDIT, SECONDS) is None
    assert "/src/" not in rows
    assert {path.name for path in (tmp_path / "page").iterdir()} == {
        f"object-{name}.webp" for name in ("base", "uce", "sld-max")
    }
    assert ElementTree.fromstring((tmp_path / "page.svg").read_text()) is not None
    evidence.main([*given, "--tasks", "object", "--by", "uce", "sld-max"])  # nothing is made or drawn again
    assert sorted((tmp_path / "work" / "pictures").rglob("*.png")) == drawn
    evidence.main([*given, "--draw"])
    assert (out.read_text(), out.with_suffix(".csv").read_text()) == (text, rows)
    with pytest.raises(InputError, match="did you mean 'object'"):
        evidence.main([*given, "--tasks", "objekt"])


@pytest.mark.parametrize("name", evidence.PAGES)
def test_the_pages_of_the_documentation_are_those_of_their_tables(name: str) -> None:
    options = evidence.parsed([name])
    if not BUNDLED[options.model].is_dir():
        pytest.skip(f"{options.model} is not made: make mini-flow")
    out = DOCS / f"{name}.md"
    again, drawn = evidence.drawn(options, evidence.tasks_of(options)[0])
    assert out.read_text() == again, f"python -m benchmarks.evidence {name} --draw"
    for file, text in drawn.items():
        assert (DOCS / file).read_text() == text, file


def test_a_table_holds_its_rows() -> None:
    one = measured("removed", 1, 0.125)
    base = replace(one, variant="base", base=None, difference=None, note='a "note", with a comma')
    cells = [Cell("object", "uce", "abc", "2026-01-02", (one, base)), Cell("ten", "uce", "", "2026-01-03", (one,))]
    assert read(written(cells)) == cells
    assert read(written([])) == []


def test_a_task_has_the_methods_that_can_do_it() -> None:
    found = every()
    names = ["object", "ten", "style", "implicit", "title", "fidelity", "2 titles"]
    assert list(found)[: len(names)] == names
    assert {task.group for task in found.values()} == {"", EVERY_OBJECT, "every style"}
    assert found["implicit"].method("esd").select == "noncross"
    assert found["implicit"].method("hybrid").implicit
    assert found["object"].method("esd").select != "noncross"
    assert [found["object"].method(name).select for name in PAPER] == ["cross", "noncross"]
    looks, *etas = (found["object"].method(name) for name in VARIED)
    assert (looks.looks, *(one.eta for one in etas)) == (0, 3, 10)
    known = {*METHODS, *PAPER, *VARIED, *guards.names(), TWIN}
    assert all(set(task.by) <= known and task.default in task.by for task in found.values())
    plain = every(compared=False)
    assert set(plain) == {"object", "ten", "style", "implicit", "title"}
    assert all(set(task.by) <= set(METHODS) for task in plain.values())


def test_groups_are_chosen_by_their_name() -> None:
    found = list(every().values())
    assert [task.name for task in chosen(found, [EVERY_OBJECT, "ten"])] == [
        "ten", f"{EVERY_OBJECT}: church", f"{EVERY_OBJECT}: fish",
    ]  # fmt: skip
    assert chosen(found, []) == found


def test_all_titles_but_the_erased_ones_are_kept() -> None:
    one, both = every()["title"], every()["2 titles"]
    assert one.concepts == [Concept("the great wave", keep=("mount fuji",))]
    assert both.concepts == [Concept("the great wave"), Concept("mount fuji")]
    assert REST not in both.goals, "no title stays"
    roles: dict[str, Role] = {"mount fuji": "kept", "the great wave": "removed"}
    other, own = (replace(measured(f"copies/{title}", 1, 1, role), suite="memorised") for title, role in roles.items())
    assert one.goals[REST].pick(other)
    assert not one.goals[REST].pick(own)


def test_fewer_pictures_are_the_first_of_more(tiny: Any) -> None:
    """So that the base model's are drawn once; and a goal can be decided: none of n / 2 ends below 2 %."""
    known = suites(["castle"], {"church": ["a house of worship"], "dog": ["a barking pet"]})

    def shots(n: int) -> dict[tuple[str, str], set[Any]]:
        context = EvalContext(tiny, detectors_of(tiny), words_of(tiny), (Concept("church"),), n, 7)
        return {(suite.name, one.key): set(one.shots) for suite in known.values() for one in suite.ask(context)}

    few, more = shots(8), shots(384)
    assert few.keys() == more.keys()
    assert all(few[key] <= more[key] for key in few)
    assert rate([False] * len(more["things", "removed/church"])).high <= 0.01
    assert rate([False] * len(more["things", "in styles/church"])).high <= 0.02


def test_what_a_method_refuses_has_a_line_and_no_number() -> None:
    row = Measured(EDIT, REFUSED, "other", "refused", "uce", "", score(0, 0), None, None, note="no words")
    found = list(every().values()), [Cell("object", "uce", "", "", (row,))]
    text = page(*found, Said("evidence", "tiny", "", (), False), Path("page.md"))
    assert "| object | uce | refused: no words |" in text
    assert "Nothing is measured yet." in text
    assert Line((found[0][0],), tuple(found[1])).result(GONE) is None
    assert set(plots(*found, "page")) == set()


def test_edits_of_a_group_are_one_line() -> None:
    """One of 100 and three of 100 are two of 100; the worst loss decides the rest; and each stands against each."""
    found = list(every().values())
    cells = [
        Cell(f"{EVERY_OBJECT}: {word}", "balance", "", "", rows)
        for word, rows in {
            "church": (
                measured("removed", 1, 0.01, suite="objects"), measured("kept", 0.98, 0.98, suite="objects"),
                measured("class/church", 1, 0.01, suite="objects"), measured("class/fish", 0.9, 0.88, suite="objects"),
            ),
            "fish": (
                measured("removed", 0.9, 0.03, suite="objects"), measured("kept", 0.98, 0.9, suite="objects"),
                measured("class/church", 1, 0.99, suite="objects"), measured("class/fish", 0.9, 0.03, suite="objects"),
            ),
        }.items()
    ]  # fmt: skip
    (line,) = lines_of(found, cells)
    gone, rest = line.result(GONE), line.result(REST)
    assert gone is not None
    assert gone.worst is not None
    assert (gone.worst.score, gone.worst.base) == (
        rate([True] * 4 + [False] * 196), rate([True] * 190 + [False] * 10),
    )  # fmt: skip
    assert rest is not None
    assert rest.interval[0] == pytest.approx(8)
    assert square(line) == (
        {"church": {"church": 0.01, "fish": 0.88}, "fish": {"church": 0.99, "fish": 0.03},
         "nothing": {"church": 1, "fish": 0.9}},
        ["church", "fish"],
    )  # fmt: skip
    assert "| **every object** | balance | 2.0 (0.8 to 5.0)" in page(
        found, cells, Said("evidence", "tiny", "", (), False), Path("page.md")
    )


def test_the_forest_has_each_goal_at_its_place() -> None:
    """In limits: at the limit 1; a limit of 0 counts in its own unit from there; what is far beyond is cut."""
    text = forest([Bar("no neighbour loses more", "missed", 5, 25, 20, 30)])
    assert "<title>no neighbour loses more: 25.0 (20.0 to 30.0), missed</title>" in text
    assert (place(5, 5), place(0, 5), place(-10, 5), place(25, 5)) == (1, 0, -1, 4)
    assert (place(0, 0), place(2, 0)) == (1, 3)


def measured(
    key: str, before: float, after: float, role: Role = "kept", differs: bool = True, suite: str = "things"
) -> Measured:
    def number(value: float) -> Score:
        return Score(value, value, value, 100)

    far = 0 if differs else 1  # an interval of no width, or of any
    change = Difference(after - before, after - before - far, after - before + far, 100, differs)
    role = "removed" if key == "removed" else role
    return Measured(suite, key, role, key, "balance", "share", number(after), number(before), change)


def lines(*numbers: Measured) -> dict[str, str]:
    """The goals of an object as lines of their table, by column."""
    goals = every()["object"].goals
    return {name: table([decided(goal, numbers)]).splitlines()[-1] for name, goal in goals.items()}


def test_goals_are_judged_by_the_worst_number() -> None:
    texts = lines(measured("removed", 1, 0.005), measured("kept", 0.98, 0.96))
    goal = "| erased, per cent | 54.2 (church) | <= 1 |"
    assert texts[GONE] == f'{goal} 0.5 (removed; base 100.0 %) | 0.5 to 0.5 | 100 | <span class="met">met</span> |'
    goal = "| everything else loses, points | 15.0 | <= 0.5 |"
    missed = '<span class="missed">**missed**</span>'
    assert texts[REST] == f"{goal} 2.0 (kept; base 98.0 %) | 2.0 to 2.0 | 100 | {missed} |"
    assert texts[NEIGHBOUR].endswith("| not measured |  |  |  |")


def test_a_goal_whose_limit_is_in_the_interval_is_inconclusive() -> None:
    """None of 100 may be one of 28, by Wilson's interval: more than one of a hundred."""
    none = replace(measured("removed", 1, 0), score=Score(0.0, 0.0, 0.036, 100))
    assert "| 0.0 (removed; base 100.0 %) | 0.0 to 3.6 | 100 |" in lines(none)[GONE]
    assert "inconclusive" in lines(none)[GONE]


def test_goals_of_other_kinds_have_intervals() -> None:
    """Half of a base of 80 % is 50 % of base, 40 to 60 of it are 50 to 75; lost are 25 to 50."""
    one = replace(measured("unasked/stamp", 0.8, 0.4), score=Score(0.4, 0.4, 0.6, 100))
    goals = {goal.text: goal for task in every().values() for goal in task.goals.values()}
    bounds = {text: goal.quantity.bounds(one) for text, goal in goals.items()}
    assert bounds["where no prompt names it, per cent of base"] == pytest.approx((50, 75))
    assert bounds["what stands beside it loses, per cent of base"] == pytest.approx((25, 50))
    assert bounds["FID above seed noise (0 no, 1 yes)"] is None
    lost = goals["copies of no other image lose more, points"].quantity
    by_chance = replace(one, difference=Difference(-0.4, -0.7, -0.1, 100, False))
    assert (lost.value(by_chance), lost.bounds(by_chance)) == (pytest.approx(40), pytest.approx((10, 70)))


def test_what_the_base_does_not_draw_is_no_goal_met() -> None:
    never = measured("removed", 0, 0, differs=False), measured("kept", 0.004, 0)
    texts = lines(*never)
    assert "| 0.0 (removed; base 0.0 %) | 0.0 to 0.0 | 100 |" in texts[GONE]
    assert "| 0.4 (kept; base 0.4 %) | 0.4 to 0.4 | 100 |" in texts[REST]
    assert all("void" in texts[name] for name in (GONE, REST))
    goals = every()["object"].goals
    assert reached([decided(goals[name], never) for name in (GONE, REST)]) == (
        "Goals measured: 2. Met: 0. Missed: 0. Inconclusive: 0. Void: 2 (erased, per cent; everything else loses, "
        "points)."
    )


def test_a_fall_that_is_not_significant_is_void() -> None:
    def state(one: Measured) -> str:
        return decided(every()["object"].goals[GONE], [one]).state

    assert state(measured("removed", 0.02, 0, differs=False)) == "void"
    assert state(measured("removed", 0.02, 0.02, differs=False)) == "missed"
    assert state(measured("removed", 1, 0)) == "met"


def test_a_loss_that_is_not_significant_is_inconclusive() -> None:
    line = lines(measured("kept", 1, 0.99, differs=False))[REST]
    assert "| 1.0 (kept; base 100.0 %) | -99.0 to 101.0 | 100 |" in line
    assert "inconclusive" in line


def test_void_numbers_do_not_hide_others() -> None:
    """Of two objects that the edit must leave alone, the base draws one; of the other nothing can be lost."""

    def line(now: float) -> str:
        return lines(measured("near/castle", 0, 0), measured("near/tent", 1, now))[NEIGHBOUR]

    assert "0.0 (near/tent; base 100.0 %; 1 of 2 void) | 0.0 to 0.0 | 100 |" in line(1.0)
    assert ">met<" in line(1.0)
    assert "10.0 (near/tent; base 100.0 %; 1 of 2 void) | 10.0 to 10.0 | 100 |" in line(0.9)
    assert "**missed**" in line(0.9)


def test_a_miss_is_not_hidden_by_a_larger_number_that_is_inconclusive() -> None:
    line = lines(measured("near/tent", 1, 0.8, differs=False), measured("near/castle", 1, 0.85))[NEIGHBOUR]
    assert "15.0 (near/castle" in line
    assert "**missed**" in line


def test_the_page_says_which_goals_are_reached() -> None:
    goals = list(every()["object"].goals.values())
    numbers = measured("removed", 1, 0.005), measured("kept", 0.98, 0.96)
    assert reached([decided(goal, numbers) for goal in goals]) == (
        "Goals measured: 2. Met: 1. Missed: 1 (everything else loses, points). Inconclusive: 0. Void: 0."
    )
    assert reached([]) == ""
    undecided = reached([Result(goals[0], "inconclusive"), Result(goals[1], "met")])
    assert undecided.startswith("**This page cannot decide 1 of 2 goals: the limit is in the interval.**")


def test_a_run_of_a_method_becomes_a_cell() -> None:
    rows = tuple(replace(measured("kept", 1, 0.9, suite=suite), variant="edit") for suite in ("summary", "styles"))
    found = Evaluation(VERSION, "", {}, {}, {}, 2, 0, {}, {}, "cpu", {}, (), (), rows, ())
    record = {"parameters": {"trained": 1, "of": 4}, "config": {"method": "uce"}, "command": "unsee erase church"}
    record |= {"seconds": {"erase": 2.0}, "evaluation": json.loads(found.to_json())}
    cell = cell_of_run(methods_page.Variant("UCE", "church --method uce"), "unsee erase church", record)
    assert [(one.suite, one.score.value) for one in cell.rows] == [(EDIT, 0.25), (EDIT, 2.0), ("summary", 0.9)]


def test_the_page_of_what_is_near_is_that_of_its_table() -> None:
    cells = read(near.TABLE.read_text())
    assert near.TABLE.with_suffix(".md").read_text() == near.page(cells), "python -m benchmarks.near --draw"


def test_the_page_of_forms_is_that_of_its_table() -> None:
    cells = read(forms.TABLE.read_text())
    assert forms.TABLE.with_suffix(".md").read_text() == forms.page(cells), "python -m benchmarks.forms --draw"
    assert [one.by for one in cells] == [*forms.FORMS, forms.PACKED, *forms.SIBLINGS]


def test_the_page_and_the_plot_of_every_variant_are_those_of_its_table() -> None:
    out = DOCS / "methods.md"
    cells = read(out.with_suffix(".csv").read_text())
    found = methods_page.numbers(cells)
    assert "must go" not in found["image"], "pictures of it are not counted"
    assert (DOCS / "methods.svg").read_text() == methods_page.plot(found), "python -m benchmarks.methods --draw"
    assert all(methods_page.line(one) in out.read_text() for one in cells), "python -m benchmarks.methods --draw"
    assert {one.by for one in cells} == {one.name for one in variants(("a", "b"), Path("known.png"))}
