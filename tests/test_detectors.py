"""Detectors by name, words, folders of pictures, published prompt sets: against numbers worked out by hand."""

import importlib
import importlib.util
import json
import sys
import types
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from test_suites import WORDS, measure, rows, world
from transformers import CLIPModel

import unsee
from unsee.concepts import Concept
from unsee.errors import InputError
from unsee.evaluate import nudity
from unsee.evaluate.detectors import Clip, Detector, load_detector, of_parts
from unsee.evaluate.distance import Distance, by_maps
from unsee.evaluate.folder import read_folder
from unsee.evaluate.records import Evaluation
from unsee.evaluate.suites.table import from_csv, read
from unsee.evaluate.words import ARTISTS, IMAGENETTE, choices
from unsee.models.model_card import model_card
from unsee.models.names import BUNDLED
from unsee.models.words import read_words


def plain(*levels: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (level, 0, 0)) for level in levels]


def test_a_model_is_read_once() -> None:
    source = model_card("tiny").detectors["objects"]
    assert load_detector(source) is load_detector(source, "objects", ("church",))


# CLIP as a classifier of words


def test_clip_chooses_among_words(clip_folder: Path) -> None:
    detector = load_detector(f"clip:{clip_folder}", "objects", ("church", "dog"))
    clip = load_detector(clip_folder)
    assert isinstance(detector, Detector)
    assert isinstance(clip, Clip)
    ways = ("a picture of {}", "a picture of a {}", "{}")
    texts = [clip.texts([way.format(word) for way in ways]).mean(0) for word in ("church", "dog")]
    scale = CLIPModel.from_pretrained(clip_folder).logit_scale.exp()
    pictures = plain(0, 200)
    said = [[scale * torch.dot(seen, text / text.norm()) for text in texts] for seen in clip.features(pictures)]
    torch.testing.assert_close(detector.likely(pictures), torch.tensor(said).softmax(-1))
    assert detector.source == f"clip:{clip_folder}"
    assert detector(pictures) == [("church", "dog")[k] for k in detector.likely(pictures).argmax(1)]
    assert isinstance(load_detector(f"clip:{clip_folder}", "clip"), Clip)


def test_clip_needs_a_clip_model_and_words_to_choose_among(clip_folder: Path) -> None:
    with pytest.raises(InputError, match="needs words to choose among: list stamp in `words`"):
        load_detector(f"clip:{clip_folder}", "stamp", ("stamp",))
    with pytest.raises(InputError, match="it is no CLIP model"):
        load_detector(f"clip:{model_card('tiny').detectors['objects']}", "objects", ("a", "b"))


def test_clip_chooses_among_known_and_erased_words() -> None:
    concepts = (Concept("church"), Concept("hound"), Concept("neon"))
    assert choices("objects", WORDS, concepts) == ("church", "castle", "dog", "pizza", "fish")
    assert choices("objects", {}, concepts)[:3] == ("church", "hound", "neon")  # nothing says that neon is a style
    assert choices("objects", {}, [Concept("french horn")])[0] == "French horn"  # as it is listed, once
    assert len(choices("objects", {}, [Concept("french horn")])) == len(IMAGENETTE)
    assert set(IMAGENETTE) < set(choices("objects", {}, concepts, ["teapot"])) > {"teapot"}
    assert choices("styles", WORDS, concepts) == ("ink", "neon")
    assert choices("styles", {}, concepts) == ARTISTS
    assert choices("stamp", WORDS, concepts, ["yes", "no"]) == ("yes", "no")


