"""Two processes make what one makes."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unsee
from unsee.edit import LowRank

SETTINGS = {"steps": 3, "batch": 3, "runs": 3, "keep_runs": 2, "spared": 8}
QUICK = ["--steps", "2", "--updates", "4", "-n", "2", *[f"--set={key}={value}" for key, value in SETTINGS.items()]]
LAUNCH = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
ON_POLICY = ["--set=rerecord=1", "--set=held_out=0", "--set=runs=1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}


@pytest.mark.parametrize("more", [[], ON_POLICY], ids=["once", "on-policy"])
def test_two_processes_make_the_edit_that_one_makes(tmp_path: Path, more: list[str]) -> None:
    erase = ["-m", "unsee.cli", "erase", "church", *QUICK, *more, "--out"]
    for name, command in (("one", []), ("two", LAUNCH)):
        words = [sys.executable, *command, *erase, str(tmp_path / name)]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("writes") == 1  # one process speaks
    one, two = (unsee.Edit.load(tmp_path / name / "edit.safetensors") for name in ("one", "two"))
    largest = max(delta.abs().max() for delta in one.deltas.values())
    assert largest > 0
    for name, delta in one.deltas.items():
        torch.testing.assert_close(two.deltas[name], delta, atol=1e-3 * largest, rtol=1e-3)


def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    """Each draws its share, in other batches than one process would; a picture does not tell of it."""
    words = ["-m", "unsee.cli", "evaluate", "mini", "--suite", "pictures", "--concept", "church"]
    words += ["-n", "3", "--steps", "2", "--batch", "4", "--guard", "negative"]
    for name, command in (("one", []), ("two", LAUNCH)):
        more = ["--cache", str(tmp_path / name), "--out", str(tmp_path / f"{name}-out")]
        done = subprocess.run(
            [sys.executable, *command, *words, *more], env=ENVIRONMENT, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = ({path.name: path for path in (tmp_path / name).rglob("*.png")} for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert len(one) == 2 * 2 * 3  # base and guard, two rows
    for name in one:
        first, second = (np.asarray(Image.open(path), int) for path in (one[name], two[name]))
        assert abs(first - second).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_ask_their_denoisers_equally_often(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Whatever sizes and guidance scales are mixed: where they share one denoiser, each call is one of all of them."""
    from unsee import recorder
    from unsee.evaluate import render

    sizes, scales = [(64, 64), (32, 64), None], [None, 1.0]
    shots = [render.Shot("a church", k, sizes[k * k % 3], scales[k // 3 % 2]) for k in range(23)]
    drawn: list[list[render.Shot]] = []
    calls: list[list[tuple[int | None, float]]] = []

    def draw(pipe: object, prompts: list[str], seeds: list[int], steps: int, **options: Any) -> SimpleNamespace:
        calls[-1].append((options.get("width"), options["scale"]))
        return SimpleNamespace(images=seeds)

    monkeypatch.setattr(render, "draw", draw)
    monkeypatch.setattr(render, "for_pictures", lambda pipe, scale: {"scale": scale})
    for rank in range(count):
        process = SimpleNamespace(process_index=rank, num_processes=count)
        monkeypatch.setattr(recorder, "processes", lambda process=process: process)
        calls.append([])
        drawn.append([shot for pairs in render.batches(None, shots, render.Sampling(1, 4.0), 2) for shot, _ in pairs])
    assert all(one == calls[0] for one in calls)
    assert {shot for one in drawn for shot in one} == set(shots)


def test_two_processes_that_share_one_flux_make_the_edit_that_one_makes(tmp_path: Path) -> None:
    """FSDP: each holds half of the weights (sharded.py says what else it checks)."""
    for name, command in (("one", []), ("two", LAUNCH)):
        words = [sys.executable, *command, str(Path(__file__).with_name("sharded.py")), str(tmp_path / name)]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (unsee.Edit.load(tmp_path / f"{name}.edit.safetensors") for name in ("one", "two"))
    assert replace(two.card, curve=()) == replace(one.card, curve=())
    for name, delta in one.deltas.items():
        assert isinstance(delta, LowRank)
        here = two.deltas[name]
        assert isinstance(here, LowRank)
        whole = delta.up @ delta.down
        assert whole.abs().max() > 0
        torch.testing.assert_close(here.up @ here.down, whole, atol=1e-3 * float(whole.abs().max()), rtol=1e-3)
    first, second = (load_file(tmp_path / name) for name in ("one", "two"))
    for name, answers in first.items():  # of the edited model, also by a closed form
        torch.testing.assert_close(second[name], answers, atol=1e-3, rtol=1e-3)
