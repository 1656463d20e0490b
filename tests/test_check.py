"""unsee check: what holds, by hand, and the command with its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run

import unsee
from unsee.errors import InputError
from unsee.evaluate.checked import ABSENT, PRESENT, Word
from unsee.evaluate.detectors import Detector
from unsee.evaluate.statistics import rate
from unsee.runs import check as checking
from unsee.runs.check import check, rule


def test_whether_a_word_holds_depends_on_the_end_of_its_interval() -> None:
    """Wilson by hand: of 48, none has an upper end of z^2 / (n + z^2) = 7.4 %; 40 a lower end of 70.4 %, 39 of 68.1."""

    def holds(wanted: str, hits: int, limit: float) -> bool:
        return Word("x", wanted, "a x", "x", rate([True] * hits + [False] * (48 - hits)), limit).holds

    assert [holds(ABSENT, hits, 0.1) for hits in (0, 1)] == [True, False]
    assert [holds(PRESENT, hits, 0.7) for hits in (40, 39)] == [True, False]
    assert rate([False] * 48).high == pytest.approx(1.96**2 / (48 + 1.96**2), abs=1e-4)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "name what must not be drawn or must still be drawn"),
        ({"absent": ("church",), "present": ("church",)}, "'church' cannot be both"),
        ({"absent": ("church",), "n": 20}, "n = 20 is too small: 0 hits have the upper bound 16.1 %"),
        ({"present": ("dog",), "n": 4}, "n = 4 is too small: 4 hits have the lower bound 51.0 %"),
        ({"absent": ("church",), "at_most": 1.5}, "at_most: "),
    ],
)
def test_a_rule_by_which_nothing_could_hold_is_refused(values: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        rule(**values)


def test_check_draws_with_the_model_and_its_edits(
    edit: unsee.Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that takes every picture for a dog: a church is absent, a dog is present."""
    dogs = Detector(
        "dogs",
        ("church", "dog"),
        0.0,
        lambda some: torch.tensor([[0.0, 1.0]] * len(some)),
        lambda some: torch.zeros(len(some), 1),
    )
    monkeypatch.setattr(checking, "detectors_of", lambda *_, **__: {"objects": dogs})
    asked = rule(absent=("church",), present=("dog",), n=2, at_most=0.9, at_least=0.1, steps=1)
    plain = check("tiny", asked)
    path = edit.save(tmp_path / "church.safetensors")
    edited = check("tiny", asked, edits=[path])
    assert [(one.word, one.score.value, one.holds) for one in plain.words] == [("church", 0, True), ("dog", 1, True)]
    assert plain.passed
    assert edited.edits == ({"name": "church", "method": "hybrid", "hash": edit.fingerprint()},)
    assert plain.model["hash"] != edited.model["hash"]
    assert check("tiny", asked, edits=[path]) == edited
    assert not check("tiny", asked.model_copy(update={"absent": ("dog",), "present": ()})).passed


def test_the_exit_code_says_whether_all_words_hold(run: Run, edit: unsee.Edit, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "church.safetensors")
    words = ("check", "tiny", "--edit", path, "-n", "2", "--steps", "1", "--at-most", "0.9")
    code, out, err = run(*words, "--absent", "church", "--out", "church.json")
    assert code == 0, err
    assert "holds" in out
    found = json.loads(Path("church.json").read_text())
    assert found["passed"] is True
    assert [one["wanted"] for one in found["words"]] == ["absent"]
    code, _, err = run(*words, "--present", "dog, castle", "--at-least", "0.3")
    assert code == 1
    assert "unsee: dog is not present; castle is not present" in err
    code, _, err = run(*words, "--absent", "zzzz")
    assert code == 2
    assert "no detector counts 'zzzz'" in err
    assert err.count("\n") == 1
    code, _, err = run("check", "tiny")
    assert code == 2
