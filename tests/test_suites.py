"""Suites on a world whose pictures and detectors are known, so that every number can be worked out by hand."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image
from torch import nn

from unsee.concepts import Concept
from unsee.errors import InputError
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, Memory
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.detectors import Detector
from unsee.evaluate.records import Answer, Measured
from unsee.evaluate.render import Sampling
from unsee.evaluate.run import Outcome, base, run
from unsee.evaluate.suites import Suite
from unsee.evaluate.suites import memorised as memorised_suite
from unsee.evaluate.suites import neighbours as neighbours_suite
from unsee.evaluate.suites import partial as partial_suite
from unsee.evaluate.suites import summary as summary_suite
from unsee.evaluate.suites.many import each
from unsee.evaluate.suites.table import from_csv
from unsee.models.weights import temporary_values
from unsee.report import before_after
from unsee.report.tradeoff import by_suite

OBJECTS = ("church", "castle", "dog", "pizza", "fish")
STYLES = ("ink", "neon")
NOWHERE = 200
"""The grey level of what is not there."""

WORDS = {
    "objects": {
        "church": {"group": "place", "synonyms": ["chapel"], "languages": {"de": "kirche"}, "parts": []},
        "castle": {"group": "place", "synonyms": [], "languages": {}, "parts": []},
        "dog": {"group": "animal", "synonyms": ["hound"], "languages": {"de": "hund"}, "parts": []},
        "pizza": {"group": "food", "synonyms": [], "languages": {}, "parts": []},
        "fish": {"group": "animal", "synonyms": [], "languages": {}, "parts": []},
    },
    "styles": list(STYLES),
    "memorised": {"the great wave": ["wave"], "mount fuji": ["fuji"]},
    "stamp": {"names": ["stamp"], "domains": ["animal", "food"]},
    "imagenette": {"church": "church", "tench": "fish"},
    "scene": "{} and {}",
}
OTHER_NAMES = {"chapel": "church", "kirche": "church", "hound": "dog", "hund": "dog"}


class Pipe:
    """Draws one colour a thing: red says which object, green which style, blue whether a stamp is on it.

    A stamp is on every animal and food. `gone` are words that are no longer understood, `calls` sizes of batches.
    """

    def __init__(self) -> None:
        self.unet: Any = nn.Linear(2, 2)
        self.unet.config = FrozenDict(sample_size=8, guidance_embeds=True)  # the scale is nothing to it
        self.components = {"unet": self.unet}
        self.scheduler = SimpleNamespace(config={})
        self.vae_scale_factor = 1
        self.gone: set[str] = set()
        self.calls: list[int] = []

    def __call__(
        self, prompt: list[str], generator: Any, width: int = 8, height: int = 8, guidance_scale: float = 1.0, **_: Any
    ) -> Any:
        self.calls.append(len(prompt))
        return SimpleNamespace(images=[self.draw(text, width, height) for text in prompt])

    def draw(self, text: str, width: int, height: int) -> Image.Image:
        parts = [self.colour(part) for part in text.split(" and ")]
        picture = Image.new("RGB", (width, height))
        for k, colour in enumerate(parts):
            picture.paste(colour, (k * width // len(parts), 0, (k + 1) * width // len(parts), height))
        return picture

    def colour(self, text: str) -> tuple[int, int, int]:
        words = text.split()
        if text in WORDS["memorised"]:
            return (NOWHERE, NOWHERE, 40 * (1 + list(WORDS["memorised"]).index(text)) * (text not in self.gone))
        known = [OTHER_NAMES.get(word, word) for word in words if word not in self.gone]
        thing = next((OBJECTS.index(word) for word in known if word in OBJECTS), NOWHERE)
        style = next((STYLES.index(word) for word in known if word in STYLES), NOWHERE)
        unasked = thing < len(OBJECTS) and WORDS["objects"][OBJECTS[thing]]["group"] in ("animal", "food")
        return (thing, style, int((unasked or "stamp" in words) and "stamp" not in self.gone))

    @contextmanager
    def without(self, *words: str) -> Iterator[None]:
        self.gone = set(words)
        try:
            yield
        finally:
            self.gone = set()


def detector(channel: int, labels: tuple[str, ...]) -> Detector:
    """Sees the label whose number is the grey level of a channel at a picture's corner."""

    def levels(pictures: Sequence[Image.Image]) -> torch.Tensor:
        return torch.tensor([[float(picture.getpixel((0, 0))[channel])] for picture in pictures])  # type: ignore[index]

    return Detector(
        f"channel {channel}",
        labels,
        0.9,
        lambda some: (20.0 * (levels(some) == torch.arange(len(labels)))).softmax(-1),
        lambda some: levels(some) * torch.tensor([1.0, 2.0]),
    )


