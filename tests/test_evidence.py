"""The evidence page at its smallest: two pictures a row, one experiment with all columns and one with an edit each."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_suites import WORDS

from benchmarks import methods_plot
from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import workshop
from benchmarks.evidence.experiments import STEPS, chosen, experiments
from benchmarks.evidence.forest import LEFT, Bar, forest, place
from benchmarks.evidence.goals import Result, cells, reached, results, table
from benchmarks.evidence.overview import BEGIN, END, bars, squares, summarised, tasks
from benchmarks.evidence.page import both, together
from unsee import guards
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.records import Evaluation, Measured, Role, VariantRecord
from unsee.evaluate.statistics import Difference, Score
from unsee.methods.hybrid import Hybrid

QUICK = [
    "--set",
    "updates=1",
    "record_steps=2",
    "batch=2",
    "runs=2",
    "keep_runs=1",
    "preserve_words=0",
    'neutral=["cat"]',
]


def test_the_page_has_a_column_for_everyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one method and two guards of those that there are: all columns take the same way."""
    for module in (evidence, workshop):
        monkeypatch.setattr(module, "variants", lambda paper, default: {"default": default})
    monkeypatch.setattr(guards, "names", lambda: ["negative", "sld-max"])
    out = tmp_path / "evidence.md"
    words = ["-n", "2", "--steps", "1", "--only", "style", "eta", "--work", str(tmp_path / "work"), "--out", str(out)]
    evidence.main([*words, *QUICK])
    first = capsys.readouterr().err.splitlines()[0]
    text = out.read_text()
    assert "|  | base | default | " + " | ".join(guards.names()) + " | n | unit |" in text
    assert "|  | base | eta 1 | eta 3 | eta 10 | n | unit |" in text
    assert "| the style, per cent | - | <= 3 |" in text
    assert re.search(r"^Goals measured: 3. Met: ", text, re.M)
    assert (tmp_path / "evidence-style.png").is_file()
    assert (tmp_path / "evidence-eta.png").is_file()
    assert "(evidence-style.png)" in text
    assert "(evidence-goals.svg)" in text
    assert (tmp_path / "evidence-goals.svg").is_file()
    assert text.count("<details markdown>") == text.count("</details>") > 1
    rows = (tmp_path / "evidence.csv").read_text().splitlines()
    assert not any("/src/" in row or "/site-packages/" in row for row in rows)
    assert rows[0].startswith("experiment,suite,key,")
    assert {row.split(",")[0] for row in rows[1:]} == {"style", "eta"}
    assert "python -m benchmarks.evidence -n 2" in text
    assert Evaluation.from_json((tmp_path / "work" / "style" / "evaluation.json").read_bytes()).n == 2
    drawn = sorted((tmp_path / "work" / "pictures").rglob("*.png"))
    count = int(re.match(r"(\d+) pictures in 7 columns, \d+ minutes", first)[1])  # type: ignore[index]
    assert count == len(drawn)
    evidence.main([*words, *QUICK])  # nothing is made or drawn again
    assert sorted((tmp_path / "work" / "pictures").rglob("*.png")) == drawn
    assert out.read_text() == text


def test_what_only_takes() -> None:
    found = experiments(WORDS, "church", "ink", "stamp")
    assert [one.name for one in found] == ["object", "ten", "style", "matrix", "implicit", "eta", "title", "memorised"]
    assert chosen(found, []) == found
    assert [(one.name, one.suites) for one in chosen(found, ["ten", "styles"])] == [
        ("object", ("styles",)),
        ("ten", ("objects",)),
        ("style", ("styles",)),
        ("matrix", ("styles",)),
    ]
    with pytest.raises(InputError, match="did you mean 'styles'"):
        chosen(found, ["stiles"])


