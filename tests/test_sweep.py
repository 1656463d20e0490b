"""A sweep runs each cell of a grid once, whatever happens on the way, and puts the results side by side."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import browser
import pytest

from unsee.errors import InputError
from unsee.evaluate.statistics import rate
from unsee.io.settings_file import parse
from unsee.report.sweep import Failed, Result, Share, marks, page, plot, table_csv
from unsee.runs import sweep as running
from unsee.runs.config import SweepConfig, build
from unsee.runs.grid import Cell, cells, said
from unsee.runs.sweep import CELL, CELLS, JOURNAL, Workers, sweep

QUICK = {"preserve_words": 8, "context_words": 0, "templates": ["{}"], "neutral": ["cat"]}
GRID: dict[str, Any] = {
    "concepts": ["church", ["castle", "dog"]],
    "methods": ["uce"],
    "settings": {"uce": [QUICK]},
    "erase": {"pictures": 2, "steps": 1},
}


@pytest.fixture
def grid(tiny_folder: Path) -> dict[str, Any]:
    return {**GRID, "models": [str(tiny_folder)]}


def journal(folder: Path) -> dict[str, list[str]]:
    """What happened to each cell, in order."""
    found: dict[str, list[str]] = {}
    for line in (folder / JOURNAL).read_text().splitlines():
        said = json.loads(line)
        found.setdefault(said["cell"], []).append(said["event"])
    return found


def test_a_grid_has_each_cell_once_and_names_it_by_its_content(grid: dict[str, Any]) -> None:
    first = cells(
        build(
            {**grid, "seeds": [0, 1], "settings": {"uce": [QUICK, {}]}, "concepts": ["church", "church", "dog"]},
            SweepConfig,
        )
    )
    assert len(first) == len({cell.name for cell in first}) == 2 * 2 * 2
    names = {cell.name for cell in cells(build(grid, SweepConfig))}
    assert names == {cell.name for cell in cells(build({**grid, "seeds": [0]}, SweepConfig))}  # what is left out
    for change in ({"erase": {"pictures": 3, "steps": 1}}, {"attack": {"attacks": ["names"]}}, {"seeds": [1]}):
        assert not names & {cell.name for cell in cells(build({**grid, **change}, SweepConfig))}


def test_the_grid_of_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert len(cells(build(parse(example, "the page"), SweepConfig))) == 12
    assert all(f"`{name}`" in page for name in running.FILES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": ["uce"]}, ["unknown setting 'method'", "did you mean 'methods'?"]),
        ({"methods": ["ucee"], "settings": {}}, ["unknown method 'ucee'", "did you mean 'uce'?"]),
        ({"settings": {"uce": [{"etta": 1}]}}, ["unknown setting 'etta'", "'eta'"]),
        ({"settings": {"esd": [{"eta": 1}]}}, ["unknown method under settings 'esd'"]),
        ({"erase": {"picturs": 2}}, ["erase: unknown setting 'picturs'", "'pictures'"]),
        ({"erase": {"seed": 2}}, ["erase: 'seed'", "'seeds: [...]'"]),
        ({"attack": {"attacks": ["name"]}}, ["unknown attack 'name'", "'names'"]),
        ({"attack": {"budget": "large"}}, ["unknown budget 'large'"]),
        ({"evaluate": {"suites": ["neighbors"]}}, ["unknown suite 'neighbors'", "'neighbours'"]),
        ({"evaluate": {"edits": ["x"]}}, ["evaluate:", "'edits'"]),
        ({"seeds": []}, ["seeds"]),
        ({"concepts": []}, ["concepts"]),
        ({"models": ["/nowhere"]}, ["no model '/nowhere'"]),
    ],
)
def test_a_bad_grid_gives_an_error_of_one_line(grid: dict[str, Any], change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        cells(build({**grid, **change}, SweepConfig))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_a_failed_cell_stops_no_other_and_is_tried_again(
    grid: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(cell: Cell, *_: Path) -> Result:
        if cell.config.concepts[0].erase == "church":
            raise RuntimeError("the disk\nis full")
        return Result(cell.name, said(cell), None, None, None, 0.0, "", {})

    config, out = build(grid, SweepConfig), tmp_path / "out"
    monkeypatch.setattr(running, "stages", broken)
    found, failed = running.sweep(config, out, tmp_path / "cache")
    assert [one.said["concepts"] for one in found] == [["castle", "dog"]]
    assert [one.said["concepts"] for one in failed] == [["church"]]
    assert failed[0].reason.startswith("RuntimeError: the disk is full; the traceback is in cells/church-uce-0-")
    assert "RuntimeError: the disk is full" in (out / "index.html").read_text()

    monkeypatch.setattr(
        running, "stages", lambda cell, *_: Result(cell.name, said(cell), None, None, None, 0.0, "", {})
    )
    again, failed = running.sweep(config, out, tmp_path / "cache")
    assert not failed
    assert [one.said["concepts"] for one in again] == [["church"], ["castle", "dog"]]
    assert sorted(journal(out).values()) == [["started", "failed", "started", "finished"], ["started", "finished"]]
    assert not list(out.rglob("failed.txt"))


def test_the_command_writes_the_page_and_skips_finished_cells(
    grid: dict[str, Any], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grid.yaml").write_text(
        json.dumps({**grid, "concepts": ["church"], "attack": {"attacks": ["names"], "pictures": 2}})
    )
    code, out, _ = run("sweep", "grid.yaml", "--dry-run")
    assert code == 0
    assert "to do" in out
    assert "1 cell; next: unsee sweep grid.yaml" in out
    assert not (tmp_path / "runs").exists()
    code, out, _ = run("sweep", "grid.yaml")
    assert code == 0
    assert "1 of 1 cell is finished" in out
    with (tmp_path / "runs" / "grid" / "table.csv").open() as file:
        row = next(csv.DictReader(file))
    assert row["concepts"] == "church"
    assert row["strongest attack"].startswith("names ")
    assert '<pre tabindex="0">unsee sweep grid.yaml</pre>' in Path("runs/grid/index.html").read_text()
    assert "finished" in run("sweep", "grid.yaml", "--dry-run")[1]
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    code, _, err = run("sweep", "grid.yaml", "--workers", "2", "--out", "other")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'unsee[ray]'; --workers 1 needs none" in err


def test_the_table_and_the_plot_say_what_was_measured() -> None:
    def share(before: int, after: int) -> Share:
        return Share(*(rate([True] * hits + [False] * (10 - hits)) for hits in (before, after)))

    said = {"model": "mini", "concepts": ["a<b"], "method": "uce", "settings": {"eta": 1}, "seed": 0}
    one = Result("x-1", said, share(9, 2), None, share(8, 7), 1.5, "names 20 %", {"erase": 1.0})
    other = Result("y-1", {**said, "method": "esd"}, None, None, None, 0.0, "", {})
    (made,) = marks([one, other])
    assert (made.x[0], made.y[0], made.series) == (20.0, 70.0, "uce")
    drawn = plot([one, other])
    assert re.search(r"<title>.*a&lt;b.*: 20\.0 %, 70\.0 %</title>", drawn)
    assert "prefers-color-scheme: dark" in drawn
    row = next(csv.DictReader(table_csv([one]).splitlines()))
    assert (row["erased before"], row["erased after"], row["rest n"], row["neighbours n"]) == ("0.9", "0.2", "10", "")


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_the_page_opens_in_a_browser(tmp_path: Path) -> None:
    def share(before: int, after: int) -> Share:
        return Share(*(rate([True] * hits + [False] * (48 - hits)) for hits in (before, after)))

    found = []
    for k, method in enumerate(("esd", "uce", "hybrid", "concept-ablation")):
        for seed in (0, 1):
            words = ["church", "the style of Vincent van Gogh", "french horn", "golf ball"][: k + 1]
            settings = {"preset": "paper", "updates": 1000, "learning_rate": 1e-05} if k % 2 else {}
            said = {"model": "CompVis/stable-diffusion-v1-4", "concepts": words, "method": method, "settings": settings}
            shares = (share(47, 12 * k + seed), share(45, 40 - k) if k else None, share(46, 45 - 4 * k))
            attack = "relearn (16 pictures, all weights, 240 updates) 94 % (83 to 98), +56 beyond taught"
            name = f"church-{method}-{seed}-0123456789"
            found.append(Result(name, {**said, "seed": seed}, *shares, 1.5 * k, attack if k else "", {"erase": 31.4}))
    reason = "OutOfMemoryError: CUDA out of memory; the traceback is in cells/church-stereo-0-0123456789/failed.txt"
    failed = [Failed("church-stereo-0-0123456789", {**found[0].said, "method": "stereo"}, reason)]
    file = tmp_path / "sweep" / "index.html"
    file.parent.mkdir()
    file.write_text(page("a grid of methods", found, failed, json.dumps(GRID, indent=1), "unsee sweep grid.yaml"))
    browser.check(file, browser.kept(tmp_path))


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ray cluster of one machine with two cores, which answers on the loopback alone."""
    import psutil

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = ["start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    words += ["--include-dashboard=false", "--disable-usage-stats"]
    log = tmp_path_factory.mktemp("ray") / "log"
    with log.open("w") as said:
        head = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", *words], stdout=said, stderr=said)
    try:
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: `make ray` installs it and runs this")
@pytest.mark.parametrize("place", ["this machine", "a cluster"])
def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_done_twice(
    grid: dict[str, Any], tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    import psutil

    workers = Workers(2) if place == "this machine" else Workers(address=request.getfixturevalue("cluster"))

    out, victims = tmp_path / "out", []

    def kill() -> None:
        """End the first worker that is in the middle of a cell."""
        while not victims:
            time.sleep(0.02)
            lines = (out / JOURNAL).read_text().splitlines() if (out / JOURNAL).is_file() else []
            for first in map(json.loads, lines[:1]):
                if first["process"] in {child.pid for child in psutil.Process().children(recursive=True)}:
                    os.kill(first["process"], signal.SIGKILL)
                    victims.append(first["cell"])

    killer = Thread(target=kill, daemon=True)
    killer.start()
    config = build({**grid, "concepts": ["church", "dog", ["castle", "dog"]]}, SweepConfig)
    found, failed = sweep(config, out, tmp_path / "cache", workers=workers)
    killer.join(timeout=1)
    assert victims
    assert not failed
    assert [one.name for one in found] == [cell.name for cell in cells(config)]  # nothing is lost, in the grid's order
    events = journal(out)
    assert events.pop(victims[0]) == ["started", "started", "finished"]
    assert list(events.values()) == [["started", "finished"]] * 2  # nothing was done twice
    assert len({json.loads(line)["process"] for line in (out / JOURNAL).read_text().splitlines()}) >= 3

    records = {path: path.read_bytes() for path in (out / CELLS).rglob("*") if path.name in (CELL, "edit.safetensors")}
    assert len(records) == 2 * 3
    again, _ = sweep(config, out, tmp_path / "cache", workers=workers)  # all is there: no ray is started
    assert again == found
    assert {path: path.read_bytes() for path in records} == records
    assert len(journal(out)) == 3