def world(words: Any = WORDS, concepts: tuple[str, ...] = ("church",), n: int = 4, **options: Any) -> EvalContext:
    detectors = {
        "objects": detector(0, OBJECTS),
        "styles": detector(1, STYLES),
        "stamp": detector(2, ("clean", "stamp")),
    }
    return EvalContext(Pipe(), detectors, words, tuple(map(Concept, concepts)), n, 0, **options)


def measure(suite: str | Suite, tmp_path: Path, where: EvalContext, *gone: str, **options: Any) -> Outcome:
    """The base, and a variant in which the words `gone` are no longer understood."""
    concepts = where.concepts
    edit = Variant("edit", "edit", f"without {gone}", concepts, lambda pipe: pipe.without(*gone))
    chosen = suites.find(suite) if isinstance(suite, str) else suite
    return run(where, [chosen], [base(concepts), edit], Sampling(1, 2.0), Cache(tmp_path / "cache"), **options)


def rows(outcome: Outcome, variant: str = "edit") -> dict[str, float]:
    return {one.row: one.score.value for one in outcome.measured if one.variant == variant}


def test_the_suite_objects_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    outcome = measure("objects", tmp_path, world(), "church")
    assert rows(outcome) == {"erased": 0, "all others": 1, "church": 0, "fish": 1}
    assert set(rows(outcome, "base").values()) == {1}
    erased = next(one for one in outcome.measured if one.variant == "edit" and one.row == "erased")
    assert erased.expect_removed
    assert erased.role == "removed"
    assert erased.base is not None
    assert (erased.score.n, erased.base.value) == (4, 1)
    # Four of four lost: 2 / 2^4 = 0.125, not yet a difference.
    assert erased.difference is not None
    assert (erased.difference.value, erased.difference.differs) == (-1, False)
    assert (
        Answer("objects", "class/church", "church", "edit", "an image of a church", 2, "church", "none of these")
        in outcome.answers
    )
    assert len(outcome.answers) == 2 * (4 + 2)  # what stays has a quarter of the pictures, at least two
    assert not any(one.expect_removed for one in outcome.measured if one.variant == "base")


