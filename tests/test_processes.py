"""Two processes make what one makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unsee

SETTINGS = {"steps": 3, "batch": 3, "runs": 3, "keep_runs": 2, "spared": 8}
QUICK = ["--steps", "2", "--updates", "4", "-n", "2", *[f"--set={key}={value}" for key, value in SETTINGS.items()]]
ON_POLICY = ["--set=rerecord=1", "--set=held_out=0", "--set=runs=1"]


@pytest.mark.parametrize("more", [[], ON_POLICY], ids=["once", "on-policy"])
def test_two_processes_make_the_edit_that_one_makes(tmp_path: Path, more: list[str]) -> None:
    erase = ["-m", "unsee.cli", "erase", "church", *QUICK, *more, "--out"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    for name, command in (("one", []), ("two", launch)):
        words = [sys.executable, *command, *erase, str(tmp_path / name)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("writes") == 1  # one process speaks
    one, two = (unsee.Edit.load(tmp_path / name / "edit.safetensors") for name in ("one", "two"))
    largest = max(delta.abs().max() for delta in one.deltas.values())
    assert largest > 0
    for name, delta in one.deltas.items():
        torch.testing.assert_close(two.deltas[name], delta, atol=1e-3 * largest, rtol=1e-3)
