"""`unsee evaluate` on the miniature: what it writes, pictures that do not depend on their batch, what it refuses."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import browser
import numpy as np
import pytest
import torch
import yaml
from conftest import Run
from PIL import Image

import unsee
from unsee.cli.main import main
from unsee.evaluate import suites
from unsee.evaluate.cache import Cache, model_key
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.detectors import Clip, Detector, load_detector
from unsee.evaluate.distance import grey_levels
from unsee.evaluate.measures import Comparison
from unsee.evaluate.observations import Observations
from unsee.evaluate.records import Evaluation, Measured, SuiteRecord, VariantRecord, schema
from unsee.evaluate.render import Sampling, Shot, sampling_of
from unsee.evaluate.statistics import Difference, Score
from unsee.models.names import BUNDLED
from unsee.report.before_after import Line
from unsee.report.grid import TALLEST, embedded, grid, paths, sheets, stacked
from unsee.report.strips import fitting, size
from unsee.report.tables import tables
from unsee.runs.config import RunConfig
from unsee.runs.erase import plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def worded(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature with a card that names words and a CLIP detector too, of random weights."""
    folder = tmp_path_factory.mktemp("worded")
    for path in BUNDLED["tiny"].iterdir():
        if path.name not in ("README.md", "judges", "words.json"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(BUNDLED["tiny"] / "judges", folder / "judges", ignore=shutil.ignore_patterns("clip"))
    shutil.copytree(clip_folder, folder / "judges/clip")
    words = {
        "objects": {
            "church": {"group": "place", "synonyms": ["chapel"], "languages": {"de": "kirche"}},
            "dog": {"group": "animal", "synonyms": ["hound"], "languages": {}},
        },
        "styles": ["ink"],
        "memorised": {"the great wave": ["wave"]},
        "watermark": {"names": ["watermark"], "domains": ["animal"]},
        "imagenette": {"church": "church", "english springer": "dog"},
        "scene": "{} and {}",
    }
    (folder / "words.json").write_text(json.dumps(words))
    detectors = {kind: f"judges/{kind}" for kind in ("objects", "styles", "watermark", "clip")}
    said = {"judges": detectors, "words": "words.json", "steps": 2, "guidance_scale": 3.0}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'unsee': said})}---\n")
    return folder


SUITES = ("attention", "objects", "implicit", "paraphrase", "scenes", "fidelity", "memorised", "partial")


