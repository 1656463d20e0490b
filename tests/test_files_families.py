"""Every family in small: what its formats hold is read back, and what it has no format for is said."""

from pathlib import Path
from typing import Any

import pytest
import torch

import unsee
from unsee.edits.card import Card
from unsee.errors import InputError
from unsee.export.foreign import adopt
from unsee.export.formats import FORMATS
from unsee.methods.uce import UCE
from unsee.models.denoisers import denoiser
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.weights import select
from unsee.runs.export import Precision, export

zoo = pytest.importorskip("zoo")


def random_edit(pipe: Any, matrices_only: bool) -> unsee.Edit:
    key, net = denoiser(pipe)
    rng = torch.Generator().manual_seed(0)
    deltas = {
        f"{key}.{name}": 0.6 * weight.std() * torch.randn(weight.shape, generator=rng)
        for name, weight in select(net, "cross-kv").items()
        if weight.ndim > 1 or not matrices_only
    }
    return unsee.Edit(dict(deltas), Card("random", {}, (unsee.Concept("church"),), "zoo", fingerprint(net), 0, {}))


NO_UNET = set(zoo.ZOO) - {"sd", "sd-v", "sdxl"}
LACKING: dict[str, set[str]] = {
    "pipeline": set(),
    "delta": set(),
    "diffusers-lora": {"pixart-sigma", "cogview3"},
    "kohya-lora": NO_UNET,
    "comfy": {"sana", "cogview3"},
}
"""By format, the families that it is not for. Wan 2.2 has two denoisers: see below."""


@pytest.mark.parametrize("family", [family for family in zoo.ZOO if family != "wan-2.2"])
def test_every_family_reads_back(family: str, tmp_path: Path) -> None:
    pipe = zoo.build(family)
    for to, form in FORMATS.items():
        edit = random_edit(pipe, form.low_rank)
        out = tmp_path / f"{to}.safetensors"
        options: dict[str, Any] = {"precision": Precision(energy=1.0)} if form.low_rank else {}
        if family in LACKING[to]:
            with pytest.raises(InputError, match=r"are for UNets|no LoRA loader|ComfyUI has no key"):
                export(edit, pipe, to, out, **options)
            assert not out.exists()
            continue
        done = export(edit, pipe, to, out, **options)
        assert done.effect > 0.01
        assert done.difference < 1e-3 * done.effect
        assert done.exact is not form.low_rank
        if to != "pipeline":
            again = adopt(out, pipe)
            with again.applied(pipe):
                out = done.loss.out if done.loss else ()
                found = {name: pipe_weight(pipe, name).clone() for name in edit.deltas if name not in out}
                assert len(out) == (1 if (family, to) == ("krea2", "comfy") else 0)  # a norm, which ComfyUI lacks
            with edit.applied(pipe):
                for name, value in found.items():
                    torch.testing.assert_close(value, pipe_weight(pipe, name), rtol=0, atol=1e-5)


def test_of_two_denoisers_the_whole_pipeline_is_written(tmp_path: Path) -> None:
    pipe = zoo.build("wan-2.2")
    edit = UCE(context_words=0, preserve_words=0)(pipe, unsee.Concept("church"))
    done = export(edit, pipe, "pipeline", tmp_path / "edited")
    assert done.exact
    again = load(str(tmp_path / "edited"))
    for name in edit.deltas:
        key, weight = name.split(".", 1)
        here, there = (getattr(one, key).get_parameter(weight) for one in (pipe, again))
        assert not torch.equal(here, there)
    for to in FORMATS.keys() - {"pipeline"}:
        with pytest.raises(InputError, match="two denoisers"):
            export(edit, pipe, to, tmp_path / f"{to}.safetensors")


def pipe_weight(pipe: Any, name: str) -> torch.Tensor:
    key, net = denoiser(pipe)
    weight: torch.Tensor = net.get_parameter(name.removeprefix(f"{key}.")).detach()
    return weight
