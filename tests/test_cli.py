"""What a user types: the main job, its record, and every bad input ending in one line with exit code 2."""

import errno
import json
import os
import pickle
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser
import pytest
import torch
import yaml
from conftest import Run
from PIL import Image

import unsee
from unsee.cli.main import main
from unsee.cli.terminal import seconds as in_seconds
from unsee.evaluate.records import Evaluation
from unsee.fit.resume import ResumeFile
from unsee.methods.hybrid import Hybrid
from unsee.progress import Progress
from unsee.report.plots import fits

SETTINGS = (
    "record_steps=2",
    "batch=2",
    "runs=2",
    "keep_runs=1",
    "preserve_words=32",
    "context_words=4",
    "neutral=[cat,dog]",
)
QUICK = [*["-n", "2", "--steps", "1", "--updates", "2"], *(word for setting in SETTINGS for word in ("--set", setting))]

CLOSED = ["-n", "2", "--steps", "1", "--method", "uce", "--set", "preserve_words=8", "--set", "context_words=2"]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick run."""
    folder = tmp_path_factory.mktemp("runs") / "church"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unsee", "erase", "church", *QUICK, "--out", str(folder)])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    return folder


def test_a_run_writes_every_file_that_it_promises(finished: Path) -> None:
    assert sorted(file.name for file in finished.iterdir()) == [
        "before-after.png",
        "edit.safetensors",
        "index.html",
        "run.json",
    ]
    Image.open(finished / "before-after.png").verify()
    record = json.loads((finished / "run.json").read_text())
    assert record["config"]["settings"]["updates"] == 2
    assert record["config"]["settings"]["eta"] == unsee.Hybrid().eta
    assert record["model"]["name"] == "tiny"
    assert {"command", "versions", "seconds", "peak_memory_bytes", "threads"} <= record.keys()
    found = measured(record)
    rows = {one.key: one for one in found.measured if one.variant == "edit"}
    church = rows["removed/church"]
    assert church.row == "church"
    assert church.expect_removed
    assert church.base
    assert church.base.n == 2
    assert rows["removed/church/change"].unit == "grey levels"
    assert "everything else" in rows
    claims = unsee.Edit.load(finished / "edit.safetensors").card.claims
    assert claims
    assert claims.suite == "summary"
    assert claims.rows["removed/church"] == (church.base.value, church.score.value)
    assert claims.detectors["objects"] == "objects"


def measured(record: dict[str, Any]) -> Evaluation:
    return Evaluation.from_json(json.dumps(record["evaluation"]))


def test_the_page_needs_no_other_file(finished: Path) -> None:
    html = (finished / "index.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "url(" not in html
    assert "<script" not in html
    assert "<h1>Erased: church</h1>" in html
    rows = {one.key: one for one in measured(json.loads((finished / "run.json").read_text())).measured if one.base}
    church, rest = rows["removed/church"], rows["everything else"]
    assert church.base
    assert rest.base
    for name, gone, kept in (("base", church.base, rest.base), ("edit", church.score, rest.score)):
        assert f"<title>{name}: {100 * gone.value:.1f} %, {100 * kept.value:.1f} %</title>" in html  # the plot


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_the_page_opens_in_a_browser(finished: Path, tmp_path: Path) -> None:
    browser.check(finished / "index.html", browser.kept(tmp_path))


def test_the_page_draws_how_the_fit_went(finished: Path) -> None:
    curve = json.loads((finished / "run.json").read_text())["curve"]
    assert [updates for updates, *_ in curve] == [0, 1, 2]
    html = (finished / "index.html").read_text()
    assert html.count("of what must stay: ") == 1
    assert "stopped early" not in html
    whole, early = ([(0, 4.0, 0.0), (last, 1.0, 2.0)] for last in (20, 10))
    drawn = fits({"edit": (whole, 20)})
    assert "edit, of the concept: 1 at the end, at most 4; edit, of what must stay: 2 at the end, at most 2" in drawn
    assert (drawn.count("stopped early"), fits({"edit": (early, 20)}).count("stopped early")) == (0, 2)


def test_an_early_stop_is_marked(run: Run, tmp_path: Path) -> None:
    stopping = [*QUICK, "--updates", 8, "--lr", "1e-9", "--set", "patience=1", "--out", "out"]
    code, _, err = run("erase", "church", *stopping)
    assert code == 0, err
    assert (tmp_path / "out" / "index.html").read_text().count("stopped early") == 2


def test_the_page_escapes_what_it_shows(run: Run, tmp_path: Path) -> None:
    code, _, err = run("erase", "<b>x</b>", *CLOSED, "--out", tmp_path / "out")
    assert code == 0, err
    assert "<b>x" not in (tmp_path / "out" / "index.html").read_text()


def test_a_run_repeats_from_its_record_bit_for_bit(run: Run, finished: Path, tmp_path: Path) -> None:
    assert run("erase", "--config", finished / "run.json", "--out", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "edit.safetensors").read_bytes() == (finished / "edit.safetensors").read_bytes()
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (finished, tmp_path / "again"))
    assert first["config"] == second["config"]
    assert measured(first).measured == measured(second).measured


def test_a_run_starts_from_yaml_and_options_go_before_it(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    settings = {"steps": 2, "batch": 2, "runs": 2, "keep_runs": 1, "neutral": ["cat"], "updates": 5, "lr": "1e-5"}
    settings |= {"preserve_words": 8, "context_words": 2}
    file.write_text(yaml.safe_dump({"concepts": [{"erase": "dog"}], "settings": settings, "pictures": 2, "steps": 2}))
    assert run("erase", "--config", file, "--updates", 1)[0] == 0
    card = unsee.Edit.load(tmp_path / "runs" / "dog" / "edit.safetensors").card
    assert card.settings["updates"] == 1
    assert card.settings["lr"] == 1e-5


def test_generate_draws_base_and_edit(run: Run, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    words = ["a church", "a castle", "--edit", finished / "edit.safetensors", "-n", 2, "--steps", 2, "--out", out]
    code, said, err = run("generate", *words)
    assert code == 0, err
    assert str(out) in said
    full = Image.open(out).copy()
    run("generate", *words, "--scale", 0)
    none = Image.open(out).copy()
    assert full.tobytes() != none.tobytes()


def test_options_of_the_pipeline_go_into_record_card_and_pictures(run: Run, finished: Path, tmp_path: Path) -> None:
    code, _, err = run("erase", "church", *QUICK, "--call", "guidance_rescale=1", "--out", "rescaled")
    assert code == 0, err
    one, other = (Image.open(folder / "before-after.png").tobytes() for folder in (finished, tmp_path / "rescaled"))
    assert one != other
    record = json.loads((tmp_path / "rescaled" / "run.json").read_text())
    edit = tmp_path / "rescaled" / "edit.safetensors"
    assert record["config"]["call"] == unsee.Edit.load(edit).card.call == {"guidance_rescale": 1}
    for _ in range(2):  # on pictures that are drawn in the same way; a second time replaces the first
        code, said, err = run("verify", edit)
        assert code == 0, err
    verified = json.loads((tmp_path / "runs" / "verify-rescaled" / "evaluation.json").read_text())
    assert verified["suites"][0]["name"] == "summary"
    assert verified["sampling"]["call"] == {"guidance_rescale": 1}
    assert said.splitlines()[1] in (tmp_path / "runs" / "verify-rescaled" / "index.html").read_text()
    sheets = []
    for call in ([], ["--call", "guidance_rescale=0"]):  # generate takes the card's options, or others
        code, _, err = run("generate", "a church", "--edit", edit, "-n", 1, "--steps", 2, "--out", "a.png", *call)
        assert code == 0, err
        sheets.append(Image.open(tmp_path / "a.png").tobytes())
    assert sheets[0] != sheets[1]
    code, _, err = run("evaluate", tmp_path / "rescaled", "--suite", "partial", "-n", 2, "--steps", 1)
    assert code == 0, err
    found = json.loads((tmp_path / "runs" / "evaluation-rescaled" / "evaluation.json").read_text())
    assert found["sampling"]["call"] == {"guidance_rescale": 1}


def test_show_prints_the_card(run: Run, finished: Path) -> None:
    code, out, _ = run("show", finished / "edit.safetensors")
    assert code == 0
    for part in ("church", "hybrid", "cross", "tiny", "torch"):
        assert part in out


def test_show_prints_no_control_characters(run: Run, edit: unsee.Edit, tmp_path: Path) -> None:
    import dataclasses

    evil = dataclasses.replace(edit, card=dataclasses.replace(edit.card, base="tiny\x1b[2J\x07"))
    code, out, _ = run("show", evil.save(tmp_path / "evil.safetensors"))
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out


BAD = {
    "unknown method": (["erase", "church", "--method", "esdd"], "unknown method 'esdd': did you mean 'esd'"),
    "unknown preset": (["erase", "church", "--preset", "papr"], "did you mean 'paper'"),
    "unknown selection": (["erase", "church", "--select", "crss"], "did you mean 'cross'"),
    "unknown setting": (["erase", "church", "--set", "updatess=3"], "did you mean 'updates'"),
    "unknown option": (["erase", "church", "--etta", "1"], "No such option: --etta"),
    "unknown command": (["erese", "church"], "No such command 'erese'"),
    "two settings for one --set": (
        ["erase", "church", "--set", "eta=1", "batch=2"],
        "each setting needs its own --set",
    ),
    "a concept with an equals sign": (["erase", "e=mc2", "--model", "./nowhere"], "there is no model './nowhere'"),
    "setting without value": (["erase", "church", "--set", "updates"], "takes KEY=VALUE"),
    "wrong type": (["erase", "church", "--set", "updates=many"], "updates:"),
    "wrong type of option": (["erase", "church", "--eta", "much"], "should be a valid number"),
    "eta below zero": (["erase", "church", "--eta", "-1"], "eta: input should be greater than or equal to 0"),
    "eta not a number": (["erase", "church", "--eta", "nan"], "eta:"),
    "lr zero": (["erase", "church", "--lr", "0"], "lr"),
    "no updates": (["erase", "church", "--updates", "0"], "updates: input should be greater than or equal to 1"),
    "unknown sampler": (["erase", "church", "--set", "sampler=DDIM"], "unknown sampler 'DDIM'"),
    "unknown schedule": (["erase", "church", "--set", "schedule=linea"], "did you mean 'linear'"),
    "no concept": (["erase"], "name what to erase"),
    "empty concept": (["erase", " "], "not an empty text"),
    "too long a concept": (["erase", "church " * 40], "would be cut off"),
    "missing model folder": (["erase", "church", "--model", "./nowhere"], "there is no model './nowhere'"),
    "folder without a pipeline": (["erase", "church", "--model", "."], "has no model_index.json"),
    "unreachable model": (["erase", "church", "--model", "nobody/nothing"], "cannot load 'nobody/nothing'"),
    "missing detector": (["erase", "church", "--detector", "objects=./nowhere"], "cannot load the detector"),
    "folder that cannot be written": (["erase", "church", "--out", "file/run"], "cannot write into file/run"),
    "missing configuration": (["erase", "--config", "nothing.yaml"], "cannot read the configuration"),
    "broken configuration": (["erase", "--config", "broken.yaml"], "is no YAML"),
    "configuration that misspells concepts": (["erase", "--config", "concept.yaml"], "did you mean 'concepts'"),
    "configuration with an unknown key": (["erase", "--config", "key.yaml"], "did you mean 'model'"),
    "missing edit": (["show", "nothing.safetensors"], "there is no edit file"),
    "edit that is random": (["show", "random.safetensors"], "is broken"),
    "edit that is a pickle": (["show", "evil.pt"], "no .safetensors file"),
    "a seed beyond what is drawn from": (["erase", "church", "--seed", str(2**32)], "--seed"),
    "a template of two names": (["erase", "church", "--set", "templates=['{} and {}']"], "templates"),
    "a preset that is none": (["erase", "church", "--preset", "stile"], "did you mean 'style'?"),
    "an option of the pipeline that is none": (
        ["erase", "church", "--call", "guidance_rescal=1"],
        "did you mean 'guidance_rescale'?",
    ),
    "generate to no picture": (
        ["generate", "a church", "--edit", "random.safetensors", "--out", "a"],
        "should end in .png",
    ),
    "generate with a random edit": (["generate", "a church", "--edit", "random.safetensors"], "is broken"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_an_error_of_one_line(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "random.safetensors").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps([1]))
    (tmp_path / "broken.yaml").write_text("a: [b")
    (tmp_path / "key.yaml").write_text("concepts: [{erase: church}]\nmodell: tiny\n")
    (tmp_path / "concept.yaml").write_text("concept: [church]\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    words, expected = BAD[name]
    code, _, err = run(*words)
    assert code == 2, err
    *progress, said = err.splitlines()
    assert expected in said
    assert all(re.fullmatch(r"\w+ \d+ of \d+, .* left", line) for line in progress), err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(tmp_path.rglob("edit.safetensors"))


@pytest.mark.parametrize(
    "more", [["--updates", "20"], ["--set", "eta=3"], ["--force"], ["--out", "elsewhere"], ["church"]]
)
def test_resume_takes_no_other_settings(run: Run, finished: Path, more: list[str]) -> None:
    before = (finished / "run.json").read_bytes()
    code, _, err = run("erase", *more, "--resume", finished)
    assert code == 2
    assert "--resume keeps the settings of its run" in err
    assert (finished / "run.json").read_bytes() == before


def test_force_removes_an_old_run_only_after_all_checks(run: Run, finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    code, _, err = run("erase", "church", "--force", "--set", "updatess=3", "--out", finished)
    assert code == 2
    assert "did you mean 'updates'" in err
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_run_is_not_overwritten_without_force(run: Run, finished: Path) -> None:
    before = (finished / "edit.safetensors").read_bytes()
    code, _, err = run("erase", "dog", *QUICK, "--out", finished)
    assert code == 2
    assert "holds a run already" in err
    assert (finished / "edit.safetensors").read_bytes() == before


def test_an_edit_for_another_model_names_both(run: Run, edit: unsee.Edit, tmp_path: Path, tiny: Any) -> None:
    with torch.no_grad():
        tiny.unet.conv_out.bias.add_(1)
        tiny.save_pretrained(tmp_path / "other")
        tiny.unet.conv_out.bias.sub_(1)
    path = edit.save(tmp_path / "edit.safetensors")
    code, _, err = run("generate", "a church", "--edit", path, "--model", tmp_path / "other")
    assert code == 2
    assert re.search(r"made for 'tiny' with weights \w{12}; the weights here are \w{12}", err)


def test_a_scale_that_is_not_finite_is_refused(run: Run, finished: Path) -> None:
    code, _, err = run("generate", "a church", "--edit", finished / "edit.safetensors", "--scale", "nan")
    assert code == 2
    assert "finite" in err


def test_stopping_keeps_what_is_finished(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unsee.evaluate.cache.batches", stop)
    code, _, err = run("erase", "church", *QUICK, "--out", tmp_path / "out")
    assert code == 130
    assert "stopped" in err
    assert unsee.Edit.load(tmp_path / "out" / "edit.safetensors").deltas
    assert not list((tmp_path / "out").glob("*.png"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("erase", "church", *QUICK, "--out", tmp_path / "out")[0] == 2  # it asks for --resume or --force
    before = unsee.Edit.load(tmp_path / "out" / "edit.safetensors")
    monkeypatch.setattr(Hybrid, "__call__", stop)  # nothing that is finished is done again
    code, _, err = run("erase", "--resume", tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / "before-after.png").exists()
    after = unsee.Edit.load(tmp_path / "out" / "edit.safetensors")
    assert after.card.claims
    assert all(torch.equal(after.deltas[name], delta) for name, delta in before.deltas.items())


def test_a_picture_or_page_that_cannot_be_made_leaves_the_rest(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    code, out, err = run("erase", "church", *CLOSED, "--out", "out")
    assert code == 1
    said = err.splitlines()[-1]
    assert "before-after.png could not be made: cannot write" in said
    assert "index.html could not be made: [Errno 28] No space left on device" in said
    assert "everything else is in out" in said
    assert re.search(r"^church +\d+\.\d %", out, re.M)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert measured(record).measured[0].row == "church"
    assert unsee.Edit.load(tmp_path / "out" / "edit.safetensors").card.claims


def test_one_run_can_erase_many_concepts(run: Run, tmp_path: Path) -> None:
    """Seventeen objects have more rows than a picture of WebP has lines for."""
    from unsee.models.names import BUNDLED

    words = json.loads((BUNDLED["tiny"] / "words.json").read_text())["objects"]
    some = [name for name in words if " " not in name][:17]
    code, _, err = run("erase", *some, *CLOSED, "--out", "out")
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    prompts = {answer.prompt for answer in measured(record).answers}
    assert all(any(name in prompt for prompt in prompts) for name in some)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "before-after.png",
        "index.html",
        "edit.safetensors",
    }


@pytest.mark.parametrize("stage", ["fit", "render"])
def test_ctrl_c_prints_the_command_that_continues(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
) -> None:
    @contextmanager
    def stopping() -> Iterator[Progress]:
        def show(name: str, done: int, total: int) -> None:
            if name == stage:
                raise KeyboardInterrupt

        yield show

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["unsee.cli.erase"], "bars", stopping)
        code, _, err = run("erase", "church", *(QUICK if stage == "fit" else CLOSED), "--out", "a run")
    assert code == 130
    (line,) = re.findall(r"^unsee: stopped; to continue: unsee (.*)$", err, re.M)
    assert shlex.split(line) == ["erase", "--resume", "a run"]
    code, _, err = run(*shlex.split(line))
    assert code == 0, err
    assert (tmp_path / "a run" / "index.html").is_file()


NEXT = {
    "an object": (["owl"], "an owl"),
    "a style": (["van gogh", "--preset", "style"], "art by van gogh"),
    "a plural": (["apples"], "apples"),
    "from another": (["hat", "--from", "astronaut"], "an astronaut"),
}


@pytest.mark.parametrize("name", NEXT)
def test_the_next_command_works_as_it_is_printed(run: Run, tiny_folder: Path, tmp_path: Path, name: str) -> None:
    """Of a folder, whose name alone no command could find; without a card, so without detectors."""
    shutil.copytree(tiny_folder, tmp_path / "the model", ignore=shutil.ignore_patterns("README.md", "judges"))
    words, prompt = NEXT[name]
    quick = {"from another": QUICK, "a style": QUICK, "an object": CLOSED[2:]}.get(name, CLOSED)
    code, out, err = run("erase", *words, *quick, "--model", "the model", "--out", "out")
    assert code == 0, err
    if name == "an object":
        assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["pictures"] == 8
        assert "so nothing was counted, and 8 pictures a row were drawn" in out
        assert "-n 48 draws more" in out
    (line,) = re.findall("^next: unsee (.*)$", out, re.M)
    asked = shlex.split(line)
    assert asked[:2] == ["generate", prompt]
    assert asked[asked.index("--model") + 1] == "the model"
    code, out, err = run(*asked, "-n", 1, "--steps", 1)
    assert code == 0, err
    (tmp_path / "the model").rename(tmp_path / "elsewhere")
    for words in (
        ["export", "out/edit.safetensors", "--to", "delta"],
        ["generate", "x", "--edit", "out/edit.safetensors"],
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "made for 'the model', which is not found here: give --model" in err.splitlines()[-1]


def test_an_export_to_a_name_without_its_ending_is_refused(run: Run, finished: Path) -> None:
    code, _, err = run("export", finished / "edit.safetensors", "--to", "delta", "--out", "NAME")
    assert code == 2
    assert err.splitlines() == ["unsee: --out NAME should end in .safetensors"]


def killed(folder: Path, moment: float, early: bool, *words: str) -> None:
    """Start a run, or go on with it, and kill it so many seconds after its start, or after its fit has begun."""
    begin = ["--resume", str(folder)] if (folder / "run.json").exists() else [*words, "--out", str(folder)]
    command = [sys.executable, "-m", "unsee", "erase", *begin, "--save-every", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state, begun = folder / "state.safetensors", time.time()
    while process.poll() is None and not early and not (state.exists() and state.stat().st_mtime > begun):
        time.sleep(0.02)
    time.sleep(moment)
    process.kill()
    process.wait()


def test_a_killed_run_resumes_to_the_same_bits(run: Run, tiny_folder: Path, tmp_path: Path) -> None:
    whole, broken, model = tmp_path / "whole", tmp_path / "broken", tmp_path / "model"
    model.symlink_to(tiny_folder)  # a name that it has in other processes too
    words = ["church", *QUICK, "--updates", "12", "--model", str(model)]
    assert run("erase", *words, "--out", whole)[0] == 0
    moments = random.Random(0)
    for k in range(int(os.environ.get("UNSEE_KILLS", "1"))):  # CI kills more often, also before the fit begins
        early = k % 2 == 1
        killed(broken, moments.uniform(0, 6 if early else 0.5), early, *words)
    begin = ["--resume", broken] if (broken / "run.json").exists() else [*words, "--out", broken]
    code, _, err = run("erase", *begin)
    assert code == 0, err
    assert (broken / "edit.safetensors").read_bytes() == (whole / "edit.safetensors").read_bytes()
    assert not (broken / "state.safetensors").exists()


def test_two_runs_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    from unsee.runs.folder import claimed

    with claimed(tmp_path / "out"):
        code, _, err = run("erase", "church", *QUICK, "--out", tmp_path / "out")
    assert code == 2
    assert "another run is writing" in err


def test_a_full_disk_leaves_the_last_state(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write, written = Path.write_bytes, list[str]()

    def full(path: Path, data: bytes) -> int:
        written.append(path.name)
        if written.count("state.safetensors.part") > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run("erase", "church", *QUICK, "--out", tmp_path / "out", "--checkpoint", "0")
    assert code == 2
    assert "note: --checkpoint is now called --save-every" in err  # and still works
    assert re.search(r"cannot write .*state.safetensors: No space left on device", err.splitlines()[-1])
    assert ResumeFile(tmp_path / "out" / "state.safetensors", unchecked(tmp_path / "out")).load()


def unchecked(folder: Path) -> str:
    from safetensors import safe_open

    with safe_open(folder / "state.safetensors", framework="np") as file:
        return str(file.metadata()["run"])


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert in_seconds(text) == seconds


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["unsee", "erase", " ", "--debug"])
    with pytest.raises(unsee.InputError):
        main()
