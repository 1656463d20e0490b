"""The script of `make gpu`, with toys on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.sized import BUILD, build
from unsee.models.model import call_options


@pytest.mark.parametrize("name", BUILD)
def test_the_small_models_of_the_benchmark_draw(name: str) -> None:
    pipe = build(name, torch.device("cpu"), toy=True)
    picture = pipe("a church", num_inference_steps=1, output_type="pt", **call_options(pipe)).images
    assert picture.shape[:2] == (1, 3)
    assert torch.isfinite(picture).all()


def test_each_result_is_written_and_a_part_that_takes_too_long_leaves_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts themselves are processes; here two stand in for them."""
    lines = [
        {"part": "SD 1.4", "what": "row forward", "seconds": 0.01, "peak": 2e9},
        {"part": "SD 1.4", "what": "row forward and backward", "seconds": 0.03, "peak": 3e9},
        {"part": "SD 1.4", "what": "erase", "failed": "out of memory"},
    ]

    def run(command: list[str], stdout: object, timeout: float, **_: object) -> None:
        if "SD 1.4" in command:
            stdout.write("\n".join(map(json.dumps, lines)) + "\n")  # type: ignore[attr-defined]
            return
        assert "| SD 1.4 | erase | | | out of memory |" in (tmp_path / "gpu.md").read_text()
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(gpu, "WHEELS", {"no_such_wheel": "bases of no bits"})
    argv = ["gpu", "--toy", "--out", str(tmp_path / "gpu.md"), "--only", "SD 1.4", "SDXL"]
    monkeypatch.setattr(sys, "argv", argv)
    gpu.main()
    text = (tmp_path / "gpu.md").read_text()
    assert "Card: a CPU" in text
    assert "no_such_wheel is lacking, so bases of no bits were left out" in text
    # 1000 updates of 25 steps of two rows, three asked and one learned: 1000 (53 x 0.01 + 0.03) = 560
    assert "| SD 1.4 | the authors' loop, counted | 560 |" in text
    assert "| SD 1.4 | bare training, counted | 6 |" in text  # 12 x 16 x 0.03
    assert "| SDXL | the rest | | | stopped after 150 s |" in text


def test_a_part_runs_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.measure("SD 1.4", toy=True)
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"part"')]
    assert [one["what"] for one in results] == [
        "load", "row forward", "row forward and backward", "erase", "LoRA", "evaluate",
    ]  # fmt: skip
    assert all("failed" not in one and one["seconds"] > 0 and one["peak"] > 0 for one in results), results
    assert {"record s", "keep s", "fit s"} <= set(results[3])
