"""A model's name becomes a diffusers pipeline."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack

import diffusers
import torch
import transformers
from accelerate.utils import parse_flag_from_env
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from torch import nn
from torch.distributed.fsdp import FSDPModule

from unsee.errors import InputError
from unsee.io.lora import TEXT, factors, layers, loaded, read_tensors
from unsee.models.denoisers import denoiser
from unsee.models.distributed import processes, shard
from unsee.models.memory import check_room
from unsee.models.model import Loaded, Model, model_name, remembered
from unsee.models.model_card import ModelCard, model_card
from unsee.models.names import BUNDLED, commit, model_folder, snapshot, source
from unsee.models.sources import (
    check_channels,
    check_kind,
    checkers_of,
    from_file,
    read_index,
    without_checkers,
)
from unsee.models.sources import variant as weights_variant


class Options(TypedDict, total=False):
    """The options of `load`."""

    dtype: torch.dtype | None
    device: str | torch.device | None
    revision: str | None
    variant: str | None
    call: Mapping[str, Any] | None
    trust_remote_code: bool
    card: ModelCard | None


def load(
    model: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    variant: str | None = None,
    call: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    card: ModelCard | None = None,
) -> Loaded:
    """A diffusers pipeline, frozen and in eval mode, ready to be recorded.

    model    "mini", a folder written by save_pretrained, a hub id or ID@REVISION, or a model file FILE@LAYOUT, where
             LAYOUT is a folder or hub id of the same configuration; +FILE behind any of them puts a LoRA on top
    dtype    type of all weights; default float32 on a CPU and bfloat16 elsewhere
    device   default is accelerate's choice (ACCELERATE_USE_CPU and the like are obeyed)
    variant  variant of the weights' files, such as "fp16"; default: files without a variant, or the only variant
    call     options of every call, in recorded runs and pictures (see Model); they go before those of the model's card
    trust_remote_code  run code that comes with the model
    card     what the model's own card says, if it has been read already

    Only safetensors are read. On a CPU, convolutions are laid out channels-last, which is several times faster there.
    Under `accelerate launch --use_fsdp` the denoiser is spread over all processes.
    The pipeline has no progress bar, and no safety checker or watermarker: `Model.left_out` says which.
    Raises InputError when the model cannot be found or is no pipeline, and MemoryError, which names what would fit,
    when a GPU has no room for its weights.

        >>> pipe = unsee.load("mini")
        >>> picture = pipe("a church", num_inference_steps=4).images[0]
    """
    model = str(model)
    card = card or model_card(model)
    path, parts = model_folder(model), source(model)
    revision = revision or (parts.version if path is None else None)
    file = Path(parts.base) if path is None and Path(parts.base).is_file() else None
    device = torch.device(device) if device is not None else processes().device
    device = torch.device("cpu") if device.type == "cpu" else device  # accelerate counts them: cpu:0
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        with loading(path or parts.base):
            if file is not None and variant is not None:
                raise InputError(f"{file} is one file, which has no variant {variant!r}: leave it out")
            if file is not None:
                layout = BUNDLED.get(parts.version or "") or parts.version
                pipe, index = from_file(file, layout and str(layout), dtype)
            else:
                here = path or snapshot(parts.base, revision)
                index = read_index(path or parts.base, revision)
                check_kind(model, index["_class_name"])
                variant = weights_variant(here, variant, None if path else parts.base, revision)
                pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                    path or parts.base,
                    dtype=dtype,
                    use_safetensors=True,
                    revision=revision,
                    variant=variant,
                    trust_remote_code=trust_remote_code,
                    **without_checkers(index),
                )
            for lora in parts.loras:
                _put_on(pipe, Path(lora).expanduser())
        check_kind(model, type(pipe).__name__)
        check_channels(model, pipe)
    except InputError:
        raise
    except (OSError, ValueError, SingleFileComponentError) as error:
        hub = "there is no such folder, and the hub gave no model: " if path is None and file is None else ""
        raise InputError(f"cannot load {model!r}: {hub}{' '.join(str(error).split())[:300]}") from error
    at = commit(parts.base, revision) if path is None and file is None else None
    base = file.name if file else model_name(pipe)
    name = "+".join([f"{base}@{at}" if at else base, *(Path(lora).name for lora in parts.loras)])
    spread = processes().num_processes > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP")
    if spread:
        shard(pipe)
    elif device.type in ("cuda", "xpu"):  # what mps has left is advice
        check_room(pipe, device)
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
            if device.type == "cpu" and not isinstance(part, FSDPModule):
                channels_last(part)
    opened = Model(pipe, name, at, card, {**card.call, **(call or {})}, checkers_of(index), variant)
    loaded: Loaded = remembered(opened).pipe
    return loaded


def open_model(model: str | Path, **options: Unpack[Options]) -> Model:
    """The Model of a name, with the options of `load`."""
    return Model.of(load(model, **options))


@contextmanager
def loading(place: str | Path) -> Iterator[None]:
    """Within the context libraries show bars, but not in a file, nor for what is bundled, which loads in a second."""
    bundled = {Path(place), *Path(place).parents}.intersection(BUNDLED.values())
    silent = bool(bundled) or not sys.stderr.isatty()
    libraries = (diffusers.utils.logging, transformers.utils.logging) if silent else ()
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def channels_last(part: nn.Module) -> None:
    """Lay weights of two-dimensional convolutions out as a CPU is fast with; those of other kinds do not take it."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _put_on(pipe: Any, lora: Path) -> None:
    """Add a LoRA to a pipeline's weights."""
    if not lora.is_file():
        raise InputError(f"there is no LoRA {lora}, which `model` names as MODEL+LORA")
    key, net = denoiser(pipe)
    folded = factors(lora, *read_tensors(lora))
    found = layers(lora, folded, key, net)
    if found.unknown and found.factors:
        raise InputError(
            f"{lora}: {len(found.unknown)} of {len(found.unknown) + len(found.factors)} layers are not in this"
            f" {type(net).__name__}, such as {min(found.unknown)[:200]!r}"
        )
    for name, (up, down) in found.factors.items():
        weight = net.get_parameter(name).data
        weight.copy_(weight.float() + (up.float() @ down.float()).reshape(weight.shape))
        if not torch.isfinite(weight).all():
            raise InputError(f"with {lora} {name!r} holds numbers too large for {weight.dtype}")
    rest = folded if found.unknown else {name: value for name, value in folded.items() if TEXT.match(name)}
    if rest:
        with loaded(pipe, lora, rest):
            pipe.fuse_lora(safe_fusing=True)  # refuses numbers that are not finite