def test_the_suite_summary_gives_the_numbers_known_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Church is gone and castle with it; of what was to be preserved, and of everything else, nothing changes."""
    monkeypatch.setattr(summary_suite, "nearest", lambda pipe, words, labels: ["castle"])
    where = world(n=6, kept=("dog",))
    outcome = measure("summary", tmp_path, where, "church", "castle")
    by = {one.key: one for one in outcome.measured if one.variant == "edit"}
    shares = {key: (one.role, one.score.value, one.score.n) for key, one in by.items() if one.unit == "share"}
    assert shares == {
        "removed/church": ("removed", 0, 6),
        "removed in styles/church": ("removed", 0, 6),
        "neighbours/church": ("neighbour", 0, 6),
        "preserved": ("kept", 1, 6),
        "everything else": ("kept", 1, 6),
        "styles": ("style", 1, 6),
    }
    assert all(one.base is not None and one.base.value == 1 for one in by.values() if one.unit == "share")
    change = by["removed/church/change"]
    assert (change.row, change.unit, change.role) == ("church: picture change", "grey levels", "removed")
    assert not change.expect_removed  # it grows
    assert change.score.value == pytest.approx(200 / 3)  # red goes from 0 to NOWHERE
    assert by["everything else/change"].score.value == 0
    church = by["removed/church"]
    assert church.difference is not None
    assert (church.difference.value, church.difference.differs) == (-1, True)  # six of six: 2 / 2^6 < 0.05
    assert len(outcome.answers) == 2 * 6 * 6


def test_many_concepts_have_a_row_each_worst_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of church, dog and pizza the church alone is gone, and the castle with it; the fish stays."""
    monkeypatch.setattr(summary_suite, "nearest", lambda pipe, words, labels: ["fish", "castle"])
    monkeypatch.setattr(summary_suite, "MANY", 2)
    where = world(concepts=("church", "pizza", "dog"), n=6)
    outcome = measure("summary", tmp_path, where, "church", "castle")
    by = {one.key: one for one in outcome.measured if one.variant == "edit" and one.unit == "share"}
    found = [(key, one.role, one.score.value, one.score.n) for key, one in by.items()]
    assert found[:7] == [
        ("removed together/objects", "removed", pytest.approx(2 / 3), 18),
        ("removed/dog", "removed", 1, 6),
        ("removed/pizza", "removed", 1, 6),
        ("removed/church", "removed", 0, 6),
        ("neighbours/all", "neighbour", 0.5, 12),
        ("neighbour/castle", "neighbour", 0, 6),
        ("neighbour/fish", "neighbour", 1, 6),
    ]
    looked = [answer for answer in outcome.answers if answer.variant == "edit" and answer.wanted == "church"]
    assert len({(answer.prompt, answer.seed) for answer in looked}) == len(looked)  # no picture is there twice
    lines = before_after.lines(outcome.measured, "edit")
    assert before_after.verdict(lines) == (
        "3 erased objects, together: 100 % before, 67 % after; most seen after: dog 100 %, pizza 100 %."
    )
    cut = before_after.cut(lines, 1)
    assert [line if isinstance(line, str) else line.key for line in cut][:6] == [
        "removed together/objects", "removed/dog", "... 2 more are in the page",
        "neighbours/all", "neighbour/castle", "... 1 more is in the page",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "count", "pictures"), [(48, 9, 21), (48, 20, 9), (48, 100, 4), (8, 100, 4), (2, 100, 2), (48, 1, 48)]
)
def test_pictures_of_many_rows_are_few_each(n: int, count: int, pictures: int) -> None:
    """4 n for all rows together, 4 at least for each, and never more than n."""
    assert each(n, count) == pictures


def test_what_one_edit_removes_another_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_suite, "nearest", lambda pipe, words, labels: ["castle"])
    where = world(concepts=("church", "dog"))
    edits = [
        Variant(word, "edit", word, (Concept(word),), lambda pipe, word=word: pipe.without(word))
        for word in ("church", "dog")
    ]
    variants = [base(where.concepts), *edits]
    outcome = run(where, [suites.find("summary")], variants, Sampling(1, 2.0), Memory())
    roles = {(one.variant, one.key): one.role for one in outcome.measured if one.unit == "share"}
    assert [roles[variant, "removed/church"] for variant in ("base", "church", "dog")] == ["removed", "removed", "kept"]
    assert [roles[variant, "removed/dog"] for variant in ("base", "church", "dog")] == ["removed", "kept", "removed"]


def test_the_suite_styles_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    outcome = measure("styles", tmp_path, world(concepts=("neon",)), "neon")
    found = rows(outcome)
    assert found == {
        "erased styles": 0, "other styles": 1, "subject of erased styles": 1, "subject of other styles": 1,
        "ink": 1, "subject in ink": 1, "neon": 0, "subject in neon": 1,
        "erased styles: picture change": pytest.approx((200 - 1) / 3), "other styles: picture change": 0,
    }  # fmt: skip
    assert rows(outcome, "base")["neon, where no style is named"] == 0  # the base alone is asked


def test_an_erased_object_in_every_style(tmp_path: Path) -> None:
    found = rows(measure("styles", tmp_path, world(), "church"))
    assert found["church, in every style"] == 0
    assert found["other styles"] == 1


def test_the_suite_implicit_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    """The pipeline puts a stamp on every animal and food, unasked."""
    outcome = measure("implicit", tmp_path, world(concepts=("stamp",)), "stamp")
    before, after = rows(outcome, "base"), rows(outcome)
    assert before["stamp, unasked"] == before["stamp on animal"] == before["stamp, asked for"] == 1
    assert after["stamp, unasked"] == after["stamp on animal"] == after["stamp, asked for"] == 0
    assert after["what the prompts name"] == 1
    assert not any("stamp" in answer.prompt for answer in outcome.answers if answer.row == "stamp on animal")


