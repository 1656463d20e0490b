"""What test_processes.py starts: LoRA on a tiny FLUX, whole in one process or spread over several.

python tests/sharded.py FILE
"""

import os
import sys
from pathlib import Path

import pytest
import torch
import zoo
from safetensors.torch import save_file

import unsee
from unsee.errors import InputError
from unsee.methods.lora import LoRA
from unsee.methods.uce import UCE
from unsee.pipelines import denoiser, fingerprint, full, processes, shard
from unsee.recorder import record

SMALL = {"steps": 2, "batch": 3, "runs": 3, "keep_runs": 2, "held_out": 1, "spared": 4, "updates": 6}

pipe, everyone, file = zoo.build("flux-dev"), processes(), Path(sys.argv[1])
_, net = denoiser(pipe)
size = sum(weight.numel() for weight in net.parameters())
base = fingerprint(net)
concept = unsee.Concept("church")
if everyone.num_processes > 1:
    shard(pipe)
    held = sum(weight.to_local().numel() for weight in net.parameters())  # type: ignore[attr-defined]
    assert held < 0.6 * size, f"{held} of {size} numbers are here"
    with pytest.raises(InputError, match="spread over processes"):
        unsee.ESD(**SMALL)(pipe, concept)
assert fingerprint(net) == base
edit = LoRA(**SMALL)(pipe, concept)
moved = UCE(spared=4)(pipe, concept)
answers = {}
for name, one in (("lora", edit), ("uce", moved)):
    with one.applied(pipe):
        (step,) = record(pipe, ["a church", "a dog", "a cat"], seeds=[1, 2, 3], steps=2, at=[1])
        answers[name] = step.concept.output.contiguous()
        assert fingerprint(net) != base
    assert fingerprint(net) == base
if everyone.is_main_process:
    edit.save(file.with_suffix(".edit.safetensors"))
    save_file(answers, file)
fresh = denoiser(zoo.build("flux-dev"))[1].parameters()
assert all(torch.equal(full(weight), other) for weight, other in zip(net.parameters(), fresh))
everyone.wait_for_everyone()
sys.stdout.flush()
os._exit(0)  # gloo's threads may outlive the interpreter and abort it, after all is checked and written