def test_what_is_alike_is_measured_in_all_columns_and_kept_in_one() -> None:
    experiment, *_ = experiments(WORDS, "church", "ink", "stamp", ["castle"])
    assert experiment.told == "default, keep castle"
    assert [one.keep for one in experiment.concepts(["church"])] == [()]
    assert [one.keep for one in evidence.looked_for(experiment, [["church"]])] == [("castle",)]
    rows = measured("to keep/castle", 1, 0.75), measured("to keep/castle", 1, 0.99, variant=experiment.told)
    variants = [SimpleNamespace(name=name, kind="edit") for name in ("default", experiment.told)]
    numbers = [replace(one, suite="neighbours") for one in rows]
    found = [cells(one) for one in results(experiment, SimpleNamespace(variants=variants, measured=numbers))]  # type: ignore[arg-type]
    assert [texts[3:] for texts in found if "castle" in texts[3]] == [
        ("25.0 (castle (to keep); base 100.0 %)", "25.0 to 25.0", "100", "**missed**"),
        ("1.0 (castle (to keep); base 100.0 %)", "1.0 to 1.0", "100", "met"),
    ]


def test_the_forest_has_each_goal_at_its_place() -> None:
    """The axis counts in limits, from -1 to 4 over 360 pixels: 25 points of a limit of 5 are cut at 4."""
    assert forest([]).count("class=") == 0
    text = forest([Bar("no neighbour loses more", "missed", 5, 25, 25, 25)])
    assert text.count('class="missed"') == 1
    assert f"M{LEFT + 360}" in text
    assert (place(5, 5), place(0, 5), place(-10, 5)) == (LEFT + 144, LEFT + 72, LEFT)
    assert place(0, 0) == LEFT + 144


def test_titles_are_kept_but_for_those_that_are_erased() -> None:
    experiment = experiments(WORDS, "church", "ink", "stamp")[-1]
    assert [[(one.erase, one.keep) for one in experiment.concepts(some)] for some in experiment.erase] == [
        [("the great wave", ("mount fuji",))],
        [("the great wave", ()), ("mount fuji", ())],
    ]
    picked = [goal.pick for goal in experiment.goals[1:]]
    roles: dict[str, Role] = {"mount fuji": "kept", "the great wave": "removed"}
    other, own = (
        [measured(f"{row}/{title}", 1, 1, "the great wave", role) for row in ("copies", "distance")]
        for title, role in roles.items()
    )
    assert [pick(one) for pick, one in zip(picked, other, strict=True)] == [True, True]
    assert not any(pick(one) for pick, one in zip(picked, own, strict=True))


def test_every_suite_is_in_some_experiment() -> None:
    """All but three: "pictures" is in "styles" too, "summary" is `unsee erase`'s, and "knowledge" the red team's."""
    found = experiments(WORDS, "church", "ink", "stamp")
    assert {name for one in found for name in one.suites} == set(suites.names()) - {"knowledge", "pictures", "summary"}


def test_every_column_of_the_plan_is_there() -> None:
    made: Any = workshop.variants(True, Hybrid())
    assert list(made) == ["default", "uce", "ESD-x, paper", "ESD-u, paper"]
    assert (made["ESD-x, paper"].select, made["ESD-u, paper"].select) == ("cross", "noncross")
    assert guards.SLD.presets["weak"]["warmup"] < STEPS  # it acts


def test_a_twin_may_be_its_denoiser_alone(tiny: Any, tmp_path: Path) -> None:
    shop = workshop.Workshop("tiny", tmp_path, {})
    with torch.no_grad():
        tiny.unet.conv_out.bias.add_(1)
        tiny.unet.save_pretrained(tmp_path / "without-church-0.05" / "unet")
        tiny.unet.conv_out.bias.sub_(1)
    edit = Edit.load(shop.twin(str(tmp_path / "without-church-0.05"), "church"))
    assert set(edit.deltas) == {f"unet.{name}" for name, _ in tiny.unet.named_parameters()}
    bias: Any = edit.deltas["unet.conv_out.bias"]
    torch.testing.assert_close(bias, torch.ones_like(bias))
    with pytest.raises(InputError, match="holds no pipeline and no unet"):
        shop.twin(str(tmp_path / "edits"), "church")


