"""The formats that other tools read: how each is written, and how its reader opens it.

    pipeline        a folder for from_pretrained: the whole edited model
    delta           the changed weights themselves, for load_state_dict(strict=False): what the ESD authors' code writes
    diffusers-lora  for load_lora_weights, every family that diffusers gives a LoRA loader; peft's keys
    kohya-lora      UNets only: the keys of kohya's scripts, read by A1111, ComfyUI and diffusers
    comfy           differences of full rank under ComfyUI's and A1111's keys, scaled like a LoRA; see `comfy.py`. What
                    ComfyUI has no place for is left out

An export carries the edit's card under `unsee_origin`: it says where it comes from, and is not taken for an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from unsee.edits.edit import Delta, Edit, LowRank
from unsee.errors import InputError
from unsee.export import comfy
from unsee.export.lowrank import Loss, squares
from unsee.io.original_names import places
from unsee.models.denoisers import denoiser, denoisers
from unsee.models.load import channels_last
from unsee.models.model import Pipeline, kind, raw
from unsee.models.weights import temporary_values

ORIGIN = "unsee_origin"


@dataclass(frozen=True)
class Format:
    """
    write     (edit, pipe, path): write the edit of the model `pipe`
    opened    (pipe, path): a context with a pipeline into which the format's own reader has loaded the file
    use       what to do with the file {path}, for the denoiser {net}
    low_rank  whether it holds matrices of low rank only
    absolute  whether it holds weights instead of differences
    cut       (edit, pipe): what it can hold of an edit, and what is lost, where that is not everything
    stand_in  whether that reader is not one of those that the file is for: what it loses, others may take
    """

    write: Callable[[Edit, Pipeline, Path], None]
    opened: Callable[[Pipeline, Path], AbstractContextManager[Any]]
    use: str
    low_rank: bool = False
    absolute: bool = False
    cut: Callable[[Edit, Pipeline], tuple[Edit, Loss | None]] | None = None
    stand_in: bool = False


def matrices(pipe: Pipeline) -> set[str]:
    """The weights of which a LoRA can hold a difference: those of linear and of two-dimensional convolution layers."""
    key, net = denoiser(pipe)
    return {f"{key}.{name}.weight" for name, part in net.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}


def _placed(edit: Edit, pipe: Pipeline) -> tuple[Edit, Loss | None]:
    """The edit without the weights that ComfyUI has no place for, such as bare parameters, which it never patches.

    Raises InputError when nothing would be left.
    """
    key, net = denoiser(pipe)
    known = places(key, net)
    out = tuple(name for name in edit.deltas if name.removeprefix(f"{key}.") not in known)
    if len(out) == len(edit.deltas):
        raise InputError(f"ComfyUI has no key for {out[0]!r} of {type(net).__name__}: export to pipeline or delta")
    held = Edit({name: delta for name, delta in edit.deltas.items() if name not in out}, edit.card)
    return held, Loss(squares(held) / squares(edit), {}, out) if out else None


def adapted(pipe: Pipeline) -> set[str]:
    """The weights beside which a pipeline's denoiser has an adapter."""
    key, net = denoiser(pipe)
    return {f"{key}.{name}.weight" for name, part in net.named_modules() if getattr(part, "lora_A", None)}


def rounded(edit: Edit, dtype: torch.dtype) -> Edit:
    """The edit with its numbers in another type."""

    def part(delta: Delta) -> Delta:
        return delta.to(dtype) if isinstance(delta, Tensor) else LowRank(delta.up.to(dtype), delta.down.to(dtype))

    return Edit({name: part(delta) for name, delta in edit.deltas.items()}, edit.card)


# --- pipeline -------------------------------------------------------------------------------------------------------


def _write_pipeline(edit: Edit, pipe: Pipeline, path: Path) -> None:
    with edit.applied(pipe):
        raw(pipe).save_pretrained(path, safe_serialization=True)
    (path / "unsee.json").write_text(edit.card.to_json(), encoding="utf-8")


@contextmanager
def _open_pipeline(pipe: Pipeline, path: Path) -> Iterator[Any]:
    dtype = next(iter(denoisers(pipe).values())).dtype
    again: Any = DiffusionPipeline.from_pretrained(path, use_safetensors=True, dtype=dtype).to(pipe.device)  # type: ignore[no-untyped-call]
    again.set_progress_bar_config(disable=True)
    for name, part in pipe.components.items():
        # The layout in memory changes the order of sums, and the comparison is of weights.
        if isinstance(part, nn.Module) and any(not weight.is_contiguous() for weight in part.parameters()):
            channels_last(getattr(again, name))
    yield again


# --- delta ----------------------------------------------------------------------------------------------------------


def _write_delta(edit: Edit, pipe: Pipeline, path: Path) -> None:
    key, net = denoiser(pipe)
    names = [name.removeprefix(f"{key}.") for name in edit.deltas]
    with edit.applied(pipe):
        _save({name: net.get_parameter(name).detach() for name in names}, path, edit)


@contextmanager
def _open_delta(pipe: Pipeline, path: Path) -> Iterator[Any]:
    _, net = denoiser(pipe)
    tensors = load_file(path)
    parameters = {name: net.get_parameter(name) for name in tensors}
    with temporary_values(parameters, {name: value.data.clone() for name, value in parameters.items()}):
        if net.load_state_dict(tensors, strict=False).unexpected_keys:
            raise InputError(f"{path} holds weights that the model does not have")
        yield pipe


# --- LoRA -----------------------------------------------------------------------------------------------------------