@pytest.fixture
def bare(clip_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The miniature as a user's model, without a card, and the user's words."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for path in BUNDLED["tiny"].iterdir():
        if path.name not in ("README.md", "judges", "words.json"):
            (folder / path.name).symlink_to(path)
    words = tmp_path / "words.yaml"
    words.write_text("objects: [dog, cat]\nstyles: [ink, neon]\nstyled: '{} in {} style'\n")
    return folder, words


def test_a_model_with_clip_is_measured(
    run: Run, bare: tuple[Path, Path], clip_folder: Path, edit: unsee.Edit, tmp_path: Path
) -> None:
    folder, words = bare
    edit.save(tmp_path / "quick.safetensors")
    suites = [text for name in ("objects", "styles", "pictures", "fidelity") for text in ("--suite", name)]
    detectors = [
        text for kind in ("objects", "styles", "clip") for text in ("--detector", f"{kind}=clip:{clip_folder}")
    ]
    more = ["--edit", tmp_path / "quick.safetensors", "-n", 2, "--steps", 1, "--words", words, "--json"]
    code, out, err = run("evaluate", folder, *suites, *detectors, *more)
    assert code == 0, err
    found = Evaluation.from_json(out)
    assert not any(suite.not_measured for suite in found.suites)
    names = {(one.suite, one.row) for one in found.measured}
    assert {("objects", "church"), ("objects", "cat"), ("styles", "ink"), ("styles", "subject in neon")} <= names
    assert ("styles", "other styles: perceptual distance to base") in names
    assert ("styles", "other styles: CLIP with the style") in names
    prompts = {answer.prompt for answer in found.answers if answer.row == "ink"}
    assert prompts == {"a dog in ink style", "a cat in ink style"}


def test_a_model_without_detectors_is_measured(
    run: Run, bare: tuple[Path, Path], edit: unsee.Edit, tmp_path: Path
) -> None:
    """Grids and distances are there, and what was not measured is said."""
    edit.save(tmp_path / "quick.safetensors")
    more = [
        "--edit",
        tmp_path / "quick.safetensors",
        "-n",
        2,
        "--steps",
        1,
        "--suite",
        "objects",
        "--suite",
        "pictures",
    ]
    code, out, err = run("evaluate", bare[0], *more, "--out", "out")
    assert code == 0, err
    assert "not measured: no detector of objects" in out
    assert "church: picture change" in out
    assert "No detector was given" in out
    assert "<img" in (tmp_path / "out/index.html").read_text()


# NudeNet by protocol

SEEN = [
    {"class": "FEMALE_BREAST_EXPOSED", "score": 0.61, "box": [0, 0, 1, 1]},
    {"class": "FEMALE_BREAST_EXPOSED", "score": 0.5, "box": [0, 0, 1, 1]},
    {"class": "BELLY_EXPOSED", "score": 0.6, "box": [0, 0, 1, 1]},
    {"class": "ANUS_EXPOSED", "score": 0.9, "box": [0, 0, 1, 1]},
    {"class": "FACE_FEMALE", "score": 0.99, "box": [0, 0, 1, 1]},
    {"class": "FEET_COVERED", "score": 0.99, "box": [0, 0, 1, 1]},
    {"class": "ARMPITS_EXPOSED", "score": 0.3, "box": [0, 0, 1, 1]},
]
COUNTED = {
    "esd": 2,
    "mace": 3,
    "mace@0.25": 5,
    "rece": 3,
    "speed": 2,
    "uda": 4,
    "uda@0.45": 4,
    "receler": 4,
    "eval-unlearn": 3,
}
"""Parts of SEEN: breasts 2 up to 0.5, else 1; the belly at exactly 0.6; the anus where it is on the list; no face."""


@pytest.mark.parametrize("name", COUNTED)
def test_protocols_of_nudity_count_as_by_hand(name: str) -> None:
    protocol = nudity.protocol(name)
    assert sum(nudity.counted(SEEN, protocol).values()) == COUNTED[name]
    assert "@" in protocol.name


def test_every_protocol_is_tried_and_known_to_nudenet() -> None:
    assert set(nudity.protocols()) == {name.split("@")[0] for name in COUNTED}
    kinds = {
        "FEMALE_BREAST",
        "FEMALE_GENITALIA",
        "MALE_GENITALIA",
        "MALE_BREAST",
        "BUTTOCKS",
        "ARMPITS",
        "BELLY",
        "FEET",
        "ANUS",
    }
    assert {part for one in nudity.protocols().values() for part in one.parts} == {f"{kind}_EXPOSED" for kind in kinds}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mac@0.6", "did you mean 'mace'"),
        ("mace@0.1", "'0.1': a number from 0.25 to 1"),
        ("mace@x", "'x'"),
        ("uda@nan", "'nan'"),
        ("", "unknown protocol"),
    ],
)
def test_unknown_protocols_are_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_detector(f"nudenet:{name}")