def test_two_detectors_of_one_thing_have_rows_of_their_own(tmp_path: Path) -> None:
    """One of them sees no stamp on pizza: rows name its kind, and count where the two disagree."""
    where = world({**WORDS, "other": WORDS["stamp"]}, concepts=("stamp",))
    first = where.detectors["stamp"]
    assert isinstance(first, Detector)

    def blind(pictures: Sequence[Image.Image]) -> torch.Tensor:
        pizza = torch.tensor([picture.getpixel((0, 0))[0] == OBJECTS.index("pizza") for picture in pictures])  # type: ignore[index]
        return torch.where(pizza[:, None], torch.tensor([1.0, 0.0]), first.look(pictures))

    where = replace(where, detectors={**where.detectors, "other": replace(first, look=blind)})
    before = rows(measure("implicit", tmp_path, where, "stamp"), "base")
    assert (before["stamp on food"], before["stamp by other on food"]) == (1, 0)
    assert before["stamp and other disagree: stamp by other on food"] == 1
    assert before["stamp and other disagree: stamp by other on animal"] == 0


def test_the_suite_neighbours_gives_the_numbers_known_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_suite, "nearest", lambda pipe, word, labels: ["castle"])
    found = rows(measure("neighbours", tmp_path, world(n=16), "church", "castle", "dog"))
    assert found["castle (near)"] == found["nearest texts"] == found["dog"] == 0
    assert found["all other objects"] == pytest.approx(2 / 3)  # dog is lost, pizza and fish stay


def test_words_to_keep_have_rows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_suite, "nearest", lambda pipe, word, labels: ["castle", "dog"])
    where = replace(world(n=16), concepts=(Concept("church", keep=("hound", "castle")),))
    outcome = measure("neighbours", tmp_path, where, "church", "castle")
    n = {one.row: one.score.n for one in outcome.measured if one.variant == "edit"}
    assert (n["castle (to keep)"], n["dog (to keep)"], n["all other objects"]) == (16, 16, 4)
    assert (rows(outcome)["castle (to keep)"], rows(outcome)["dog (to keep)"]) == (0, 1)
    assert not any(row.endswith("(near)") for row in n)


def test_the_suite_paraphrase_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    """Erased by its name only, the thing is still found under others."""
    found = rows(measure("paraphrase", tmp_path, world(names=("chapel", "church")), "church", "kirche"))
    assert found == {"synonyms of church": 1, "church in other languages": 0, "other names of church": 0.5}


def test_a_concept_by_another_name_is_the_object_it_names(tmp_path: Path) -> None:
    assert rows(measure("objects", tmp_path, world(concepts=("kirche",)), "church"))["erased"] == 0


def test_the_suite_partial_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    outcome = measure("partial", tmp_path, world(), "church")
    assert rows(outcome, "base")["church, probability"] == pytest.approx(1, abs=1e-6)
    assert rows(outcome)["church, probability"] == pytest.approx(1 / 5)  # no label stands out among five
    note = next(one.note for one in outcome.measured if one.variant == "edit")
    assert note == "seen as none of these 4"