def _factors(edit: Edit, pipe: Pipeline, rank: int = 0) -> dict[str, Tensor]:
    """peft's keys: X.lora_A.weight (r, in[, h, w]) and X.lora_B.weight (out, r[, 1, 1]); r is `rank` at least."""
    key, net = denoiser(pipe)
    state: dict[str, Tensor] = {}
    for name, delta in edit.deltas.items():
        assert isinstance(delta, LowRank)
        layer = name.removeprefix(f"{key}.").removesuffix(".weight")
        shape = net.get_parameter(f"{layer}.weight").shape
        more = max(rank - delta.up.shape[1], 0)
        up, down = pad(delta.up, (0, more)), pad(delta.down, (0, 0, 0, more))
        state[f"{layer}.lora_A.weight"] = down.reshape(-1, *shape[1:])
        state[f"{layer}.lora_B.weight"] = up.reshape(*up.shape, *(1 for _ in shape[2:]))
    return state


def _rank(edit: Edit) -> int:
    return max(delta.up.shape[1] for delta in edit.deltas.values() if isinstance(delta, LowRank))


def _write_lora(edit: Edit, pipe: Pipeline, path: Path) -> None:
    from peft import LoraConfig

    key, _ = denoiser(pipe)
    if not hasattr(kind(pipe), "save_lora_weights"):
        raise InputError(f"diffusers has no LoRA loader for {kind(pipe).__name__}: export to pipeline, delta or comfy")
    state = _factors(edit, pipe)
    ranks = {name.removesuffix(".lora_B.weight"): value.shape[1] for name, value in state.items() if "lora_B" in name}
    most = _rank(edit)
    # Without alpha in the file a reader takes alpha = rank. We write alpha = rank, so all readers do the same.
    targets = sorted(ranks)
    config: Any = LoraConfig(r=most, lora_alpha=most, rank_pattern=ranks, alpha_pattern=ranks, target_modules=targets)
    layers = {f"{key}_lora_layers": state, f"{key}_lora_adapter_metadata": config.to_dict()}
    writer: Any = kind(pipe)
    writer.save_lora_weights(path.parent, weight_name=path.name, safe_serialization=True, **layers)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    _save(load_file(path), path, edit, metadata)


def _write_kohya(edit: Edit, pipe: Pipeline, path: Path) -> None:
    key, net = denoiser(pipe)
    if key != "unet":
        raise InputError(
            f"kohya's keys are for UNets, not {type(net).__name__}: export to diffusers-lora"
            f"{', which ComfyUI reads too' if comfy.reads(net) else ''}"
        )
    # All layers get the highest rank, filled up with zeros: diffusers (0.42) misreads files in which alpha differs.
    rank, known = _rank(edit), places(key, net)
    state: dict[str, Tensor] = {}
    for name, value in _factors(edit, pipe, rank).items():
        layer, _, factor = name.partition(".lora_")
        stem = comfy.layer_key(net, layer, known[f"{layer}.weight"].tensor)
        state[f"{stem}.lora_{'down' if factor[0] == 'A' else 'up'}.weight"] = value
        state[f"{stem}.alpha"] = torch.tensor(float(rank))
    _save(state, path, edit, comfy.version(net))


@contextmanager
def _open_lora(pipe: Pipeline, path: Path) -> Iterator[Any]:
    raw(pipe).load_lora_weights(path.parent, weight_name=path.name, use_safetensors=True)
    try:
        yield pipe
    finally:
        raw(pipe).unload_lora_weights()


# --- comfy ----------------------------------------------------------------------------------------------------------


def _write_comfy(edit: Edit, pipe: Pipeline, path: Path) -> None:
    key, net = denoiser(pipe)
    deltas: dict[str, Tensor] = {}
    for name, delta in edit.deltas.items():
        weight = name.removeprefix(f"{key}.")
        shape = net.get_parameter(weight).shape
        deltas[weight] = delta.dense(shape).to(delta.up.dtype) if isinstance(delta, LowRank) else delta
    _save(comfy.pack(key, net, deltas), path, edit, comfy.version(net))


@contextmanager
def _open_comfy(pipe: Pipeline, path: Path) -> Iterator[Any]:
    """By the rule in ComfyUI's lora.py: .diff and .diff_b are added to what their keys name."""
    key, net = denoiser(pipe)
    parameters = dict(net.named_parameters())
    deltas, _ = comfy.unpack(key, net, load_file(path))
    values = {
        name: (parameters[name].data.float() + delta.to(parameters[name].device).float()).to(parameters[name].dtype)
        for name, delta in deltas.items()
    }
    with temporary_values(parameters, values):
        yield pipe


_FOLDERS = "put {path} into models/loras of ComfyUI, or models/Lora of A1111 and Forge"
FORMATS: dict[str, Format] = {
    "pipeline": Format(_write_pipeline, _open_pipeline, "DiffusionPipeline.from_pretrained({path!r})", absolute=True),
    "delta": Format(
        _write_delta, _open_delta, "pipe.{net}.load_state_dict(load_file({path!r}), strict=False)", absolute=True
    ),
    "diffusers-lora": Format(_write_lora, _open_lora, "pipe.load_lora_weights({path!r})", low_rank=True),
    "kohya-lora": Format(_write_kohya, _open_lora, _FOLDERS, low_rank=True, stand_in=True),
    "comfy": Format(_write_comfy, _open_comfy, _FOLDERS, cut=_placed),
}


def _save(tensors: dict[str, Tensor], path: Path, edit: Edit, metadata: dict[str, str] | None = None) -> None:
    tensors = {name: value.cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt", **(metadata or {}), ORIGIN: edit.card.to_json()})
