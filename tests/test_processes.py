"""Two processes make what one makes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import together
import torch
from PIL import Image
from safetensors.torch import load_file

from unsee.edits.edit import Edit, LowRank

LAUNCH = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, Path]:
    """Folders of what this process makes, and of what two make (together.py says what)."""
    one, two, model = (tmp_path_factory.mktemp("made") / name for name in ("one", "two", "model"))
    model.symlink_to(tiny_folder)  # a name that it has in other processes too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [])
        together.make(one, model)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    words = [sys.executable, *LAUNCH, together.__file__, str(two), str(model)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("writes") == 1  # one process speaks
    return one, two


def pairs(one: Edit, two: Edit) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    assert one.deltas.keys() == two.deltas.keys()
    for name, delta in one.deltas.items():
        both = delta, two.deltas[name]
        yield tuple(each.up @ each.down if isinstance(each, LowRank) else each for each in both)  # type: ignore[misc]


@pytest.mark.parametrize("file", ["run/edit", "on-policy", "flux"])
def test_two_processes_make_the_edit_that_one_makes(made: tuple[Path, Path], file: str) -> None:
    one, two = (Edit.load(folder / f"{file}.safetensors") for folder in made)
    assert replace(two.card, curve=()) == replace(one.card, curve=())
    largest = max(float(delta.abs().max()) for delta, _ in pairs(one, two))
    assert largest > 0
    for here, there in pairs(one, two):
        torch.testing.assert_close(there, here, atol=1e-3 * largest, rtol=1e-3)


def test_two_processes_draw_what_one_draws(made: tuple[Path, Path]) -> None:
    """Each draws its share, in other batches than one process would; a picture does not tell of it."""
    one, two = ({path.name: path for path in (folder / "cache").rglob("*.png")} for folder in made)
    assert one.keys() == two.keys()
    assert len(one) == 2 * 2 * 3  # base and guard, two rows
    for name in one:
        first, second = (np.asarray(Image.open(path), int) for path in (one[name], two[name]))
        assert abs(first - second).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_ask_their_denoisers_equally_often(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Whatever sizes and guidance scales are mixed: where they share one denoiser, each call is one of all of them."""
    from unsee.denoising import record as recorder
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
    pipe = SimpleNamespace(unet=torch.nn.Linear(1, 1))
    for rank in range(count):
        process = SimpleNamespace(process_index=rank, num_processes=count)
        monkeypatch.setattr(recorder, "processes", lambda process=process: process)
        calls.append([])
        drawn.append([shot for pairs in render.batches(pipe, shots, render.Sampling(1, 4.0), 2) for shot, _ in pairs])
    assert all(one == calls[0] for one in calls)
    assert {shot for one in drawn for shot in one} == set(shots)


def test_two_processes_that_share_one_flux_answer_as_one_does(made: tuple[Path, Path]) -> None:
    """Each holds half of the weights; the model answers with an edit by LoRA and by a closed form."""
    one, two = (load_file(folder / "answers.safetensors") for folder in made)
    assert one.keys() == {"lora", "uce"}
    for name, answers in one.items():
        torch.testing.assert_close(two[name], answers, atol=1e-3, rtol=1e-3)