def test_a_twin_is_an_edit_that_leads_to_it(tiny: Any, tmp_path: Path) -> None:
    shop = workshop.Workshop("tiny", tmp_path, {})
    with torch.no_grad():
        tiny.unet.conv_out.bias.add_(1)
        tiny.save_pretrained(tmp_path / "twin")
        tiny.unet.conv_out.bias.sub_(1)
    edit = Edit.load(shop.twin(str(tmp_path / "twin"), "church"))
    before = tiny.unet.conv_out.bias.clone()
    with edit.applied(tiny):
        torch.testing.assert_close(tiny.unet.conv_out.bias, before + 1)
    assert torch.equal(tiny.unet.conv_out.bias, before)


ROWS = {"removed": "erased", "kept": "all others", "near/castle": "castle (near)", "near/tent": "tent (near)"}
ROWS |= {"to keep/castle": "castle (to keep)", "class/church": "church", "class/fish": "fish"}


def measured(
    key: str, before: float, after: float, variant: str = "default", role: Role = "kept", differs: bool = True
) -> Measured:
    def score(value: float) -> Score:
        return Score(value, value, value, 100)

    far = 0 if differs else 1  # an interval of no width, or of any
    change = Difference(after - before, after - before - far, after - before + far, 100, differs)
    role = "removed" if key == "removed" else role
    return Measured("objects", key, role, ROWS.get(key, key), variant, "share", score(after), score(before), change)


def lines(experiment: Any, numbers: Any) -> list[str]:
    """The goals of an experiment as lines of their table."""
    return table(list(results(experiment, numbers))).splitlines()[2:]


def found(*numbers: Measured) -> Any:
    return SimpleNamespace(variants=[SimpleNamespace(name="default", kind="edit")], measured=numbers)


def test_goals_are_judged_by_the_worst_number() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    texts = lines(experiment, found(measured("removed", 1, 0.005), measured("kept", 0.98, 0.96)))
    goal = "| erased, per cent | 54.2 (church) | <= 1 |"
    assert texts[0] == f"{goal} 0.5 (erased; base 100.0 %) | 0.5 to 0.5 | 100 | met |"
    goal = "| all others lose, points | 15.0 | <= 0.5 |"
    assert texts[1] == f"{goal} 2.0 (all others; base 98.0 %) | 2.0 to 2.0 | 100 | **missed** |"
    assert texts[2].endswith("| not measured |  |  |  |")


def test_a_goal_whose_limit_is_in_the_interval_is_inconclusive() -> None:
    """None of 100 may be one of 28, by Wilson's interval: more than one of a hundred."""
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    none = replace(measured("removed", 1, 0), score=Score(0.0, 0.0, 0.036, 100))
    line = lines(experiment, found(none))[0]
    assert line.endswith("| 0.0 (erased; base 100.0 %) | 0.0 to 3.6 | 100 | inconclusive |")


def test_goals_of_other_kinds_have_intervals() -> None:
    """Half of a base of 80 % is 50 % of base, 40 to 60 of it are 50 to 75; lost are 25 to 50."""
    one = replace(measured("unasked/watermark", 0.8, 0.4), score=Score(0.4, 0.4, 0.6, 100))
    goals = [goal for experiment in experiments(WORDS, "church", "ink", "watermark") for goal in experiment.goals]
    bounds = {goal.text: goal.quantity.bounds(one) for goal in goals}
    assert bounds["where no prompt names it, per cent of base"] == pytest.approx((50, 75))
    assert bounds["the object beside it loses, per cent of base"] == pytest.approx((25, 50))
    assert bounds["other images change (significant only), grey levels"] == pytest.approx((-0.4, -0.4))
    assert bounds["FID above seed noise (0 no, 1 yes)"] is None


def test_what_the_base_does_not_draw_is_no_goal_met() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    never = (measured("removed", 0, 0, differs=False), measured("kept", 0.004, 0))
    texts = lines(experiment, found(*never))
    assert (
        texts[0] == "| erased, per cent | 54.2 (church) | <= 1 | 0.0 (erased; base 0.0 %) | 0.0 to 0.0 | 100 | void |"
    )
    assert (
        texts[1]
        == "| all others lose, points | 15.0 | <= 0.5 | 0.4 (all others; base 0.4 %) | 0.4 to 0.4 | 100 | void |"
    )
    assert reached(list(results(experiment, found(*never)))) == (
        "Goals measured: 2. Met: 0. Missed: 0. Inconclusive: 0. Void: 2 (erased, per cent; all others lose, points)."
    )


