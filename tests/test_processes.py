"""Two processes make what one makes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unsee.edit import Edit, LowRank

LAUNCH = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of what one process made, and two (together.py says what)."""
    script = str(Path(__file__).with_name("together.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder, command in zip(folders, ([], LAUNCH)):
        words = [sys.executable, *command, script, str(folder)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("writes") == 1  # one process speaks
    return folders


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


def test_two_processes_that_share_one_flux_answer_as_one_does(made: tuple[Path, Path]) -> None:
    """Each holds half of the weights; the model answers with an edit by LoRA and by a closed form."""
    one, two = (load_file(folder / "answers.safetensors") for folder in made)
    assert one.keys() == {"lora", "uce"}
    for name, answers in one.items():
        torch.testing.assert_close(two[name], answers, atol=1e-3, rtol=1e-3)
