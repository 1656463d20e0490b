"""What a newcomer meets first: help, version, completion, any encoding, and one line for what does not fit."""

import io
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Run
from typer.main import get_command

import unsee
from unsee import guards, methods
from unsee.cli import allowed
from unsee.cli.main import app
from unsee.cli.terminal import forgiving
from unsee.concepts import Concept
from unsee.edits.algebra import merge
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.context import EvalContext
from unsee.evaluate.detectors import detectors_of
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Measured
from unsee.evaluate.remarks import ONLY, remarks
from unsee.evaluate.statistics import Difference, Score
from unsee.export.formats import FORMATS
from unsee.models.weights import SELECTIONS
from unsee.models.words import words_of
from unsee.report.before_after import Line, notes
from unsee.runs import evaluate as evaluation
from unsee.runs.config import EvalConfig

UCE = ["--method", "uce", "-n", 2, "--steps", 1, "--set", "preserve_words=8", "--set", "context_words=0"]


def test_the_command_without_arguments_shows_its_help(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out.count("\n") > 10
    assert "\n  erase " in out


def test_the_module_runs_and_completes() -> None:
    version = subprocess.run([sys.executable, "-m", "unsee", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"unsee {unsee.__version__}\n"
    words = {"_UNSEE_COMPLETE": "complete_bash", "COMP_WORDS": "unsee erase --method u", "COMP_CWORD": "3"}
    code = "import sys; sys.argv = ['unsee']; from unsee.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True)
    assert done.stdout.split() == ["uce"]


@pytest.mark.parametrize("name", ["erase", "import", *methods.names(), "objects"])
def test_help_explains_a_name(run: Run, name: str) -> None:
    code, out, err = run("help", name)
    assert code == 0, err
    assert name in out
    if name in methods.names():
        found = methods.find(name)
        assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= {
            *(setting.name for setting in fields(found)), *found.presets,
        }  # fmt: skip


def test_help_explains_a_method_without_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Bare:
        """What it does."""

        presets: ClassVar[dict[str, Any]] = {}

    monkeypatch.setattr(methods, "find", lambda _: Bare)
    code, out, err = run("help", "uce")
    assert (code, out) == (0, "uce: What it does.\n\nIt has no settings.\n"), err


def test_help_for_an_unknown_name_gives_the_nearest(run: Run) -> None:
    code, _, err = run("help", "evaluat")
    assert code == 2
    assert "did you mean 'evaluate'?" in err


def test_what_help_lists_is_what_the_code_has(run: Run) -> None:
    found = {name: methods.find(name) for name in methods.names()}
    assert allowed.installed("methods") == methods.names()
    assert sorted(FORMATS) == list(allowed.EXPORTS)
    assert set(allowed.PRESETS) == {preset for method in found.values() for preset in method.presets}
    assert allowed.SELECTIONS == SELECTIONS
    assert list(allowed.GUARDS) == guards.names()
    for setting, by in allowed.DEFAULTS.items():
        own = {name: getattr(method(), setting) for name, method in found.items() if hasattr(method(), setting)}
        assert {name: type(own[name])(text) for name, text in by.items()} == own
    _, erase, _ = run("erase", "--help")
    _, evaluate, _ = run("evaluate", "--help")
    for word in (*methods.names(), *allowed.PRESETS, *allowed.SELECTIONS):
        assert word in "".join(erase.split())  # lines may break at a hyphen
    for word in (*allowed.installed("suites"), *allowed.GUARDS):
        assert word in "".join(evaluate.split())


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("cp1252", b"~ ch\xe2telet \x85 ?"), ("ascii", b"~ chatelet ... ?"), ("utf-8", "≈ châtelet … ☃".encode())],
)
def test_output_survives_a_terminal_without_unicode(encoding: str, written: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    forgiving(stream)
    stream.write("≈ châtelet … ☃")
    stream.flush()
    assert raw.getvalue() == written


ELSEWHERE = {
    "a setting of other methods": (
        ["--updates", "5"],
        "uce has no setting 'updates': leave it out, or take",
    ),
    "a preset of other methods": (["--preset", "style"], "uce has no preset 'style': leave it out, or take"),
    "a preset of none": (["--preset", "papr"], "unknown preset 'papr': did you mean 'paper'?"),
    "an option as a setting": (
        ["--set", "method=lora"],
        "'method' is no setting of a method: give it as --method lora",
    ),
    "a name of no text": (["--synonym", "\udcff"], "bytes that are no text in UTF-8"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_setting_that_does_not_belong_gives_one_line(run: Run, name: str) -> None:
    words, expected = ELSEWHERE[name]
    code, _, err = run("erase", "church", "--method", "uce", *words)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_only_the_known_options_share_a_name_with_a_setting() -> None:
    options = set(get_command(app).commands["erase"].make_context("erase", [], resilient_parsing=True).params)  # type: ignore[attr-defined]
    own = {setting.name for name in methods.names() for setting in fields(methods.find(name))}
    assert options & own == {"select", "eta", "updates", "lr", "budget", "batch"}


def test_a_wrong_format_is_reported_before_heavy_imports() -> None:
    code = (
        "import sys; from unsee.cli import main as cli\n"
        "sys.argv = ['unsee', 'export', 'edit.safetensors', '--to', 'kohya']\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert "did you mean 'kohya-lora'?" in done.stderr


def test_a_dry_run_names_the_run(run: Run) -> None:
    code, out, err = run("erase", "church", *UCE, "--dry-run", "--seed", 3)
    assert code == 0, err
    again = ["unsee", "erase", "church", *map(str, UCE), "--seed", "3"]
    assert out.splitlines()[-1] == f"next: {shlex.join(again)}"


def test_nothing_measured_is_a_failure(run: Run) -> None:
    code, out, err = run("evaluate", "tiny", "--suite", "pictures", "-n", 2, "--steps", 1)
    assert code == 1, out
    assert (
        "nothing was measured: pictures: no concept is named: name one with --concept; to repeat it, add --force" in err
    )
    code, _, err = run("evaluate", "tiny", "--suite", "pictures", "-n", 2, "--steps", 1)
    assert code == 2
    assert "holds a run already: --force starts over" in err
    assert "--resume" not in err  # which only erase has
    code, _, err = run("show", "runs")
    assert code == 2
    assert "runs is a folder" in err
    for name in ("edit-comfy.safetensors", "edit.safetensors"):
        Path("runs", name).write_bytes(b"")
    assert "such as runs/edit.safetensors" in run("show", "runs")[2]


def test_names_are_read_from_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffchurch\n\ncastle\n", encoding="utf-8")
    code, out, err = run("erase", "@names.txt", *UCE, "--dry-run")
    assert code == 0, err
    assert "church; castle" in out
    code, _, err = run("erase", "names.txt", *UCE, "--dry-run")
    assert code == 2
    assert "names.txt is a file: write @names.txt to read its words" in err
    code, _, err = run("erase", "@other.txt", *UCE, "--dry-run")
    assert code == 2
    assert "cannot read words from other.txt" in err


def test_a_missing_detector_is_reported_before_the_model_loads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unsee.runs.configure.open_model", lambda *_, **__: pytest.fail("the model was read"))
    for words in (
        ["erase", "church", "--detector", "objects=./nowhere"],
        ["evaluate", "tiny", "--suite", "objects", "--detector", "objects=./nowhere"],
        ["reproduce", "objects", "--model", "tiny", "--detector", "./nowhere"],
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "cannot load the detector ./nowhere" in err
        assert "give another with --detector" in err


def test_counts_of_one_are_in_the_singular(edit: unsee.Edit) -> None:
    with pytest.raises(InputError, match="2 edits and 1 weight: give one weight for each edit"):
        merge([edit, edit], [1.0])


def test_a_typo_and_a_plural_are_reported_and_pictures_need_no_guidance(run: Run, tmp_path: Path) -> None:
    """Few-step models are drawn without guidance; recorded runs have their own."""
    code, out, err = run("erase", "chruch; Chapels", "--guidance", 1, *UCE, "--out", "out")
    assert code == 0, err
    assert "no detector has a word for 'chruch'; the nearest is 'church'" in out
    assert "'Chapels' is counted as 'church', but only the name 'Chapels' is erased" in out
    html = (tmp_path / "out" / "index.html").read_text()
    assert "the nearest is &#39;church&#39;" in html
    assert "guidance 1.0" in html


def asked(tiny: Any, *concepts: Concept, kinds: tuple[str, ...] = ("objects", "styles", "watermark")) -> list[Question]:
    detectors = {kind: detector for kind, detector in detectors_of(tiny).items() if kind in kinds}
    return suites.find("summary").ask(EvalContext(tiny, detectors, words_of(tiny), concepts, 2, 0))


def test_a_name_of_a_label_counts_as_that_label_and_not_as_damage(tiny: Any) -> None:
    rows = {question.name: question for question in asked(tiny, Concept("Chapels"))}
    assert set(rows["Chapels"].labels) == {"church"}
    assert rows["Chapels"].detector == "objects"
    assert {shot.prompt for shot in rows["Chapels"].shots} == {"Chapels"}
    assert rows["Chapels, asked for as church"].role == "removed"
    assert "church" not in rows["everything else"].labels


@pytest.mark.parametrize(
    ("concept", "row", "detector"),
    [
        (Concept("neon", from_="church"), "neon style on church", "styles"),
        (Concept("church", from_="neon style"), "church in neon style", "objects"),
        (Concept("neon", from_="church in neon style"), "neon style on church", "styles"),
        (Concept("watermark", from_="cat"), "watermark on cat", "watermark"),
        (Concept("cross", from_="church"), "cross on church", None),
        (Concept("church in neon style"), "church in neon style, seen as neon", "styles"),
        (Concept("xyzzy"), "xyzzy", None),
        (Concept("neon"), "neon style", "styles"),
    ],
)
def test_every_table_has_a_row_that_can_fail(tiny: Any, concept: Concept, row: str, detector: str | None) -> None:
    found = {question.name: question for question in asked(tiny, concept)}
    assert found[row].role == "removed"
    assert found[row].detector == detector
    assert detector or found[row].note
    assert any(question.role != "removed" for question in found.values())
    assert len({question.key for question in found.values()}) == len(found)


def test_a_style_is_counted_without_a_detector_of_objects(tiny: Any) -> None:
    found = {question.name: question for question in asked(tiny, Concept("NEON"), kinds=("styles",))}
    assert set(found["NEON style"].labels) == {"neon"}
    assert found["other styles"].role == "style"


def test_names_that_are_labels_need_no_remark(tiny: Any) -> None:
    detectors, words = detectors_of(tiny), words_of(tiny)
    assert remarks([Concept("CHURCH", synonyms=("churches",)), Concept("the neon style")], detectors) == [
        "'churches' is counted as 'church'"
    ]
    assert remarks([Concept("church", synonyms=("chapel", "churches", "chapels"))], detectors, words) == [
        "'chapel' is counted as 'church'",
        "'churches' is counted as 'church'",
        "'chapels' is counted as 'church'",
    ]


def test_a_plural_that_is_not_named_is_reported(tiny: Any) -> None:
    detectors, words = detectors_of(tiny), words_of(tiny)

    def said(*names: str, kinds: Any = detectors) -> list[str]:
        found = remarks([Concept(names[0], synonyms=names[1:])], kinds, words)
        return [shlex.split(one)[-1] for one in found if "`synonyms`" in one and "plural" in one]

    assert said("church") == ["churches"]
    assert said("The Church", "chapel") == ["churches, chapels"]
    assert said("church", "churches") == said("churches") == said("neon") == said("watermark") == []
    assert said("corn") == said("ice cream") == said("thinking") == []
    for name in ("church", "van gogh", "nudity"):  # no detector knows which of them are things
        assert remarks([Concept(name)], {}) == [ONLY.format(repr(name))]
    assert remarks([Concept("hat", from_="church")], detectors, words) == []


def test_what_is_not_counted_is_compared_with_what_stays() -> None:
    def row(name: str, removed: bool, change: float, before: float | None = None) -> Line:
        def one(key: str, row: str, unit: str, value: float) -> Measured:
            score, same, role = Score(value, 0, 1, 4), Difference(0, 0, 0, 4, False), "removed" if removed else "kept"
            return Measured("summary", key, role, row, "edit", unit, score, score, same, name=name)  # type: ignore[arg-type]

        share = None if before is None else one(name, name, "share", before)
        return Line(share, one(f"{name}/change", f"{name}: picture change", "grey levels", change))

    (one,) = notes([row("crown on cowboy", True, 2.0), row("rest", False, 3.0), row("more", False, 1.0)])
    assert one.startswith("crown on cowboy: not counted")
    assert one.endswith("change by 2.0 grey levels, others by 2.0: no more than others, so nothing seems to be erased")
    (two,) = notes([row("crown on cowboy", True, 9.0), row("rest", False, 3.0, 1.0)])
    assert two.endswith("change by 9.0 grey levels, others by 3.0")
    (three,) = notes([row("churches", True, 9.0, 0.0)])
    assert "the base model draws none" in three


def test_what_is_named_at_evaluation_is_what_an_edit_erases(edit: unsee.Edit, tmp_path: Path) -> None:
    other = replace(edit, card=replace(edit.card, concepts=()))
    files = [str(edit.save(tmp_path / "known.safetensors")), str(other.save(tmp_path / "imported.safetensors"))]

    def erased(*words: str) -> list[list[str]]:
        config = EvalConfig(model="tiny", suites=("pictures",), edits=tuple(files), concepts=words)
        bench = evaluation.prepare(config)
        return [[concept.erase for concept in variant.concepts] for variant in bench.variants[1:]]

    assert erased() == [["church"], []]
    assert erased("church", "dog") == [["church"], ["church", "dog"]]
    assert erased("dog") == [["dog"], ["dog"]]  # no card says so, but the user


def test_many_concepts_are_counted_together(tiny: Any) -> None:
    """A row for each kind of detector and one for each name that it knows; each name at least once, however many."""
    labels = detectors_of(tiny)["objects"].labels[:12]
    concepts = [Concept(word) for word in (*labels, "neon", "ink", *(f"artist {k}" for k in range(90)))]
    found = {question.name: question for question in asked(tiny, *concepts)}
    assert set(found["12 erased objects, together"].labels) == set(labels)
    assert set(found["2 erased styles, together"].labels) == {"neon", "ink"}
    assert set(found[labels[0]].labels) == {labels[0]}
    assert set(found["neon style"].labels) == {"neon"}
    unknown = found["90 erased names, together"]
    assert len({shot.prompt for shot in unknown.shots}) == 90
    assert unknown.note == "not measured: no detector has a word for artist 0; artist 1; artist 2 ..."
    assert not set(found["everything else"].labels) & set(labels)
    assert len({shot for question in found.values() for shot in question.shots}) < 300
    assert len(remarks(concepts, detectors_of(tiny))) == 3