def test_a_fall_that_is_not_significant_is_void() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]

    def state(*numbers: Measured) -> str:
        return lines(experiment, found(*numbers))[0].split(" | ")[-1]

    assert state(measured("removed", 0.02, 0, differs=False)) == "void |"
    assert state(measured("removed", 0.02, 0.02, differs=False)) == "**missed** |"
    assert state(measured("removed", 1, 0)) == "met |"


def test_a_loss_that_is_not_significant_is_inconclusive() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    texts = lines(experiment, found(measured("kept", 1, 0.99, differs=False)))
    assert texts[1].endswith("| 1.0 (all others; base 100.0 %) | -99.0 to 101.0 | 100 | inconclusive |")


def test_void_numbers_do_not_hide_others() -> None:
    """Of two objects that the edit must leave alone, the base draws one; of the other nothing can be lost."""
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]

    def line(now: float) -> str:
        numbers = measured("near/castle", 0, 0), measured("near/tent", 1, now)
        neighbours = [replace(one, suite="neighbours") for one in numbers]
        return next(text for text in lines(experiment, found(*neighbours)) if "no neighbour" in text)

    assert "0.0 (tent (near), default; base 100.0 %; 1 of 2 void) | 0.0 to 0.0 | 100 | met |" in line(1.0)
    assert "10.0 (tent (near), default; base 100.0 %; 1 of 2 void) | 10.0 to 10.0 | 100 | **missed** |" in line(0.9)


def test_what_is_reached_is_said() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    numbers = (measured("removed", 1, 0.005), measured("kept", 0.98, 0.96))
    assert reached(list(results(experiment, found(*numbers)))) == (
        "Goals measured: 2. Met: 1. Missed: 1 (all others lose, points). Inconclusive: 0. Void: 0."
    )
    assert reached([]) == ""
    undecided = reached([Result(experiment.goals[0], "inconclusive"), Result(experiment.goals[1], "met")])
    assert undecided.startswith("**This page cannot decide 1 of 2 goals: n is too small.**")


def test_edits_that_are_measured_apart_are_one_table() -> None:
    @dataclass(frozen=True)
    class Found:
        variants: tuple[Any, ...]
        measured: tuple[Measured, ...]

    (experiment,) = [one for one in experiments(WORDS, "church", "ink", "stamp") if one.name == "ten"]
    assert experiment.erase == (("church",), ("fish",))
    variant = VariantRecord("default", "edit", (), {})
    each: Any = [
        Found(
            (variant,),
            (
                measured("removed", 1, left),
                measured("kept", 0.98, 0.98),
                measured("class/church", 1, church),
                measured("class/fish", 0.9, fish),
            ),
        )
        for left, church, fish in ((0.0, 0.0, 0.88), (0.25, 0.99, 0.25))
    ]
    goals = list(results(experiment, together(experiment, each)))
    text = both(experiment, each, goals)
    assert "| church | 100.0 % | 0.0 % | 100 | 98.0 % | 98.0 % | 100 |" in text
    assert "| fish | 100.0 % | 25.0 % | 100 | 98.0 % | 98.0 % | 100 |" in text
    goal = "| each erased object, per cent | 12.6 on average | <= 1 |"
    assert f"{goal} 25.0 (erased, fish erased; base 100.0 %) | 25.0 to 25.0 | 100 | **missed** |" in text
    square = (
        "| erased | church | fish |\n|---|---:|---:|\n| church | **0.0 %** | 88.0 % |\n| fish | 99.0 % | **25.0 %** |"
    )
    assert f"{square}\n| nothing | 100.0 % | 90.0 % |" in text


def test_a_miss_is_not_hidden_by_a_larger_number_that_is_inconclusive() -> None:
    (experiment,) = [one for one in experiments({}, "church", "ink", "stamp") if one.name == "object"]
    numbers = (measured("near/tent", 1, 0.8, differs=False), measured("near/castle", 1, 0.85))
    neighbours = [replace(one, suite="neighbours") for one in numbers]
    (line,) = [text for text in lines(experiment, found(*neighbours)) if "no neighbour" in text]
    assert "15.0 (castle (near)" in line
    assert line.endswith("**missed** |")