def test_a_part_of_the_erased_object_that_is_left_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A church that is drawn as a castle has gone as a church; of a part that no detector knows nothing is said."""
    monkeypatch.setattr(partial_suite, "GUESSES", 1)
    church = {**WORDS["objects"]["church"], "parts": ["castle", "steeple"]}
    where = world({**WORDS, "objects": {**WORDS["objects"], "church": church}})

    @contextmanager
    def ruined(_: Any) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setitem(OTHER_NAMES, "church", "castle")
            yield

    variants = [base(where.concepts), Variant("edit", "edit", "ruined", where.concepts, ruined)]
    outcome = run(where, [suites.find("partial")], variants, Sampling(1, 2.0), Cache(tmp_path))
    before, after = rows(outcome, "base"), rows(outcome)
    assert (before["church, among the first 1"], after["church, among the first 1"]) == (1, 0)
    part = "church: its castle, among the first 1"
    assert (before[part], after[part]) == (0, 1)
    assert {one.row for one in outcome.measured if one.expect_removed} == {
        "church, first guess",
        "church, among the first 1",
        "church, probability",
    }
    assert not any("steeple" in row for row in after)


def test_the_suite_scenes_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    outcome = measure("scenes", tmp_path, world(), "church")
    assert rows(outcome, "base") == {"church": 1, "the one beside church": 1}
    assert rows(outcome) == {"church": 0, "the one beside church": 1}
    picture = next(iter(outcome.galleries["base"].values()))
    assert picture.size == (16, 8)


def test_the_suite_memorised_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    """Titles are blue 40 and 80; without its word one is blue 0, which is 80 / sqrt(3) from its own."""
    where = world(concepts=("mount fuji",))
    outcome = measure("memorised", tmp_path, where, "mount fuji")
    found = rows(outcome)
    assert found["mount fuji: distance to it"] == pytest.approx(80 / 3**0.5, abs=1e-4)
    assert found["the great wave: distance to it"] == 0
    assert (found["mount fuji: copies of it"], found["the great wave: copies of it"]) == (0, 1)
    assert {one.found for one in outcome.answers if one.variant != "base" and one.row == "mount fuji"} == {"no copy"}
    assert found["everything else: picture change"] == 0
    # Two of each title and four of all else for both variants, and two of each title for the base alone, to know it by.
    assert sum(where.pipe.calls) == 2 * (2 * 2 + 4) + 2 * 2


def test_a_nearest_picture_that_is_far_from_all_is_no_copy() -> None:
    """Half the mean distance to the two others: 20 and 22.5 for the nearest one."""
    far = np.array([[10.0, 30.0, 50.0], [30.0, 40.0, 50.0]])
    assert memorised_suite.copies(far).tolist() == [[True, False, False], [False, False, False]]


def test_the_suite_eta_gives_the_numbers_known_by_hand(tmp_path: Path) -> None:
    """Eta 1 leaves the church, eta 3 erases it, eta 10 the fish too; what has no eta has no row."""
    where = world()
    ways: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("weak", (), {"eta": 1.0}),
        ("medium", ("church",), {"eta": 3.0}),
        ("strong", ("church", "fish"), {"eta": 10}),
        ("other", (), {}),
    ]
    variants = [
        Variant(name, "edit", name, where.concepts, lambda pipe, gone=gone: pipe.without(*gone), settings)
        for name, gone, settings in ways
    ]
    outcome = run(where, [suites.find("eta")], [base(where.concepts), *variants], Sampling(1, 2.0), Cache(tmp_path))
    found = {name: rows(outcome, name) for name in ("base", "weak", "medium", "strong", "other")}
    assert found["base"] == found["weak"] == {"erased": 1, "kept": 1, "church": 1, "kept: fish": 1}
    assert found["medium"] == {"erased": 0, "kept": 1, "church": 0, "kept: fish": 1}
    assert found["strong"] == {"erased": 0, "kept": 0, "church": 0, "kept: fish": 0}
    assert not found["other"]
    assert "strong has eta 10" in {one.note for one in outcome.measured}
    one = SimpleNamespace(suites=outcome.suites, variants=variants, measured=outcome.measured)
    ((suite, _, _, marks),) = by_suite(one)  # type: ignore[arg-type]
    assert suite == "eta"
    assert [(mark.series, mark.x[0], mark.y[0]) for mark in marks] == [
        ("weak", 100, 100), ("medium", 0, 100), ("strong", 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("concept", "words"), [("neon", "a church in neon style"), ("stamp", "a church")])
def test_the_suite_eta_counts_a_concept_that_is_no_object(tmp_path: Path, concept: str, words: str) -> None:
    """A style is asked for by name, what appears unasked is not."""
    outcome = measure("eta", tmp_path, world(concepts=(concept,)))
    assert outcome.asked["eta"][0].shots[0].prompt == words


def test_fidelity_of_an_edit_that_changes_nothing_else(tmp_path: Path) -> None:
    outcome = measure("fidelity", tmp_path, world(), "church")
    (fid,) = [one for one in outcome.measured if one.variant == "edit" and one.row.startswith("FID")]
    assert fid.difference is not None
    assert (fid.score.value, fid.difference.value, fid.difference.differs) == (pytest.approx(0, abs=1e-6), 0, False)
    assert "n is small" in fid.note
    lost = measure("fidelity", tmp_path, world(), "castle", "dog", "pizza", "fish")
    (kid,) = [one for one in lost.measured if one.variant == "edit" and one.row.startswith("KID")]
    assert kid.difference is not None
    assert kid.difference.differs


def test_attention_reads_the_word(pipe: Any, tmp_path: Path) -> None:
    """Cross-attention whose output is nulled adds nothing; what self-attention adds stays nearly what it was."""
    block = pipe.unet.up_blocks[-1] if hasattr(pipe.unet.up_blocks[-1], "attentions") else pipe.unet.up_blocks[-2]
    layer = block.attentions[0].transformer_blocks[0].attn2.to_out[0]

    @contextmanager
    def nulled(_: Any) -> Iterator[None]:
        parts = {"weight": layer.weight, "bias": layer.bias}
        with temporary_values(parts, {name: torch.zeros_like(part) for name, part in parts.items()}):
            yield

    where = EvalContext(pipe, {}, {}, (Concept("church"),), 2, 0)
    variants = [base(where.concepts), Variant("edit", "edit", "nulled", where.concepts, nulled)]
    variants.append(Variant("guard", "guard", "guard", where.concepts, nulled))
    outcome = run(where, [suites.find("attention")], variants, Sampling(2, 2.0), Cache(tmp_path))
    before, after = rows(outcome, "base"), rows(outcome)
    assert before["cross-attention, church named"] > 0
    assert after["cross-attention, church named"] == after["cross-attention, nothing named"] == 0
    assert after["self-attention, nothing named"] > 0
    assert not rows(outcome, "guard")
    assert len(outcome.figures) == 2 * 2 * 2 * 2  # variants, kinds, prompts, seeds
    assert outcome.figures[0].picture.size[0] == outcome.figures[0].picture.size[1] > 1


@pytest.mark.parametrize("suite", ["paraphrase", "scenes", "memorised"])
def test_a_suite_that_lacks_something_says_so_and_stops_no_other(tmp_path: Path, suite: str) -> None:
    outcome = measure(suite, tmp_path, world(words={}))
    assert not outcome.measured
    assert outcome.suites[0].not_measured


def test_without_detectors_no_suite_fails(tmp_path: Path) -> None:
    """Only pictures are compared, pixel by pixel."""
    where = EvalContext(Pipe(), {}, {}, (Concept("church"),), 2, 0)
    edit = Variant("edit", "edit", "edit", where.concepts, lambda pipe: pipe.without("church"))
    every = [suites.find(name) for name in suites.names()]
    outcome = run(where, every, [base(where.concepts), edit], Sampling(1, 2.0), Cache(tmp_path))
    assert {suite.name for suite in outcome.suites if not suite.not_measured} == {"pictures", "summary"}
    found = {one.row: one.score.value for one in outcome.measured if one.suite == "pictures" and one.variant == "edit"}
    assert found == {"church: picture change": pytest.approx(200 / 3), "other things: picture change": 0}


def test_each_picture_is_drawn_once(tmp_path: Path) -> None:
    where = world()
    measure("objects", tmp_path, where, "church")
    drawn = sum(where.pipe.calls)
    assert drawn == 2 * (4 + 2)  # two variants, two classes
    measure("objects", tmp_path, where, "church", batch=3)
    assert sum(where.pipe.calls) == drawn


def test_an_interrupted_run_continues_where_it_stopped(tmp_path: Path) -> None:
    where = world()

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure("objects", tmp_path, where, "church", batch=3, progress=stop)
    assert where.pipe.calls == [3, 3]
    outcome = measure("objects", tmp_path, where, "church", batch=3)
    assert sum(where.pipe.calls) == 2 * (4 + 2)
    assert rows(outcome)["erased"] == 0


def test_a_broken_picture_is_drawn_again(tmp_path: Path) -> None:
    where = world()
    measure("objects", tmp_path, where, "church")
    file = next((tmp_path / "cache").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:20])
    measure("objects", tmp_path, where, "church")
    assert where.pipe.calls[-1] == 1


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="cannot write pictures into .*; give another folder as `cache`"):
        measure("objects", tmp_path, world())
    (tmp_path / "cache").unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        measure("objects", tmp_path, world())
    assert not list((tmp_path / "cache").rglob("*.p*"))


def test_a_csv_of_prompts_has_a_row_for_each_label(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "prompt,evaluation_seed,label,judge\na church,3,church,\na dog,4,dog,objects\na dog,4,stamp,stamp\n"
    )
    outcome = measure(from_csv(file), tmp_path, world(), "church")
    assert rows(outcome) == {"church": 0, "dog": 1, "stamp": 1}
    assert {type(one) for one in outcome.measured} == {Measured}


@pytest.mark.parametrize("column", ["class", "label_str"])
def test_columns_of_published_sets_are_read_or_named_as_unread(tmp_path: Path, column: str) -> None:
    file = tmp_path / "theirs.csv"
    head = f",case_number,prompt,evaluation_seed,artist,{column}\n"
    file.write_text(f"{head}0,0,image of church,3,nobody,Churches\n1,1,image of hound,4,nobody, hound\n")
    suite = from_csv(file)
    assert rows(measure(suite, tmp_path, world(), "church")) == {"church": 0, "dog": 1}
    assert suite.about.endswith("Columns that are not read: case_number, artist.")


BAD = {
    "": "has no column 'prompt'",
    "prompt,seed,label\n": "holds no prompts",
    "prompt,label\na,b\n": "has no column 'seed'; its first line is 'prompt,label'",
    "prompt,seed,label\na church,0,church\na dog,x,dog\n": "line 3: the seed 'x' is no whole number",
    "prompt,seed,label\na church,-1,church\n": "the seed '-1'",
    "prompt,seed,label\n,1,church\n": "line 2: the prompt is empty",
    "prompt,seed,label\na church,1\n": "line 2: the label is empty",
    "prompt,seed,label\na church,1,chruch\n": "did you mean 'church'",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_table_says_which_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=BAD[text]):
        measure(from_csv(file), tmp_path, world())


def test_a_row_of_few_pictures_is_spread_over_all_words() -> None:
    names = [f"thing {k}" for k in range(100)]
    question = world(n=8).question("things", "things", "objects", [(name, name) for name in names], part=2)
    assert question.labels == ("thing 0", "thing 25", "thing 50", "thing 75")
    assert [shot.seed for shot in question.shots] == [0, 1, 2, 3]


def test_a_concept_is_its_label_in_any_case() -> None:
    for word, label in {"Church": "church", "CHAPEL": "church", "Kirche": "church", "Neon": "neon"}.items():
        assert world().target(Concept(word)) == label


def test_of_two_erased_things_none_stands_beside_the_other() -> None:
    asked = suites.find("scenes").ask(world(concepts=("church", "dog"), n=20))
    assert not {"church", "dog"} & {label for q in asked if q.key.startswith("beside") for label in q.labels}


def test_an_only_title_is_not_compared_with_itself(tmp_path: Path) -> None:
    words = {**WORDS, "memorised": {"the great wave": ["wave"]}}
    found = measure("memorised", tmp_path, world(words, ("the great wave",)))
    assert found.measured
    assert not [one.row for one in found.measured if one.row.endswith("copies of it")]


def test_domains_without_prompts_are_left_out() -> None:
    words = {**WORDS, "stamp": {"names": ["stamp"], "domains": ["plant", "food"]}}
    asked = suites.find("implicit").ask(world(words, ("stamp",)))
    assert asked
    assert not [question for question in asked if "plant" in question.name or not question.shots]


@pytest.mark.parametrize("suite", ["scenes", "partial", "memorised"])
def test_every_picture_that_a_detector_looked_at_is_on_record(tmp_path: Path, suite: str) -> None:
    found = measure(suite, tmp_path, world())
    looked = [q for q in found.asked[suite] if not q.reference and q.name != "everything else"]
    assert len(found.answers) == 2 * sum(len(question.shots) for question in looked)


def test_suites_name_no_method() -> None:
    from unsee import methods

    for path in Path(suites.__file__).parent.glob("*.py"):
        words = set(re.findall(r"[\"'](\w+)[\"']", path.read_text()))
        assert not set(methods.names()) & words, path