def test_nudenet_gets_pictures_as_it_reads_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class NudeDetector:
        def detect(self, array: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
            assert array.flags.c_contiguous
            return SEEN if array[0, 0, 2] == 200 else []  # red is last

    monkeypatch.setitem(sys.modules, "nudenet", SimpleNamespace(NudeDetector=NudeDetector))
    detector = load_detector("nudenet:mace@0.6")
    assert isinstance(detector, Detector)
    assert detector.source == "nudenet:mace@0.6"
    assert detector(plain(200, 0)) == ["nudity", "none of these"]
    assert detector.parts is not None
    assert detector.parts(plain(200)) == [Counter(FEMALE_BREAST_EXPOSED=1, BELLY_EXPOSED=1, ANUS_EXPOSED=1)]


@pytest.mark.parametrize(("module", "detector"), [("nudenet", "nudenet:mace@0.6"), ("lpips", "lpips")])
def test_a_missing_package_gives_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, run: Run, module: str, detector: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run("evaluate", "tiny", "--suite", "objects", "--concept", "church", "--detector", f"x={detector}")
    assert code == 2
    assert err.count("\n") == 1
    assert f"pip install 'unsee[{module}]'" in err


@pytest.mark.skipif(importlib.util.find_spec("nudenet") is None, reason="nudenet is not installed")
def test_nudenet_runs_where_it_is_installed() -> None:
    detector = load_detector("nudenet:uda@0.45")
    assert isinstance(detector, Detector)
    assert detector(plain(0, 200)) == ["none of these"] * 2


# Distances


def test_the_perceptual_distance_is_that_derived_by_hand() -> None:
    """One layer sees (1, 0) or (0, 1) at a place: |difference|^2 is 2 where they differ, 0 where not."""

    def maps(pictures: Sequence[Image.Image]) -> list[torch.Tensor]:
        red = torch.tensor([float(picture.getpixel((0, 0))[0]) for picture in pictures])  # type: ignore[index]
        turned = torch.stack([torch.stack([5 * (red < 100), 7 * (red >= 100)], 1), torch.ones(len(pictures), 2)], 2)
        return [turned.float(), torch.ones(len(pictures), 3, 4)]

    distance = by_maps("maps", maps)
    # Places differ 2 and 0, so 1 on the first layer; nothing on the second: 0.5.
    assert distance(plain(0, 0, 200), plain(200, 0, 200)) == pytest.approx([0.5, 0, 0])
    assert distance.name == "perceptual distance"


def test_lpips_is_given_pictures_from_minus_one_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version 0.1 expects that, (B, 3, H, W), and answers (B, 1, 1, 1)."""
    given: list[torch.Tensor] = []

    class LPIPS(torch.nn.Module):
        def forward(self, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
            given.extend((one, two))
            return (one - two).abs().amax((1, 2, 3), keepdim=True)

    fake = SimpleNamespace(LPIPS=lambda net, verbose: LPIPS())
    monkeypatch.setitem(sys.modules, "lpips", fake)
    distance: Any = load_detector("lpips")
    red = Image.new("RGB", (5, 4), (255, 0, 0))
    assert distance([red, red], [red, Image.new("RGB", (5, 4), (255, 255, 0))]) == [0, 2]
    assert given[0].shape == (2, 3, 4, 5)
    assert [given[0][:, k].unique().tolist() for k in range(3)] == [[1], [-1], [-1]]


def test_a_torchvision_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "lpips", Broken("lpips"))
    with pytest.raises(InputError, match="its torchvision does not fit this torch: operator"):
        load_detector("lpips")


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_runs_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """Its own layers over a backbone of random weights, which need no download: the same as from pictures of 0 to 1
    that it scales itself.
    """
    lpips = _installed("lpips")
    monkeypatch.setattr(lpips, "LPIPS", partial(lpips.LPIPS, pnet_rand=True))
    made: list[Any] = []
    own = lpips.LPIPS
    monkeypatch.setattr(lpips, "LPIPS", lambda **options: made.append(own(**options)) or made[-1])
    distance: Any = load_detector(f"lpips:{net}")
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]
    first, second = (Image.fromarray(array) for array in noise)
    one, two = (torch.tensor(array).permute(2, 0, 1)[None] / 255 for array in noise)
    with torch.no_grad():
        expected = made[0](one, two, normalize=True).item()
    assert expected > 0.01
    assert distance([first, first], [second, first]) == pytest.approx([expected, 0], abs=1e-6)


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name}: {error}")


def test_every_detector_gives_a_distance_that_grows_with_the_difference(clip_folder: Path) -> None:
    """A classifier and a CLIP model both give a perceptual distance that grows with the difference."""
    for source in (clip_folder, model_card("tiny").detectors["objects"]):
        detector = load_detector(source)
        assert isinstance(detector, Clip | Detector)
        assert detector.maps is not None
        distance = by_maps(detector.source, detector.maps)
        noise = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))] * 3
        near = [Image.blend(noise[0], Image.new("RGB", (64, 64)), share) for share in (0, 0.1, 0.9)]
        found = distance(noise, near)
        assert found[0] == pytest.approx(0, abs=1e-6)
        assert found[0] < found[1] < found[2] <= 4


def test_lpips_has_three_networks() -> None:
    with pytest.raises(InputError, match="did you mean 'alex'"):
        load_detector("lpips:alexx")


# Words


def test_lists_of_words_are_read_in_all_layouts(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps(WORDS))
    assert read_words(tmp_path / "w.json") == WORDS
    (tmp_path / "w.yaml").write_text("objects: [church]\nmemorised: [the great wave]")
    thing = {"group": "", "synonyms": [], "languages": {}, "parts": []}
    assert read_words(tmp_path / "w.yaml") == {"objects": {"church": thing}, "memorised": {"the great wave": []}}


BAD_WORDS = {
    "objects: 3": "objects: ",
    "objects: {church: {gruop: a}}": "gruop",
    "styles: [[a]]": "styles.0: ",
    "styled: '{} only'": "should have two {}",
    "scene: '{} and {x}'": "no other brace",
    "- a": "holds no settings",
    "stamp: [a]": "stamp",
}


@pytest.mark.parametrize("text", BAD_WORDS)
def test_bad_lists_of_words_give_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_words(tmp_path / "w.yaml")
    assert BAD_WORDS[text] in str(error.value)
    assert "\n" not in str(error.value)


# Prompts as they are published

I2P = """,prompt,categories,hard,nudity_percentage,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height
0,a church,"shocking, sexual",0,0.0,2219455183,7.5,8,8
1,"sitting, a dog",sexual,1,60.0,1,7,16,8
2,a fish,shocking,1,60.0,2,7,8,8
"""


def test_i2p_is_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "i2p.csv"
    path.write_text(I2P)
    first, second, _ = read(path)
    assert (first.shot.seed, first.shot.guidance, first.shot.size) == (2219455183, 7.5, (8, 8))
    assert (second.shot.prompt, second.shot.size, second.categories) == ("sitting, a dog", (16, 8), ("sexual",))


def parts_of(pictures: Sequence[Image.Image]) -> list[Counter[str]]:
    """Two parts where the stamp is, one where the thing is number 0, the church."""
    pixels = [picture.getpixel((0, 0)) for picture in pictures]
    return [Counter(stamps=2 * (blue == 1), spires=int(red == 0)) + Counter() for red, _, blue in pixels]  # type: ignore[misc]


def test_implicit_concepts_are_counted_in_published_prompts(tmp_path: Path) -> None:
    """The church has one part, dog and fish two each; the edit takes the stamps away but not the spire."""
    path = tmp_path / "i2p.csv"
    path.write_text(I2P)
    where = world(concepts=("stamp",))
    where.detectors["parts"] = of_parts("by hand", "stamp", ["stamps", "spires"], parts_of)  # type: ignore[index]
    del where.detectors["stamp"], where.detectors["objects"], where.detectors["styles"]  # type: ignore[attr-defined]
    outcome = measure(from_csv(path), tmp_path, where, "stamp")
    before, after = rows(outcome, "base"), rows(outcome)
    assert before["stamp, all prompts"] == 1
    assert after["stamp, all prompts"] == pytest.approx(1 / 3)
    assert (after["stamp, shocking"], after["stamp, sexual"]) == (1 / 2, 1 / 2)
    assert (before["all parts"], after["all parts"]) == (pytest.approx(5 / 3), pytest.approx(1 / 3))
    assert (before["stamps"], after["stamps"]) == (pytest.approx(4 / 3), 0)
    assert before["spires"] == after["spires"] == pytest.approx(1 / 3)
    assert "5 in all of base" in {one.note for one in outcome.measured}
    assert after["pictures: picture change"] == pytest.approx(2 / 3 * 1 / 3)
    assert len(outcome.answers) == 2 * 3
    assert where.pipe.calls == [1, 1, 1] * 2  # sizes and scales of guidance are not drawn side by side


def test_a_category_of_all_prompts_counts_no_part_twice(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("prompt,seed,categories\na church,0,sexual\na dog,1,sexual\n")
    where = world(concepts=("stamp",))
    where.detectors["parts"] = of_parts("by hand", "stamp", ["stamps", "spires"], parts_of)  # type: ignore[index]
    del where.detectors["stamp"], where.detectors["objects"], where.detectors["styles"]  # type: ignore[attr-defined]
    outcome = measure(from_csv(path), tmp_path, where, "stamp")
    names = [one.row for one in outcome.measured if one.variant == "edit"]
    assert {"stamp, all prompts", "stamp, sexual", "all parts"} < set(names)
    assert len(names) == len(set(names))
    assert len(outcome.answers) == 2 * 2


def test_distances_of_pictures_of_many_sizes(tmp_path: Path) -> None:
    """LPIPS takes a batch of one size; I2P has several."""

    def far(one: Sequence[Image.Image], two: Sequence[Image.Image]) -> torch.Tensor:
        (size,) = {picture.size for picture in (*one, *two)}
        return torch.full((len(one),), float(size[0]))

    pictures = [Image.new("RGB", (width, 8)) for width in (8, 8, 16, 8)]
    assert Distance("by hand", "LPIPS", far)(pictures, pictures) == [8, 8, 16, 8]


# Folders


def album(folder: Path, **levels: tuple[int, int, int]) -> Path:
    folder.mkdir()
    for name, colour in levels.items():
        Image.new("RGB", (10, 12), colour).save(folder / f"{name}.png")
    return folder


def test_folders_without_usable_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds 1 picture; at least 2"):
        read_folder(album(tmp_path / "one", a=(0, 0, 0)))
    folder = album(tmp_path / "two", a=(0, 0, 0), b=(1, 1, 1))
    (folder / "metadata.csv").write_text("file_name,txt\na.png,A\n")
    with pytest.raises(InputError, match="needs the columns file_name and text"):
        read_folder(folder)
    (folder / "metadata.csv").write_text("file_name,text\na.png,A\n")
    with pytest.raises(InputError, match="has no line for b.png"):
        read_folder(folder)
    (folder / "metadata.csv").unlink()
    (folder / "b.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot read the picture"):
        read_folder(folder).pictures()


def test_memorised_images_come_from_a_folder(tmp_path: Path) -> None:
    """Titles are files' names; what the model draws for them is blue 40 and 80, and one file is one grey level off."""
    folder = album(tmp_path / "art", **{"the_great_wave": (200, 200, 40), "mount-fuji": (200, 200, 83)})
    where = world(concepts=("Mount Fuji",), album=read_folder(folder))
    outcome = measure("memorised", tmp_path, where, "mount fuji")
    before, after = rows(outcome, "base"), rows(outcome)
    assert before["the great wave: distance to it"] == after["the great wave: distance to it"] == 0
    assert before["mount fuji: distance to it"] == pytest.approx(3 / 3**0.5, abs=1e-5)
    assert after["mount fuji: distance to it"] == pytest.approx(83 / 3**0.5, abs=1e-4)
    assert (before["mount fuji: copies of it"], after["mount fuji: copies of it"]) == (1, 0)
    assert {one.row for one in outcome.measured if one.expect_removed} == {"mount fuji: copies of it"}


def test_fidelity_is_measured_to_a_folder(tmp_path: Path) -> None:
    """Captions are the prompts; features are (red, 2 red), so a church, 0, and a dog, 2, are known by hand."""
    folder = album(tmp_path / "coco", a=(0, 0, 0), b=(2, 0, 0))
    (folder / "metadata.csv").write_text("file_name,text\na.png,a church\nb.png,a dog\n")
    where = world(album=read_folder(folder), n=2)
    outcome = measure("fidelity", tmp_path, where, "dog")
    assert {shot.prompt for shot in outcome.asked["fidelity"][0].shots} == {"a church", "a dog"}
    row = "FID on features of the detector of objects to 2 pictures of coco"
    # The base draws the folder's pictures four times: equal means, and its covariance is 8/7 * 1, the folder's 2, times
    # (1, 2)(1, 2)^T: FID = 5 (sqrt(2) - sqrt(8/7))^2. Without dogs all else is (0 or 200).
    assert rows(outcome, "base")[row] == pytest.approx(5 * (2**0.5 - (8 / 7) ** 0.5) ** 2)
    assert rows(outcome)[row] == pytest.approx(5 * (99**2 + (2**0.5 - (8 / 7 * 100**2) ** 0.5) ** 2))
    assert all("n is small" in one.note for one in outcome.measured if one.row == row)


# Edits of other models


def test_a_forced_edit_is_measured_and_marked(run: Run, edit: unsee.Edit, tiny: Any, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    with torch.no_grad():
        tiny.unet.conv_out.bias.add_(1)
        tiny.save_pretrained(tmp_path / "other")
        tiny.unet.conv_out.bias.sub_(1)
    words = ("--suite", "pictures", "-n", 2, "--steps", 1, "--edit", f"quick={path}", "--json")
    code, _, err = run("evaluate", tmp_path / "other", *words)
    assert code == 2
    assert "made for 'tiny'" in err
    code, out, err = run("evaluate", tmp_path / "other", *words, "--force-base")
    assert code == 0, err
    assert Evaluation.from_json(out).variants[1].settings["made for other weights"] == edit.card.base_hash[:12]
