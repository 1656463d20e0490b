"""What test_processes.py makes by itself, and starts as two processes that share the work.

python tests/together.py FOLDER MODEL
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import save_file

import unsee
from unsee.cli.main import main
from unsee.denoising.record import Runs, record
from unsee.edits.edit import Edit
from unsee.errors import InputError
from unsee.methods.lora import LoRA
from unsee.methods.uce import UCE
from unsee.models.denoisers import denoiser
from unsee.models.distributed import processes, shard, whole_tensor
from unsee.models.fingerprint import fingerprint

CHURCH = unsee.Concept("church")
QUICK = {
    "record_steps": 2,
    "batch": 3,
    "runs": 3,
    "keep_runs": 2,
    "preserve_words": 8,
    "context_words": 4,
    "updates": 2,
}
ON_POLICY = QUICK | {"rerecord": 1, "held_out": 0, "runs": 1, "updates": 2}
FLUX = {
    "record_steps": 2,
    "batch": 3,
    "runs": 3,
    "keep_runs": 2,
    "held_out": 1,
    "preserve_words": 4,
    "context_words": 2,
    "updates": 2,
}


def typed(*words: str | Path) -> None:
    sys.argv = ["unsee", *map(str, words)]
    with suppress(SystemExit):  # after an error nothing is left to compare
        main()


def save(edit: Edit, path: Path) -> None:
    if processes().is_main_process:
        edit.save(path)


def share_a_flux(folder: Path) -> None:
    """FSDP: each process holds its share of the weights, and the edits are the same."""
    pipe = zoo.build("flux-dev")
    _, net = denoiser(pipe)
    size = sum(weight.numel() for weight in net.parameters())
    base = fingerprint(net)
    if processes().num_processes > 1:
        shard(pipe)
        held = sum(weight.to_local().numel() for weight in net.parameters())  # type: ignore[attr-defined]
        assert held < 0.6 * size, f"{held} of {size} numbers are here"
        with pytest.raises(InputError, match="spread over processes"):
            unsee.Hybrid(**FLUX)(pipe, CHURCH)
    assert fingerprint(net) == base
    edits = {"lora": LoRA(**FLUX)(pipe, CHURCH), "uce": UCE(preserve_words=4, context_words=2)(pipe, CHURCH)}
    answers = {}
    for name, edit in edits.items():
        with edit.applied(pipe):
            (step,) = record(pipe, ["a church", "a dog", "a cat"], seeds=[1, 2, 3], runs=Runs(2), at=[1])
            answers[name] = step.concept.output.contiguous()
            assert fingerprint(net) != base
        assert fingerprint(net) == base
    save(edits["lora"], folder / "flux.safetensors")
    if processes().is_main_process:
        save_file(answers, folder / "answers.safetensors")
    fresh = denoiser(zoo.build("flux-dev"))[1].parameters()
    assert all(torch.equal(whole_tensor(weight), other) for weight, other in zip(net.parameters(), fresh))


def make(folder: Path, model: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in QUICK.items()]
    typed("erase", "church", "--model", model, *settings, "--steps", "1", "-n", "2", "--out", folder / "run")
    drawn = ["--concept", "church", "-n", "3", "--steps", "1", "--batch", "4", "--guard", "negative"]
    typed("evaluate", model, "--suite", "pictures", *drawn, "--cache", folder / "cache", "--out", folder / "drawn")
    save(unsee.Hybrid(**ON_POLICY)(unsee.load(str(model)), CHURCH), folder / "on-policy.safetensors")
    share_a_flux(folder)
    processes().wait_for_everyone()


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive the interpreter and abort it, after all is checked and written
