"""Files from strangers get nowhere: each way in has a test."""

import ast
import dataclasses
import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import unsee
from unsee.cli.main import main
from unsee.edits.algebra import difference
from unsee.edits.card import Claims
from unsee.edits.edit import LowRank
from unsee.errors import InputError
from unsee.export import hub
from unsee.export.foreign import adopt
from unsee.io import lora
from unsee.io.safetensors import MOST_BYTES, MOST_HEADER
from unsee.models.fingerprint import fingerprint
from unsee.models.load import load
from unsee.models.model import model_name
from unsee.models.names import BUNDLED
from unsee.runs.config import build
from unsee.runs.erase import plan
from unsee.runs.folder import folder_name

SOURCE = Path(unsee.__file__).parent
EVIL = "x\x1b[2J\x07\u202e<script>alert(1)</script>](javascript:x)\n# y"


def raw(path: Path, header: object, data: bytes = b"", size: int | None = None) -> Path:
    """A safetensors file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)
    return path


def tensor(dtype: str = "F32", shape: tuple[int, ...] = (1,), end: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize("size", [MOST_HEADER + 1, 2**40, 2**64 - 1])
def test_a_huge_header_is_refused_at_once(tmp_path: Path, size: int) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="header has"):
        unsee.Edit.load(raw(tmp_path / "edit.safetensors", {}, size=size))
    assert time.monotonic() - start < 1


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path, edit: unsee.Edit) -> None:
    path = edit.save(tmp_path / "edit.safetensors")
    os.truncate(path, MOST_BYTES + 1)  # a sparse file: it takes no room
    with pytest.raises(InputError, match="larger than"):
        unsee.Edit.load(path)


@pytest.mark.parametrize(
    "name",
    ["vae.decoder.conv_in.weight", "unet", "unet.", "unet..a", "unet/../x", "../unet.a", "text_encoder.a"],
)  # fmt: skip
def test_an_edit_holds_weights_of_a_denoiser_only(tmp_path: Path, edit: unsee.Edit, name: str) -> None:
    path = unsee.Edit({name: torch.zeros(1)}, edit.card).save(tmp_path / "edit.safetensors")
    with pytest.raises(InputError, match="no weight of a denoiser"):
        unsee.Edit.load(path)


def test_unknown_weights_are_refused_before_the_model_is_changed(pipe: Any, edit: unsee.Edit) -> None:
    for name in ("unet.conv_in.weight.__class__", "unet.training", "transformer.conv_in.weight"):
        other = unsee.Edit({**edit.deltas, name: torch.zeros(1)}, edit.card)
        with pytest.raises(InputError, match="has no weight"), other.applied(pipe):
            pass


@pytest.mark.parametrize("dtype", ["I64", "I8", "BOOL", "U8"])
def test_weights_must_be_floating_point_numbers(tmp_path: Path, edit: unsee.Edit, dtype: str) -> None:
    header = {
        "unet.a": tensor(dtype, (8,), 64 if dtype == "I64" else 8),
        "__metadata__": {"unsee": edit.card.to_json()},
    }
    with pytest.raises(InputError, match=f"has type {dtype}"):
        unsee.Edit.load(raw(tmp_path / "edit.safetensors", header, bytes(64 if dtype == "I64" else 8)))


@pytest.mark.parametrize(
    "shapes",
    [
        {"up": (4, 2)},
        {"up": (4, 2), "down": (3, 4)},
        {"up": (4,), "down": (1, 4)},
        {"up": (4, 2), "down": (2, 4), "": (4, 4)},
    ],
    ids=["alone", "other rank", "a vector", "dense beside"],
)
def test_factors_come_in_pairs_that_fit(tmp_path: Path, edit: unsee.Edit, shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = {f"unet.a.{part}".rstrip("."): torch.zeros(shape) for part, shape in shapes.items()}
    save_file(tensors, tmp_path / "edit.safetensors", metadata={"unsee": edit.card.to_json()})
    with pytest.raises(InputError, match="no counterpart that fits"):
        unsee.Edit.load(tmp_path / "edit.safetensors")


def test_thin_factors_of_a_huge_matrix_take_no_room(pipe: Any, edit: unsee.Edit) -> None:
    """8 MB of factors stand for a matrix of 4 TB."""
    huge = unsee.Edit({next(iter(edit.deltas)): LowRank(torch.ones(10**6, 1), torch.ones(1, 10**6))}, edit.card)
    assert difference(huge, huge).sizes[0] == pytest.approx(10**6)
    with pytest.raises(InputError, match="has shape"), huge.applied(pipe):
        pass


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_in_a_file_must_be_finite(tmp_path: Path, edit: unsee.Edit, value: float) -> None:
    name = next(iter(edit.deltas))
    path = unsee.Edit({name: torch.full((2, 2), value)}, edit.card).save(tmp_path / "edit.safetensors")
    with pytest.raises(InputError, match="not finite"):
        unsee.Edit.load(path)


def test_numbers_stay_finite_in_the_model(pipe: Any, edit: unsee.Edit) -> None:
    name = next(iter(edit.deltas))
    shape = pipe.unet.get_parameter(name.removeprefix("unet.")).shape
    wide = torch.full(shape, 1e300, dtype=torch.float64)
    thin = LowRank(torch.full((shape[0], 1), 1e30), torch.full((1, shape[1]), 1e30))
    for delta in (wide, thin):
        with pytest.raises(InputError, match="too large"), unsee.Edit({name: delta}, edit.card).applied(pipe):
            pass


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def typed(*words: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["unsee", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out + err

    return typed


def evil(edit: unsee.Edit) -> unsee.Edit:
    claims = Claims(2, 0, 2, 3.0, {"objects": EVIL}, {EVIL: (1.0, 0.0)})
    changes: dict[str, Any] = {"base": EVIL, "base_hash": EVIL, "method": EVIL, "settings": {EVIL: EVIL}}
    changes |= {"concepts": (unsee.Concept(EVIL),), "versions": {EVIL: EVIL}, "kept": (EVIL,), "claims": claims}
    return dataclasses.replace(edit, card=dataclasses.replace(edit.card, **changes))


def test_no_text_of_a_card_controls_a_command(run: Callable[..., Any], edit: unsee.Edit, tmp_path: Path) -> None:
    evil(edit).save(tmp_path / "evil.safetensors")
    edit.save(tmp_path / "good.safetensors")
    for words in (
        ["show", "evil.safetensors"],
        ["diff", "good.safetensors", "evil.safetensors"],
        ["merge", "evil.safetensors", "--out", "out.safetensors"],
        ["verify", "evil.safetensors", "--model", "tiny"],
        ["export", "evil.safetensors", "--to", "comfy", "--model", "tiny"],
        ["generate", "a church", "--edit", "evil.safetensors"],
        ["push", "evil.safetensors", "a/b", "--dry-run", "--out", "hub"],
    ):
        _, said = run(*words)
        assert not {"\x1b", "\x07", "\u202e"} & set(said), words


def test_a_hub_card_escapes_every_word(edit: unsee.Edit) -> None:
    text = hub.readme(evil(edit).card, "a/b")
    body = text.split("---\n", 2)[2]
    for piece in ("<script", "](javascript", "\x1b", "\n# y"):
        assert piece not in body
    hostile = dataclasses.replace(
        edit.card, method="a\n---\nlicense: mit", concepts=(unsee.Concept("x\n---\nbase_model: y"),)
    )
    from huggingface_hub import ModelCard

    data = ModelCard(hub.readme(hostile, "a/b")).data
    assert data.license is None
    assert data.base_model is None


@pytest.mark.parametrize(
    "word", ["../../up", "/etc/passwd", "..", "a/b\\c", "C:\\x", "\0", "~root", "a" * 5000, "CON\n"]
)
def test_no_word_leads_out_of_a_folder(word: str, tmp_path: Path) -> None:
    name = folder_name([word])
    assert name
    assert len(name) <= 80
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()


def test_outputs_stay_beside_the_edit(run: Callable[..., Any], edit: unsee.Edit, tmp_path: Path) -> None:
    named = dataclasses.replace(edit, card=dataclasses.replace(edit.card, concepts=(unsee.Concept("../../../up"),)))
    (tmp_path / "in").mkdir()
    named.save(tmp_path / "in" / "edit.safetensors")
    assert run("export", "in/edit.safetensors", "--to", "comfy")[0] == 0
    assert run("push", "in/edit.safetensors", "a/b", "--dry-run")[0] == 0
    assert run("generate", "../../up", "--edit", "in/edit.safetensors", "-n", 1, "--steps", 2)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(list((tmp_path / "in").iterdir())) == 4


@pytest.mark.parametrize("base", ["~nobody/x", "a\0b", "x" * 5000, "/etc", "../..", "+", "@", "tiny+", "a@b@c", ""])
def test_a_base_that_is_no_model_is_refused(base: str) -> None:
    with pytest.raises(InputError):
        load(base)


def test_other_weights_are_refused_and_force_is_written_down(
    run: Callable[..., Any], pipe: Any, edit: unsee.Edit, tmp_path: Path
) -> None:
    edit.save(tmp_path / "edit.safetensors")
    with torch.no_grad():
        pipe.unet.conv_out.bias.add_(0.1)
        pipe.save_pretrained(tmp_path / "sibling")
        here = fingerprint(pipe.unet)
        pipe.unet.conv_out.bias.copy_(load("tiny").unet.conv_out.bias)
    words = ["export", "edit.safetensors", "--to", "comfy", "--model", "sibling"]
    code, said = run(*words)
    assert code == 2
    assert edit.card.base_hash[:12] in said
    assert here[:12] in said
    code, said = run(*words, "--force-base")
    assert code == 0, said
    with safe_open(tmp_path / "edit-comfy.safetensors", framework="pt") as file:
        origin = json.loads(file.metadata()["unsee_origin"])
    assert origin["forced_from"] == edit.card.base_hash
    assert origin["base_hash"] == here
    words = ["merge", "edit.safetensors", "--model", "sibling", "--out", "there.safetensors"]
    code, said = run(*words)
    assert code == 2
    assert "the weights here are" in said
    assert not (tmp_path / "there.safetensors").exists()
    assert run(*words, "--force-base")[0] == 0
    there = unsee.Edit.load(tmp_path / "there.safetensors")
    assert (there.card.base_hash, there.card.forced_from) == (here, edit.card.base_hash)
    assert run("verify", "there.safetensors", "--model", "sibling")[0] == 0
    words = ["generate", "a church", "--edit", "edit.safetensors", "--model", "sibling", "-n", 1, "--steps", 2]
    assert run(*words)[0] == 2
    assert run(*words, "--force-base")[0] == 0


def test_the_commit_of_a_hub_model_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--owner--model"
    shutil.copytree(BUNDLED["tiny"], place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = model_name(load("owner/model"))
    assert name == f"owner/model@{commit}"
    assert model_name(load(name)) == name
    asked = build({"concepts": [{"erase": "church"}], "model": "owner/model"})
    assert plan(asked).config.revision == commit


def test_every_reader_is_told_to_read_safetensors_only() -> None:
    """from_pretrained and its like fall back to pickles unless they are told not to; torch.load reads them."""
    told = {"from_pretrained": "use_safetensors", "load_lora_weights": "use_safetensors", "load": "weights_only"}
    seen = set()
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & imports, path
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            trusts = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "trust_remote_code"]
            assert "True" not in trusts, f"{path.name}:{node.lineno} runs a model's own code unasked"
            if not (isinstance(node.func, ast.Attribute) and node.func.attr in told):
                continue
            owner = ast.unparse(node.func.value)
            if node.func.attr == "load" and owner != "torch":
                continue
            if owner in ("AutoConfig", "AutoImageProcessor", "AutoTokenizer", "AutoProcessor"):
                continue  # settings, no weights
            wanted = told[node.func.attr]
            values = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == wanted]
            assert values == ["True"], f"{path.name}:{node.lineno} {owner}.{node.func.attr} without {wanted}=True"
            seen.add(node.func.attr)
    assert seen >= {"from_pretrained", "load_lora_weights", "load"}


def test_a_model_of_pickles_is_refused(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(pipe.unet.state_dict(), tmp_path / "model" / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="only safetensors are read"):
        load(str(tmp_path / "model"))
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(InputError):
        load(str(tmp_path / "model.ckpt"))


def test_code_beside_a_model_does_not_run(pipe: Any, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom diffusers import UNet2DConditionModel as Evil\n"
    index = json.loads((BUNDLED["tiny"] / "model_index.json").read_text())
    for change in ({"unet": ["evil", "Evil"]}, {"_class_name": ["evil", "Evil"]}, {"unet": ["os", "system"]}):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BUNDLED["tiny"], folder)
        (folder / "model_index.json").write_text(json.dumps({**index, **change}))
        for place in (folder, folder / "unet"):
            (place / "evil.py").write_text(code)
        with pytest.raises(InputError):
            load(str(folder))
        assert not (tmp_path / "ran").exists()


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_runs_nothing_even_when_it_is_asked_for(pipe: Any, tmp_path: Path) -> None:
    torch.save({"conv_in.weight": Bomb(tmp_path / "ran")}, tmp_path / "esd.pt")
    for unpickle in (False, True):
        with pytest.raises(InputError):
            adopt(tmp_path / "esd.pt", pipe, unpickle=unpickle)
    (tmp_path / "esd.pt").rename(tmp_path / "lora.bin")  # diffusers reads a LoRA of that name as a pickle
    with pytest.raises(InputError, match="no other kind is read"):
        lora.read_tensors(tmp_path / "lora.bin")
    assert not (tmp_path / "ran").exists()


def test_adapters_are_checked_and_their_metadata_is_not_obeyed(pipe: Any, tmp_path: Path) -> None:
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    width = pipe.unet.get_submodule(layer.removeprefix("unet.")).weight.shape

    def write(name: str, metadata: dict[str, Any] | str, **tensors: torch.Tensor) -> Path:
        path = tmp_path / f"{name}.safetensors"
        said = metadata if isinstance(metadata, str) else json.dumps(metadata)
        both = {"lora_A": torch.ones(2, width[1]), "lora_B": torch.ones(width[0], 2), **tensors}
        named = {f"{layer}.{part}" + (".weight" if part != "alpha" else ""): value for part, value in both.items()}
        save_file(named, path, {"lora_adapter_metadata": said})
        return path

    good = adopt(write("good", {"unet.alpha_pattern": {"(a+)+$": 1}, "unet.megatron_core": "evil"}), pipe)
    assert set(good.deltas) == {f"{layer}.weight"}
    for bad in (
        write("alpha", {"unet.lora_alpha": "NaN"}),
        write("infinite", {"unet.lora_alpha": 1e999}),
        write("deep", "[" * 100_000),
        write("nan", {}, lora_A=torch.full((2, width[1]), float("nan"))),
        write("shape", {}, lora_A=torch.ones(3, width[1])),
        write("width", {}, lora_A=torch.ones(2, 3)),
        write("rank", {}, lora_A=torch.ones(0, width[1]), lora_B=torch.ones(width[0], 0)),
        write("alphas", {}, alpha=torch.ones(3)),
        write("types", {}, lora_A=torch.ones(2, width[1], dtype=torch.int64)),
    ):
        with pytest.raises(InputError):
            adopt(bad, pipe)
        with pytest.raises(InputError):
            load(f"tiny+{bad}")
    assert not hasattr(pipe.unet, "peft_config")
    with pytest.raises(InputError, match="no name of a weight"):
        lora.read_tensors(raw(tmp_path / "name.safetensors", {"a\x1b[2J": tensor()}, bytes(4)))