@pytest.fixture(scope="session")
def measured(worded: Path, edit: unsee.Edit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick evaluation of base, edit and guard in many suites."""
    folder = tmp_path_factory.mktemp("measured")
    edit.save(folder / "edit.safetensors")
    named = [word for suite in SUITES for word in ("--suite", suite)]
    words = ["evaluate", worded, *named, "--edit", f"quick={folder / 'edit.safetensors'}", "--guard", "sld-max"]
    words += ["-n", 2, "--out", folder / "out", "--cache", folder / "cache"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unsee", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    return folder / "out"


def test_an_evaluation_writes_every_file_that_it_promises(measured: Path) -> None:
    files = ["answers.csv", "attention.png", "evaluation.json", "index.html", "pictures.png", "scores.csv"]
    assert sorted(path.name for path in measured.iterdir()) == files
    found = Evaluation.from_json((measured / "evaluation.json").read_bytes())
    assert [variant.name for variant in found.variants] == ["base", "quick", "sld-max"]
    assert [variant.concepts for variant in found.variants] == [("church",)] * 3
    assert found.variants[2].settings["scale"] == 5000
    assert [(suite.name, suite.not_measured) for suite in found.suites] == [(name, None) for name in SUITES]
    assert {(one.suite, one.variant) for one in found.measured} == {
        (suite, variant.name)
        for suite in SUITES
        for variant in found.variants
        if (suite, variant.kind) != ("attention", "guard")
    }
    keys = [(one.suite, one.key, one.variant) for one in found.measured]
    assert len(set(keys)) == len(keys)
    for one in found.measured:
        assert one.score.n > 0
        assert one.score.low <= one.score.value <= one.score.high
        assert (one.base is None) == (one.variant == "base") == (one.difference is None)


def test_notes_name_their_columns_where_columns_differ() -> None:
    def one(row: str, variant: str, note: str) -> Measured:
        half = Score(0.5, 0.1, 0.9, 4)
        return Measured("partial", row, "kept", row, variant, "share", half, None, None, note=note)

    noted = [("first", "base", "seen as a"), ("first", "edit", "seen as b"), ("second", "base", "few")]
    variants = [VariantRecord(name, "edit", (), {}) for name in ("base", "edit")]
    told: Any = SimpleNamespace(
        variants=variants, suites=[SuiteRecord("partial", "", None)], measured=[one(*words) for words in noted]
    )
    (table,) = tables(told)
    assert table.notes == ("first, base: seen as a", "first, edit: seen as b", "second: few")


def test_rows_with_equal_losses_keep_their_order() -> None:
    half = Score(0.5, 0.1, 0.9, 4)
    names = [f"row {k}" for k in range(40)]
    rows = [
        Measured("objects", name, "kept", name, "edit", "share", half, half, Difference(change, -1, 1, 4, False))
        for name, change in zip(names, [0.0] * 39 + [-0.25], strict=True)
    ]
    told: Any = SimpleNamespace(
        variants=[VariantRecord("edit", "edit", (), {})], suites=[SuiteRecord("objects", "", None)], measured=rows
    )
    (table,) = tables(told)
    assert [line[0] for line in table.rows] == [*names[:4], names[39], *names[4:14]]


def test_the_schema_is_that_of_the_file(measured: Path) -> None:
    written = json.loads((measured / "evaluation.json").read_text())
    assert written["schema"] == 2
    assert written.keys() == schema()["properties"].keys()
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "evaluation.md").read_text(), re.M)
    assert [name for name in documented if name not in suites.names()] == list(written)
    assert {name for name in documented if name in suites.names()} == set(suites.names())


def test_the_csv_has_every_number(measured: Path) -> None:
    found = Evaluation.from_json((measured / "evaluation.json").read_bytes())
    with (measured / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["suite"], line["key"], line["variant"]) for line in lines] == [
        (one.suite, one.key, one.variant) for one in found.measured
    ]
    assert [float(line["value"]) for line in lines] == [one.score.value for one in found.measured]
    assert {line["detector"] for line in lines} == {"", "objects", "clip", "watermark"}, "names, and no places"
    with (measured / "answers.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found.answers)


def test_the_printed_json_is_the_written_file(run: Run, worded: Path, tmp_path: Path) -> None:
    words = ("--suite", "paraphrase", "--concept", "church", "-n", 2, "--out", tmp_path / "out", "--json")
    code, out, err = run("evaluate", worded, *words)
    assert code == 0, err
    assert Evaluation.from_json(out) == Evaluation.from_json((tmp_path / "out" / "evaluation.json").read_bytes())


def test_an_evaluation_repeats_from_its_record(run: Run, measured: Path, tmp_path: Path) -> None:
    code, _, err = run("evaluate", "--config", measured / "evaluation.json", "--out", "again")
    assert code == 0, err
    first, second = (
        Evaluation.from_json((folder / "evaluation.json").read_bytes()) for folder in (measured, tmp_path / "again")
    )
    assert first.measured == second.measured
    assert first.answers == second.answers
    assert first.config == second.config
    assert {path.name for path in measured.iterdir()} == {path.name for path in (tmp_path / "again").iterdir()}


def test_options_go_before_a_configuration_of_an_earlier_version(run: Run, worded: Path, tmp_path: Path) -> None:
    detector = str(worded / "judges" / "objects")
    values = {"model": str(worded), "suites": ["objects"], "concepts": "dog", "judges": {"objects": detector}}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump({**values, "pictures": 4}))
    code, _, err = run("evaluate", "--config", "some.yaml", "-n", 2, "--suite", "paraphrase", "--out", "out")
    assert code == 0, err
    found = Evaluation.from_json((tmp_path / "out" / "evaluation.json").read_bytes())
    assert (found.n, [suite.name for suite in found.suites]) == (2, ["paraphrase"])
    assert found.config["detectors"] == {"objects": detector}
    assert found.config["concepts"][0]["erase"] == "dog"


def test_the_old_name_of_an_option_is_noted(run: Run, worded: Path) -> None:
    given = ["--judge", f"objects={worded / 'judges' / 'objects'}"]
    code, _, err = run("evaluate", worded, "--suite", "paraphrase", "--concept", "church", "-n", 2, *given)
    assert code == 0, err
    assert "note: --judge is now called --detector" in err


def test_a_guard_that_never_acts_is_reported(run: Run, worded: Path) -> None:
    words = ("--suite", "paraphrase", "--concept", "church", "-n", 2, "--guard", "sld-weak", "--guard", "sld-max")
    code, out, err = run("evaluate", worded, *words)
    assert code == 0, err
    assert "sld-weak never acts here: its warm-up is 15 steps, and a run has 2" in out
    assert "sld-max never" not in out


def test_a_run_is_measured_by_its_folder(run: Run, worded: Path, edit: unsee.Edit, tmp_path: Path) -> None:
    (tmp_path / "church").mkdir()
    edit.save(tmp_path / "church" / "edit.safetensors")
    (tmp_path / "church" / "run.json").write_text(json.dumps({"config": {"model": str(worded)}}))
    code, out, err = run("evaluate", "church", "--suite", "paraphrase", "-n", 2)
    assert code == 0, err
    assert re.search(r"base +church +n +unit", out)
    assert "not distinguishable" in out
    assert (tmp_path / "runs" / "evaluation-church" / "evaluation.json").is_file()


def test_pictures_do_not_depend_on_their_batch(pipe: Any, tmp_path: Path) -> None:
    shots = [Shot(prompt, seed) for prompt in ("a church", "a dog") for seed in (1, 2, 3)]
    from contextlib import nullcontext

    galleries = [
        Cache(tmp_path / str(batch)).draw(
            pipe, shots, Sampling(4, 4.0), model=model_key(pipe), applied=nullcontext, batch=batch
        )
        for batch in (1, 4, 6)
    ]
    for shot in shots:
        one, *others = (np.asarray(gallery[shot], int) for gallery in galleries)
        assert all(abs(one - other).max() <= 1 for other in others)


def test_a_run_that_is_killed_draws_no_picture_twice(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(tiny_folder), "--suite", "pictures", "--concept", "church", "-n", "8", "--steps", "2"]
    words += ["--batch", "2", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "unsee", *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "cache").rglob("*.png")):
        time.sleep(0.01)
    process.kill()  # no last words, as of a machine that loses its power
    _, err = process.communicate()
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert 0 < len(drawn) < 16, err
    assert not (tmp_path / "out" / "evaluation.json").exists()
    code, _, err = run(*words)
    assert code == 0, err
    whole = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert len(whole) == 16
    assert drawn.items() <= whole.items()


def test_a_changed_weight_is_another_model(pipe: Any) -> None:
    before = model_key(pipe)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] += 1
        other = model_key(pipe)
        pipe.vae.decoder.conv_out.bias[0] -= 1
    assert other != before


def test_a_clip_model_is_no_classifier(worded: Path, pipe: Any) -> None:
    clip = load_detector(worded / "judges/clip")
    assert isinstance(clip, Clip)
    assert clip.labels == ()
    pictures = pipe(["a church", "a dog"], num_inference_steps=1).images
    for vectors in (clip.features(pictures), clip.texts(["a church", "a dog"])):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert isinstance(load_detector(worded / "judges/objects"), Detector)


def test_erasing_works_where_the_card_names_clip(worded: Path) -> None:
    planned = plan(RunConfig(concepts=(unsee.Concept("church"),), model=str(worded)))
    assert planned.detectors.keys() == {"objects", "styles", "watermark", "clip"}
    context = EvalContext(planned.model, planned.detectors, {}, planned.config.concepts, 2, 0)
    assert {question.detector for question in suites.find("summary").ask(context)} == {"objects", "styles"}


def test_the_cache_key_of_a_picture_covers_all_that_changes_it(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was mended is not shown the pictures of before."""
    before = model_key(pipe)
    assert model_key(pipe) == before
    scale = pipe.vae.config.scaling_factor
    pipe.vae.register_to_config(scaling_factor=2 * scale)
    other = model_key(pipe)
    pipe.vae.register_to_config(scaling_factor=scale)
    monkeypatch.setattr(pipe.tokenizer, "model_max_length", 5)
    assert len({before, other, model_key(pipe)}) == 3
    monkeypatch.undo()
    assert model_key(pipe) == before


def test_a_guidance_scale_of_zero_is_not_replaced_by_the_default(tiny: Any) -> None:
    assert sampling_of(tiny, None, 0.0).guidance_scale == 0
    assert sampling_of(tiny).guidance_scale > 1
    assert (sampling_of(tiny).steps, sampling_of(deepcopy(tiny)).steps) == (10, 50)


def test_a_record_of_another_layout_is_refused(measured: Path) -> None:
    text = (measured / "evaluation.json").read_text().replace('"schema": 2', '"schema": 1')
    with pytest.raises(unsee.InputError, match="has layout 1; this version of unsee reads layout 2"):
        Evaluation.from_json(text)


def test_a_page_of_numbers_escapes_what_it_shows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text('prompt,seed,label\n"a <script>alert(1)</script> dog",0,dog\n')
    words = ["--csv", "own.csv", "-n", 2, "--steps", 1, "--out", "out"]
    assert run("evaluate", "tiny", *words)[0] == 0
    html = (tmp_path / "out" / "index.html").read_text()
    assert "<script>alert" not in html


BAD = {
    "guidance that is no number": (["--suite", "objects", "--guidance", "nan"], "guidance_scale: input should be"),
    "guidance below zero": (
        ["--suite", "objects", "--guidance", "-1"],
        "guidance_scale: input should be greater than or equal to 0",
    ),
    "a run of no model": (["--suite", "objects"], "does not name its model"),
    "unknown suite": (["--suite", "objcts"], "unknown suite 'objcts': did you mean 'objects'"),
    "a key that is none": (["--config", "key.yaml"], "unknown setting 'suite': did you mean"),
    "no suite": ([], "name what to measure with --suite or --csv; suites:"),
    "unknown guard": (["--suite", "objects", "--guard", "sld-mx"], "did you mean 'sld-max'"),
    "guard against nothing": (["--suite", "objects", "--guard", "sld-max"], "name what the guard is against"),
    "no pictures": (["--suite", "objects", "-n", "0"], "pictures: input should be greater than or equal to 2"),
    "missing edit": (["--suite", "objects", "--edit", "nothing.safetensors"], "there is no edit file"),
    "missing detector": (["--suite", "objects", "--detector", "objects=./nowhere"], "cannot load the detector"),
    "missing table": (["--csv", "nothing.csv"], "cannot read the prompts"),
    "empty table": (["--csv", "empty.csv"], "has no column 'prompt'"),
    "cache that cannot be written": (
        ["--suite", "objects", "--concept", "church", "--cache", "file"],
        "cannot write pict",
    ),
    "two columns of one name": (
        ["--suite", "objects", "--concept", "church", "--guard", "negative", "--guard", "negative"],
        "two columns are called 'negative'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_an_error_of_one_line(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "key.yaml").write_text("suite: [objects]\n")
    words, expected = BAD[name]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    code, _, err = run("evaluate", "run" if "run" in name.split() else "tiny", *words)
    assert code == 2, err
    assert expected in err
    assert err.count("\n") == 1, err
    assert not list(tmp_path.rglob("evaluation.json"))


def test_an_edit_for_another_model_is_refused(run: Run, edit: unsee.Edit, tiny: Any, tmp_path: Path) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    with torch.no_grad():
        tiny.unet.conv_out.bias.add_(1)
        tiny.save_pretrained(tmp_path / "other")
        tiny.unet.conv_out.bias.sub_(1)
    code, _, err = run("evaluate", tmp_path / "other", "--suite", "objects", "--edit", path)
    assert code == 2
    assert "made for 'tiny'" in err


class Page(HTMLParser):
    """Collects what a page would ask of a server, and checks that its elements are closed in their order."""

    VOID = frozenset({"meta", "img", "br", "input", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asks: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        asking = ("src", "href", "srcset", "action", "data", "poster")
        self.asks += [v for name, v in attrs if name in asking and v and not v.startswith(("data:", "#"))]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(path: Path) -> Page:
    html = path.read_text()
    page = Page()
    page.feed(html)
    assert not page.open
    assert not page.asks
    assert not re.search(r"url\(|@import", html)
    assert len(html) <= 5_000_000
    return page


def test_the_page_loads_nothing_from_a_server(measured: Path) -> None:
    page = check(measured / "index.html")
    assert page.tags.count("img") >= len(SUITES)
    assert "script" not in page.tags
    html = (measured / "index.html").read_text()
    assert "≈" in html
    assert "color-scheme: light dark" in html
    assert "viewport" in html


def test_pictures_shrink_until_the_page_has_room() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    shots = tuple(Shot("a church", seed) for seed in range(8))
    galleries = {name: dict.fromkeys(shots, Image.fromarray(noise)) for name in ("base", "edit")}
    groups = {"objects": [("church", shots)]}

    def width(room: int) -> int:
        return int(fitting(groups, galleries, room)["objects"][0].cards[0][1]["width"])

    full = width(10_000_000)
    taken = size(fitting(groups, galleries, 10_000_000)["objects"])
    assert width(taken - 1) < full
    assert width(0) < width(taken - 1)  # the smallest there is


def test_wide_pictures_leave_no_gaps() -> None:
    """A margin, the title, the prompts, a line each of 64 pixels and half a margin, a margin."""
    shots = [Shot("a church and a castle", 0)]
    pictures = dict.fromkeys(shots, Image.new("RGB", (32, 16)))
    sheet = grid([("scenes", shots)], {"base": pictures, "edit": pictures}, cell=128)
    assert sheet.height == 12 + 30 + 20 + 2 * (64 + 6) + 12
    assert grid([("scenes" * 20, shots)], {"base": pictures}).width > 3 * sheet.width  # a title is not cut off


def test_sheets_are_split_where_one_would_be_too_large() -> None:
    """No group, no column and no picture is lost; each sheet is one that WebP holds."""
    shots = [Shot(f"prompt {k}", k) for k in range(60)]
    pictures = {shot: Image.new("RGB", (8, 8), (4 * shot.seed, 0, 0)) for shot in shots}
    for groups, models in ((100, 2), (3, 200)):
        found = sheets(
            [(f"group {k}", shots[:2]) for k in range(groups)], dict.fromkeys(map(str, range(models)), pictures)
        )
        assert all(sheet.height <= TALLEST for sheet in found)
        lines = groups * models * (128 + 6)
        assert lines < sum(sheet.height for sheet in found) < 1.7 * lines
        assert len(embedded(found[0])["data"]) > 1000
    (wide,) = sheets([("one prompt, many seeds", shots)], {"base": pictures}, cell=32)
    one = grid([("one prompt, many seeds", shots[:24])], {"base": pictures}, cell=32)
    assert wide.width == one.width
    colors = {color for _, color in wide.getcolors(1 << 20) or ()}
    assert {(4 * k, 0, 0) for k in range(60)} <= colors
    assert sheets([("x" * 10**5, shots[:1])], {"base": pictures})[0].width < 2 * TALLEST
    assert sheets([], {"base": pictures}) == []
    assert [sheet.size for sheet in stacked([Image.new("RGB", (5, 3000))] * 3)] == [(5, 6000), (5, 3000)]
    assert [path.name for path in paths(Path("a.b.png"), 3)] == ["a.b.png", "a.b-2.png", "a.b-3.png"]


def test_grey_levels_have_one_definition() -> None:
    """Two colours of one luminance: |200 - 0| + |0 - 102| + 0 over three channels, and the same in both tables."""
    red, green = Image.new("RGB", (2, 2), (200, 0, 0)), Image.new("RGB", (2, 2), (0, 102, 0))
    assert red.convert("L").tobytes() == green.convert("L").tobytes()
    assert grey_levels(red, green) == pytest.approx(302 / 3)
    shots = (Shot("a", 0), Shot("b", 1))
    before, after = dict.fromkeys(shots, red), {shots[0]: red, shots[1]: green}
    seen = Observations(SimpleNamespace(), {"base": before, "edit": after})  # type: ignore[arg-type]
    comparison = Comparison("suite", seen.context, Variant("edit", "edit", "", (), None), seen)
    change = comparison.change("row", "row", shots)
    assert (change.key, change.row, change.unit) == ("row/change", "row: picture change", "grey levels")
    assert Line(None, change).name == change.name == "row"
    assert change.score.value == pytest.approx(151 / 3)


def test_a_picture_that_cannot_be_made_leaves_the_rest(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("the picture is\ntoo large")

    monkeypatch.setattr("unsee.runs.evaluate.contact", fail)
    code, out, err = run(
        "evaluate", "tiny", "--suite", "styles", "--concept", "neon", "-n", 2, "--steps", 1, "--out", "there"
    )
    assert code == 1
    assert (
        err.splitlines()[-1]
        == "unsee: pictures.png could not be made: the picture is too large; everything else is in there"
    )
    assert "Objects drawn in every style" in out
    assert Evaluation.from_json((tmp_path / "there" / "evaluation.json").read_bytes()).measured
    assert {path.name for path in (tmp_path / "there").iterdir()} >= {"index.html", "scores.csv", "answers.csv"}


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_the_page_opens_in_a_browser(measured: Path, tmp_path: Path) -> None:
    browser.check(measured / "index.html", browser.kept(tmp_path))
