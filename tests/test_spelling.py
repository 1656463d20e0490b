"""Words that name one thing however they are spelled, lists of words, and what may not be kept."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Run

import unsee
from unsee.concepts import Concept, check, concepts_of
from unsee.errors import InputError
from unsee.evaluate.words import known
from unsee.methods.prompts import preserved_words
from unsee.runs.config import build
from unsee.spelling import listed, lookup, nearest, plural, plurals, same

LABELS = {
    label: label
    for label in ("church", "truck", "English springer", "bus", "knife", "kit", "cube", "woman", "neon", "city")
}
WORDS = {
    "objects": {
        "church": {"group": "place", "synonyms": ["chapel"], "languages": {"de": "Kirche", "fr": "\u00e9glise"}},
        "dragon": {"group": "creature", "synonyms": ["wyvern"], "languages": {}},
    },
    "memorised": {"the great wave": ["the great wave off kanagawa"]},
    "imagenette": {"garbage truck": "truck"},
    "stamp": {"names": ["stamped"], "domains": []},
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("church", ["church"]),
        ("church, castle", ["church", "castle"]),
        ("church; castle;", ["church", "castle"]),
        (' "the good, the bad" ; castle,', ["the good, the bad", "castle"]),
        ('5" disc, vinyl', ['5" disc', "vinyl"]),
        ("a,,b", ["a", "b"]),
        (" , ", []),
    ],
)
def test_a_text_lists_words(text: str, words: list[str]) -> None:
    assert listed(text) == words


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("CHURCH", "church"), ("the church", "church"), ("churches", "church"), ("Chapels", "church"),
        ("kirche", "church"), ("e\u0301glise", "church"),  # an accent as a letter of its own
        ("Garbage Truck", "truck"), ("english-springer", "English springer"), ("buses", "bus"), ("knives", "knife"),
        ("women", "woman"), ("Neon style", "neon"), ("cities", "city"), ("wyvern", "dragon"),
        ("Great Wave off Kanagawa", "the great wave"), ("stamped", "stamp"),
        ("kite", None), ("cub", None), ("chruch", None), ("man", None),
    ],
)  # fmt: skip
def test_one_label_stands_for_a_name_however_it_is_spelled(word: str, label: str | None) -> None:
    assert lookup(word, known(WORDS, LABELS)) == label


def test_the_exact_name_goes_first() -> None:
    names = {"Glasses": "spectacles", "glass": "tumbler", "glasses": "eyewear"}
    assert [lookup(word, names) for word in ("glasses", "Glasses", "GLASS")] == ["eyewear", "spectacles", "tumbler"]
    assert same("wolves", "wolf")
    assert not same("wolf", "fox")


def test_a_typo_has_a_nearest_name_and_nonsense_none() -> None:
    assert nearest("chruch", LABELS) == "church"
    assert nearest("xyzzy", LABELS) is None


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        ([Concept("church", keep=("castle", "Churches"))], "keep holds 'Churches', but 'church' must change"),
        ([Concept("church", synonyms=("chapel",), keep=("chapel",))], "keep holds 'chapel'"),
        ([Concept("church"), Concept("castle", keep=("church",))], "keep holds 'church'"),
        ([Concept("crown", from_="cowboy", keep=("cowboy",))], "keep holds 'cowboy'"),
        ([Concept("church", keep=("kirche",))], "keep holds 'kirche'"),
        ([Concept("church", anchor="a church")], "anchor is 'a church'"),
        ([Concept("hat", from_="hats")], "from is 'hats'"),
    ],
)
def test_an_erased_word_cannot_be_kept(concepts: list[Concept], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(concepts, known(WORDS))


def test_what_is_taken_from_one_thing_may_stay_elsewhere() -> None:
    assert check([Concept("crown", from_="cowboy", keep=("crown",))])


def test_concepts_may_be_texts() -> None:
    assert concepts_of("church, castle") == (Concept("church"), Concept("castle"))
    assert concepts_of(["church; dog", Concept("a, b")]) == (Concept("church"), Concept("dog"), Concept("a, b"))
    assert Concept("church", keep="castle, house,").keep == ("castle", "house")
    for nothing in ("", " ", [], "church\udcff"):
        with pytest.raises(InputError):
            concepts_of(nothing)


@pytest.mark.parametrize("given", ["church, castle", ["church", {"erase": "castle"}], {"erase": "church"}])
def test_a_file_may_name_concepts_as_words(given: object) -> None:
    first, *rest = build({"concepts": given, "model": Path("mini")}).concepts
    assert first == Concept("church")
    assert rest in ([], [Concept("castle")])


def test_a_plural_keeps_no_singular() -> None:
    """Neutral words stay unless a concept is one of them in the plural."""
    assert preserved_words([Concept("Cats")], ("cat", "dog")) == ["dog"]


def test_python_takes_words_and_paths(pipe: Any, tiny_folder: Path) -> None:
    quick = {"record_steps": 2, "updates": 1, "batch": 2, "runs": 2, "keep_runs": 1, "held_out": 0}
    quick |= {"preserve_words": 8, "context_words": 0}
    edit = unsee.Hybrid(**quick, neutral=("cat",))(pipe, "church, castle")  # type: ignore[arg-type]
    assert [concept.erase for concept in edit.card.concepts] == ["church", "castle"]
    assert unsee.load(tiny_folder).unet.config.sample_size == unsee.load(str(tiny_folder)).unet.config.sample_size


def test_one_rule_for_concepts_and_keep(run: Run, tmp_path: Path) -> None:
    quick = ["--method", "uce", "-n", 2, "--steps", 1, "--set", "preserve_words=8", "--set", "context_words=0"]
    code, _, err = run("erase", "church, castle", "--keep", "house; dog,", *quick, "--out", "out")
    assert code == 0, err
    concepts = unsee.Edit.load(tmp_path / "out" / "edit.safetensors").card.concepts
    assert [(concept.erase, concept.keep) for concept in concepts] == [
        ("church", ("house", "dog")),
        ("castle", ("house", "dog")),
    ]
    code, _, err = run("erase", "church", "--keep", "chapel", *quick, "--out", "other")  # the words list knows it
    assert code == 2
    assert "keep holds 'chapel'" in err
    assert not (tmp_path / "other").exists()


def test_a_concept_that_is_listed_twice_is_erased_once() -> None:
    assert [concept.erase for concept in concepts_of("church, castle, church")] == ["church", "castle"]


def test_a_plural_is_one_of_those_that_are_understood() -> None:
    words = {
        "church": "churches", "city": "cities", "woman": "women", "human": "humans", "box": "boxes", "ox": "oxen",
        "bus": "buses", "leaf": "leaves", "wolf": "wolves", "knife": "knives", "giraffe": "giraffes", "roof": "roofs",
        "photo": "photos", "key": "keys", "cactus": "cacti", "mouse": "mice", "gas pump": "gas pumps",
    }  # fmt: skip
    assert {word: plural(word) for word in words} == words
    assert all(many in plurals(word) for word, many in words.items())
