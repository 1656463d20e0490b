"""Concepts from files: what is read, what is refused, and a run that repeats without the file."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run

import unsee
from unsee.concepts import Concept, check, concepts_of, read_concepts
from unsee.edits.card import read_card
from unsee.errors import InputError
from unsee.report.preserved import preserved

FEW = ("preserve_words=8", "context_words=0", "neutral=[chair,lamp]")
UCE = ["--method", "uce", "-n", 2, "--steps", 1, *(word for setting in FEW for word in ("--set", setting))]
NAMES = ("church", "dog", "cat", "fox", "lion", "tiger", "horse", "cow", "pig", "bread", "pizza", "fish")


def test_a_text_file_has_a_concept_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(
        '\ufeff# artists\n\nchurch\n  Venice at night \n# and\n"the good, the bad"\ndog; cat\n', encoding="utf-8"
    )
    assert [concept.erase for concept in read_concepts(path)] == [
        "church", "Venice at night", "the good, the bad", "dog", "cat",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["names.csv", "names.txt", "names.CSV"])
def test_a_table_has_a_column_for_each_field(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(
        'Erase, anchor, keep, synonyms, from\nchurch, castle, "house, barn", chapel,\n\n'
        '# a note\n"a, b",,,,\ncrown,,,,cowboy\n'
    )
    assert read_concepts(path) == (
        Concept("church", anchor="castle", keep=("house", "barn"), synonyms=("chapel",)),
        Concept("a, b"),
        Concept("crown", from_="cowboy"),
    )


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "howto" / "many-concepts.md"
    (example,) = re.findall(r"```csv\n(.*?)```", page.read_text(), re.S)
    (path := tmp_path / "names.csv").write_text(example)
    assert read_concepts(path) == (
        Concept("church", anchor="castle", keep="mosque, house", synonyms="chapel"),
        Concept("dog", keep="fox, wolf"),
        Concept("van gogh"),
    )


BAD = {
    "an empty file": ("", "names.csv is empty"),
    "a header alone": ("erase,keep\n", "names.csv is empty"),
    "no header": ("church\ndog\n", "line 1: a CSV starts with the names of its columns; 'erase' is not in 'church'"),
    "a column that is none": ("erase,anchr\nchurch,\n", "line 1: unknown column 'anchr': did you mean 'anchor'?"),
    "a column twice": ("erase,keep,keep\n", "line 1: the column 'keep' is there twice"),
    "no word": ("erase,keep\nchurch,\n,dog\n", "line 3: the column 'erase' is empty"),
    "too many cells": ("erase\na,b\n", "line 2: it has 2 cells"),
    "an open quote": ('erase\n"church\n', "line 2: this is not a CSV"),
    "a word twice": ("erase\nchurch\ndog\nchurch\n", "line 4: 'church' is erased twice, there and in line 2"),
    "a word twice, spelled otherwise": ("erase\nred fox\nRed-Fox\n", "line 3: 'Red-Fox' is 'red fox', which is erased"),
    "a word and a synonym": ('erase,synonyms\na,"b,c"\nc,\n', "line 3: 'c' is erased twice, there and in line 2"),
    "erased and kept": ('erase,keep\nchurch,\ndog,"cat, church"\n', "line 3: keep holds 'church'"),
    "an anchor that is erased": (
        "erase,anchor\nfox,dog\ndog,\n",
        "line 2: anchor of 'fox' is 'dog', but 'dog' is erased",
    ),
    "an anchor that it is": ("erase,anchor\nfox,foxes\n", "line 2: anchor is 'foxes', which is the concept 'fox'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_the_entry(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (path := tmp_path / "names.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_concepts(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_hold_no_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "names.txt", tmp_path / "nowhere.csv"):
        with pytest.raises(InputError, match="cannot read words"):
            read_concepts(path)


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (
            [Concept("fox", anchor="dog"), Concept("hound", synonyms=("dogs",))],
            "anchor of 'fox' is 'dog', but 'dogs' is",
        ),
        ([Concept("fox"), Concept("Fox", anchor="dog")], "'Fox' is 'fox', which is erased twice"),
        ([Concept("fox"), Concept("hound", synonyms=("fox",))], "'fox' is erased twice"),
    ],
)
def test_concepts_must_not_contradict_each_other(concepts: list[Concept], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(concepts)


def test_concepts_that_do_not_contradict_are_accepted() -> None:
    assert check([Concept("crown", from_="cowboy"), Concept("crown", from_="king"), Concept("fox", anchor="crown")])
    assert check([Concept("glass"), Concept("glasses")])  # a word and what only looks like its plural
    assert len(concepts_of(["fox", "fox"])) == 1


def test_many_concepts_from_a_file(run: Run, tmp_path: Path) -> None:
    """A run records the concepts themselves: it repeats without the file."""
    table = tmp_path / "names.csv"
    table.write_text("erase,anchor,keep\n" + "".join(f"{x},{'castle' if x == 'church' else ''},\n" for x in NAMES[:11]))
    words = ["--concepts", "names.csv", NAMES[11], "--keep", "house", "--keep", "tree; barn", *UCE]
    code, out, err = run("erase", *words, "--out", "one")
    assert code == 0, err
    assert "12 erased objects, together" in out
    assert "... 2 more are in the page" in out  # of twelve rows, ten
    assert "preserved: house, tree, barn, because you named them; " in out
    table.unlink()
    code, _, err = run("erase", "--config", "one/run.json", "--out", "two")
    assert code == 0, err
    one, two = (read_card(tmp_path / name / "edit.safetensors") for name in ("one", "two"))
    assert one.concepts == two.concepts
    assert one.claims == two.claims
    assert {concept.erase: concept.anchor for concept in one.concepts} == {
        **dict.fromkeys(NAMES), "church": "castle",
    }  # fmt: skip
    record = json.loads((tmp_path / "one" / "run.json").read_text())
    keys = [row["key"] for row in record["evaluation"]["measured"] if row["variant"] == "edit"]
    assert {f"removed/{name}" for name in NAMES} < {*keys}
    page = (tmp_path / "one" / "index.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in NAMES)
    assert record["preserved"][0][:30] in page
    code, _, err = run("erase", "--resume", "one")
    assert code == 0, err
    assert read_card(tmp_path / "one" / "edit.safetensors") == one


FLAGS = {
    "kept by the second of two": (["--keep", "tree", "--keep", "house, dog"], "keep holds 'dog'"),
    "an anchor that the file erases": (["fox", "--anchor", "dog"], "anchor"),
    "two anchors": (["--anchor", "tree", "--anchor", "house"], "--anchor is given 2 times"),
    "a synonym for several": (["--synonym", "hound"], "--synonym and --image belong to one concept"),
    "a word that the file has": (["a dog"], "erased twice"),
    "a word that is cut": (["church " * 40], "would be cut off"),
    "a file that is none": (["@nowhere.txt"], "cannot read words from nowhere.txt"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_file_and_options_must_not_contradict_each_other(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "names.csv").write_text("erase,keep\nchurch,mosque\ndog,\n")
    words, message = FLAGS[name]
    code, _, err = run("erase", "--concepts", "names.csv", *words, *UCE)
    assert code == 2, err
    assert message in err.splitlines()[-1]
    assert not list(tmp_path.rglob("edit.safetensors"))


def test_options_fill_what_a_file_leaves_open(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("erase,anchor,keep\nchurch,castle,mosque\ndog,,\n")
    code, out, err = run("erase", "--concepts", "names.csv", "--anchor", "tree", "--keep", "house", *UCE, "--dry-run")
    assert code == 0, err
    assert "church, anchor castle, keep mosque / house; dog, anchor tree, keep house" in out


def test_python_takes_the_path_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("church\ndog\n")
    settings = {"preserve_words": 8, "context_words": 0}
    report = unsee.erase(tmp_path / "names.txt", tmp_path / "out", method="uce", settings=settings, pictures=2, steps=1)
    assert [concept.erase for concept in report.edit.card.concepts] == ["church", "dog"]


def test_the_output_names_what_is_preserved(edit: unsee.Edit) -> None:
    card = replace(edit.card, concepts=(Concept("church", keep="castle, house"),), kept=("castle", "house", "cat"))
    assert preserved(card) == ["preserved: castle, house, because you named them; cat, so that everything else stays"]
    assert preserved(replace(card, concepts=(), kept=tuple("abcde"))) == [
        "preserved: a, b, c and 2 more, so that everything else stays"
    ]
    assert preserved(replace(card, concepts=(), kept=())) == []


def test_words_that_must_stay_may_come_from_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "stay.txt").write_text("# what must stay\ncastle\nmosque, house\n")
    code, _, err = run("erase", "church", "--keep", "barn", "--keep-file", "stay.txt", "--out", "out", *UCE)
    assert code == 0, err
    concept = json.loads((tmp_path / "out" / "run.json").read_text())["config"]["concepts"][0]
    assert concept["keep"] == ["barn", "castle", "mosque", "house"]
    code, _, err = run("erase", "church", "--keep-file", "none.txt", "--out", "other")
    assert code == 2
    assert "cannot read words from none.txt" in err
    code, _, err = run("erase", "--config", "out/run.json", "--keep-file", "stay.txt", "--out", "other")
    assert (code, "name what to erase" in err) == (2, True)