PAGE = f"""# A page

Before.

{BEGIN}

old

{END}

## A task

| goal | the paper's figure | limit | measured, the worst | 95 % | n | goal |
|---|---|---|---|---|---|---|
| it goes, per cent | - | <= 1 | 0.0 (erased; base 100.0 %) | 0.0 to 2.9 | 128 | inconclusive |
| none is void | - | <= 1 | 0.0 (erased; base 0.0 %) | 0.0 to 0.0 | 128 | void |

|  | base | mine | uce | negative | n | unit |
|---|---:|---:|---:|---:|---:|---:|
| erased | 100.0 % (97.1 to 100.0) | **0.0 % (0.0 to 2.9) ≈** | **8.0 % (5 to 12)** | **9.0 % (5 to 12)** | 9 | share |
| others | 99.0 % (97.0 to 100.0) | 98.0 % (96.0 to 99.0) | 90.0 % (85.0 to 93.0) | 50.0 % (45 to 55) | 288 | share |
| castle | 96.0 % (90.0 to 98.0) | 40.0 % (30.0 to 50.0) | 95.0 % (90.0 to 97.0) | 90.0 % (85.0 to 93.0) | 32 | share |
| tent | 100.0 % (51.0 to 100.0) | 0.0 % (0.0 to 49.0) | 0.0 % (0.0 to 49.0) | 0.0 % (0.0 to 49.0) | 4 | share |
| change | 0 | 12.6 (9.57 to 16) | 1 (1 to 1) | 2 (1 to 3) | 288 | grey levels |

## Each against each

| erased | church | fish |
|---|---:|---:|
| church | **0.0 %** | 88.0 % |
| fish | 99.0 % | **25.0 %** |
| nothing | 100.0 % | 90.0 % |
"""


def test_the_summary_is_drawn_from_the_tables_of_the_page() -> None:
    (task,) = tasks(PAGE)
    assert task.kept
    assert task.kept.name == "others"
    assert task.worst("mine") == ("castle", (40.0, 30.0, 50.0))  # 56 points, and the tent has too few pictures
    assert task.worst("uce") == ("others", (90.0, 85.0, 93.0))
    assert bars(PAGE) == [Bar("A task: it goes, per cent", "inconclusive", 1.0, 0.0, 0.0, 2.9)]
    assert squares(PAGE)["Each against each"]["fish"] == {"church": 0.99, "fish": 0.25}
    page, plots = summarised(PAGE, "page")
    assert set(plots) == {"page-trade-off.svg", "page-goals.svg", "page-square-1.svg"}
    assert all(f"({name})" in page for name in plots)
    assert "| **A task** | base | 100.0 (97.1 to 100.0) | 99.0 (97.0 to 100.0) |  |" in page
    assert "|  | mine | 0.0 (0.0 to 2.9) | 98.0 (96.0 to 99.0) | castle: 40.0 (30.0 to 50.0) |" in page
    assert "negative |" not in page.split(END)[0], "a guard has no line in the summary, and a mark in the plot"
    assert "negative: 9.0 % still seen" in plots["page-trade-off.svg"]
    assert "old" not in page
    assert page.startswith("# A page\n\nBefore.\n\n")
    assert summarised(page, "page") == (page, plots)


def test_the_summary_of_the_documentation_is_that_of_its_tables() -> None:
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "evidence.md").read_text()
    again, plots = summarised(page, "evidence")
    assert again == page, "python -m benchmarks.evidence --draw"
    assert plots
    for name, text in plots.items():
        assert (docs / name).read_text() == text, name


def test_the_plot_of_every_variant_is_that_of_its_table() -> None:
    docs = Path(__file__).parents[1] / "docs"
    found = methods_plot.numbers((docs / "methods.md").read_text())
    assert found["LoRA, preset leco"]["neighbours"] == (70.8, 56.8, 81.8)
    assert "must go" not in found["image"], "pictures of it are not counted"
    assert (docs / "methods.svg").read_text() == methods_plot.plot(found), "python -m benchmarks.methods --draw"
