"""Models: a name, a folder or a hub id becomes a diffusers pipeline; which modules denoise; which weights it has."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import PartialState
from accelerate.hooks import AlignDevicesHook, CpuOffload
from accelerate.utils import parse_flag_from_env
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub import metadata_load, try_to_load_from_cache
from PIL import Image
from pydantic_core import to_jsonable_python
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unsee.borrow import borrowed
from unsee.encoding import each_text_once
from unsee.errors import InputError, Unsupported, unknown
from unsee.layers import own_names
from unsee.lora import TEXT, factors, layers, loaded, read_tensors
from unsee.sources import (
    PICKLES,
    check_channels,
    check_kind,
    checkers_of,
    from_file,
    part_of,
    read_index,
    refused,
    without_checkers,
)
from unsee.sources import variant as weights_variant

MINI = Path(__file__).parent / "mini"
"""The miniature Stable Diffusion that ships with this package, in the layout of a hub repository."""
FLOW = Path(__file__).parent / "mini-flow"
"""The second miniature, AuraFlow with a language model; `make mini-flow` writes its folder."""


@dataclass(frozen=True)
class Source:
    """The parts of a model's name, BASE[@VERSION][+LORA...].

    base     "mini", a folder, a hub id, or one checkpoint file
    version  of a hub id, its revision; of a file, the folder or hub id whose layout and settings it has
    loras    files that are put on top
    """

    base: str
    version: str | None
    loras: tuple[str, ...]


def source(model: str) -> Source:
    """Take a model's name apart; the name of an existing folder or file is taken as it is."""
    if len(model) < 1000 and Path(model).exists():
        return Source(model, None, ())
    whole, *loras = model.split("+")
    base, _, version = whole.partition("@")
    return Source(base, version or None, tuple(loras))


def folder(model: str) -> Path | None:
    """The folder a model name stands for; None for a hub id and for a file.

    Raises InputError for a folder that is no pipeline.
    """
    model = source(model).base
    if len(model) > 1000 or "\0" in model or re.match(r"~[^/]", model):
        raise InputError(f"{model[:100]!r} is no name of a model")
    path = {"mini": MINI, "mini-flow": FLOW}.get(model) or Path(model).expanduser()
    if path == FLOW and not path.is_dir():
        raise InputError("mini-flow does not lie in this package; in a clone of its repository run `make mini-flow`")
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            if kind := part_of(path):
                raise InputError(f"{model} is a {kind}, one part of a pipeline: give the folder of a whole pipeline")
            raise InputError(
                f"{model} is no pipeline folder: it has no model_index.json; save one with pipe.save_pretrained()"
            )
        return path
    if path.is_file() and path.suffix == ".safetensors":
        return None
    if path.is_file() and path.suffix in PICKLES:
        raise refused(path)
    if path.is_file() and path.suffix == ".gguf":
        raise InputError(
            f"{model} holds a denoiser alone, no text encoders: in Python, load it by diffusers' from_single_file with "
            "a GGUFQuantizationConfig, and give unsee the pipeline that it is a part of; lora works on it"
        )
    if path.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(
            f"there is no model {model!r}: give 'mini', a pipeline folder, or a hub id such as 'owner/name'"
        )
    return None


def processes() -> PartialState:
    """The processes that `torchrun` or `accelerate launch` has started; without it, just this one.

    On a machine without an accelerator accelerate has to be told so, or each process believes to be the only one.
    """
    return PartialState(cpu=not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))


def load(
    model: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A diffusers pipeline, frozen and in eval mode, ready to be recorded.

    model    "mini", a folder written by save_pretrained, a hub id or ID@REVISION, or a checkpoint FILE@LAYOUT, where
             LAYOUT is a folder or hub id of the same configuration; +FILE behind any of them puts a LoRA on top
    dtype    of all weights; default float32 on a CPU and bfloat16 elsewhere
    device   default is accelerate's choice (ACCELERATE_USE_CPU and the like are obeyed)
    variant  of the weights' files, such as "fp16"; default the plain ones, or what there is if there are none

    Call options that the model's own card names are kept, as `calling` keeps them; later ones go over them.
    Only safetensors are read. On a CPU, convolutions are laid out channels-last, which is several times faster there.
    Under `accelerate launch --use_fsdp` the denoiser is spread over all processes.
    The pipeline has no progress bar, and no safety checker or watermarker: `left_out` says which the model has.
    Raises InputError when the model cannot be found or is no pipeline.
    """
    model = str(model)
    path, parts = folder(model), source(model)
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
                pipe: Any = from_file(file, str(MINI) if parts.version == "mini" else parts.version, dtype)
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
        raise InputError(f"cannot load {model!r}: {' '.join(str(error).split())[:300]}") from error
    at = commit(parts.base, revision) if path is None and file is None else None
    pipe.unsee_revision, pipe.unsee_variant = at, variant
    if at or file or parts.loras:
        base = file.name if file else name(pipe)
        pipe.unsee_name = "+".join([f"{base}@{at}" if at else base, *(Path(lora).name for lora in parts.loras)])
    spread = processes().num_processes > 1 and parse_flag_from_env("ACCELERATE_USE_FSDP")
    if spread:
        shard(pipe)
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
            if device.type == "cpu" and not isinstance(part, FSDPModule):
                channels_last(part)
    kept = card(model).get("call", {})
    if not (isinstance(kept, dict) and all(isinstance(name, str) for name in kept)):
        raise InputError(f"the card of {model} should have options by name under `call`, as in {{height: 64}}")
    return calling(pipe, **kept)


@contextmanager
def loading(place: str | Path) -> Iterator[None]:
    """Within the context libraries show bars, but not in a file, nor for what is bundled, which loads in a second."""
    silent = MINI in (Path(place), *Path(place).parents) or not sys.stderr.isatty()
    libraries = (diffusers.utils.logging, transformers.utils.logging) if silent else ()
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def left_out(model: str, revision: str | None = None) -> tuple[str, ...]:
    """The checkers that a model has and that `load` leaves out: "safety_checker", "watermarker"."""
    path, parts = folder(model), source(model)
    place = path or (parts.version if Path(parts.base).is_file() else parts.base)
    if place is None:
        return ()
    place = MINI if place == "mini" else place
    version = revision or (parts.version if path is None and place == parts.base else None)
    try:
        return checkers_of(read_index(place, version))
    except (OSError, ValueError):
        return ()


def channels_last(part: nn.Module) -> None:
    """Lay weights of two-dimensional convolutions out as a CPU is fast with; those of other kinds do not take it."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def shard(pipe: Any) -> Any:
    """Spread the denoisers' weights over all processes (FSDP), and return the pipeline.

    Each process holds a part of every weight, and a block has its whole weights only while it runs. What changes a
    weight by training is then refused; adapters and closed forms work, and edits can be applied.
    """
    everyone = processes()
    mesh = init_device_mesh(everyone.device.type, (everyone.num_processes,))
    for net in denoisers(pipe).values():
        blocks = getattr(net, "_no_split_modules", None) or ()
        for module in reversed(list(net.modules())):  # what lies inside another comes first
            if module is net or type(module).__name__ in blocks:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return pipe


def full(tensor: Tensor) -> Tensor:
    """A tensor that may be spread over processes, in one piece; all of them must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def plain(tensor: Tensor) -> Tensor:
    """The numbers that a tensor stands for, in one piece; quantisers bring classes of tensors of their own."""
    packed = type(tensor).__module__.split(".")[0] != "torch" and hasattr(tensor, "dequantize")
    return tensor.dequantize() if packed else full(tensor)


def spread_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor on the device of another one, and spread over processes if that is."""
    tensor = tensor.to(other.device)
    if isinstance(other, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor


def _put_on(pipe: Any, lora: Path) -> None:
    """Add a LoRA to a pipeline's weights."""
    if not lora.is_file():
        raise InputError(f"there is no LoRA {lora}; where the model's parts lie is said by --model")
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


def snapshot(model: str, revision: str | None = None) -> Path | None:
    """The folder of a hub model's revision in the local cache; None if it is not there."""
    found = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def commit(model: str, revision: str | None = None) -> str | None:
    """The commit of a hub model's revision as it lies in the local cache; None if it does not."""
    found = snapshot(model, revision)
    return found.name if found else None


def card(model: str) -> dict[str, Any]:
    """What a model's own card (README.md) says under `unsee`.

    judges                 folders of classifiers by kind, as absolute paths here
    words                  a file that lists what the model knows: objects with their other names, styles and so on
    steps, guidance_scale  of the sampler, that suit the model
    call                   options of the pipeline's call, such as max_sequence_length; `load` keeps them
    """
    path = folder(model)
    if path is None or not (path / "README.md").is_file():
        return {}
    said: dict[str, Any] = (metadata_load(path / "README.md") or {}).get("unsee", {})
    judges = {kind: str(path / place) for kind, place in said.get("judges", {}).items()}
    return {**said, "judges": judges, **({"words": str(path / said["words"])} if "words" in said else {})}


def name(pipe: Any) -> str:
    """How a card names the model of a pipeline: "mini", a hub id@commit, or the last part of a path; then +LoRA."""
    if given := getattr(pipe, "unsee_name", None):
        return str(given)
    origin = str(getattr(pipe, "name_or_path", "") or "in memory")
    if Path(origin) == MINI:
        return "mini"
    return Path(origin).name if Path(origin).is_dir() else origin


def variant_of(pipe: Any) -> str | None:
    """Which variant of its files a pipeline was loaded from, as a card says it; None is the plain ones."""
    return getattr(pipe, "unsee_variant", None)


def denoisers(pipe: Any) -> dict[str, nn.Module]:
    """The modules that denoise, by the attribute of the pipeline that holds them.

    Raises InputError if there are none, and if their weights are replaced whenever they run: a change would be lost.
    """
    found = {key: getattr(pipe, key, None) for key in ("unet", "transformer", "transformer_2")}
    modules = {key: module for key, module in found.items() if isinstance(module, nn.Module)}
    if not modules:
        raise InputError(f"{type(pipe).__name__} has no denoiser: looked for {', '.join(found)}")
    for key, module in modules.items():
        if (how := _moved_by(module)) not in (None, "enable_model_cpu_offload"):
            raise InputError(
                f"the weights of {type(pipe).__name__}.{key} are replaced whenever they are used, by {how}: nothing "
                f"can be added to them; do without it for the {key}"
            )
    return modules


def denoiser(pipe: Any) -> tuple[str, nn.Module]:
    """The module that denoises, and its attribute's name, to be trained; of two, the one that is `focused`.

    Raises InputError as `denoisers` does, for a pipeline with two, and for a denoiser that moves between devices.
    """
    modules = denoisers(pipe)
    key = getattr(pipe, "unsee_denoiser", None)
    if key is None and len(modules) > 1:
        raise InputError(
            f"{type(pipe).__name__} has two denoisers ({', '.join(modules)}), one for noisy steps and one for the "
            "rest: methods edit both, and such edits are applied, merged and drawn with; this works on one network"
        )
    key = key or next(iter(modules))
    net = modules[key]
    if how := _moved_by(net):
        raise InputError(
            f"{type(pipe).__name__}.{key} moves from device to device, by {how}: it cannot be trained so; keep the "
            f"{key} on one device (text encoders may move), or train less of it"
        )
    return key, net


@contextmanager
def focused(pipe: Any, key: str) -> Iterator[nn.Module]:
    """Within the context `denoiser` is the one of that name, which it yields, and runs are recorded at its steps."""
    before = vars(pipe).get("unsee_denoiser")
    pipe.unsee_denoiser = key
    try:
        yield denoiser(pipe)[1]
    finally:
        if before is None:
            del pipe.unsee_denoiser
        else:
            pipe.unsee_denoiser = before


def _moved_by(module: nn.Module) -> str | None:
    """What replaces the weights of a module when it runs, in the words of diffusers; None if they stay."""
    for part in map(vars, module.modules()):  # a module asked for an attribute that it lacks is slow to say so
        hook = part.get("_hf_hook")  # of accelerate
        for one in getattr(hook, "hooks", (hook,)):
            if isinstance(one, CpuOffload):
                return "enable_model_cpu_offload"
            if isinstance(one, AlignDevicesHook) and one.offload:
                return "enable_sequential_cpu_offload"
        for name, how in (("group_offloading", "group_offload"), ("layerwise_casting", "layerwise_casting")):
            registry = part.get("_diffusers_hook")
            if registry is not None and registry.get_hook(name) is not None:
                return f"enable_{how}"
    return None


OURS = {"prompt", "generator", "num_inference_steps", "guidance_scale", "output_type", "return_dict"}
"""Options of a pipeline's call that this tool gives by itself."""


def calling(pipe: Any, /, **options: Any) -> Any:
    """Keep options that every call of a pipeline here shall have, such as height, width or num_frames; returns it.

    Runs are recorded and pictures drawn with them; a negative prompt is for pictures only. Raises InputError for one
    that the pipeline does not take, and for those that have an option of their own here.
    """
    taken = inspect.signature(type(pipe).__call__).parameters
    ours = OURS - ({"guidance_scale"} if "true_cfg_scale" in taken else set())
    for name in options:
        if name in ours:
            raise InputError(f"{name} is no option to keep with {type(pipe).__name__}: it is set for each call")
        if name not in taken:
            raise unknown(f"option of {type(pipe).__name__}", name, set(taken) - {"self"} - ours)
    pipe.unsee_options = {**call_options(pipe), **options}
    return pipe


def call_options(pipe: Any) -> dict[str, Any]:
    """The options that were kept with a pipeline by `calling`."""
    return dict(getattr(pipe, "unsee_options", {}))


def said_options(pipe: Any) -> dict[str, Any]:
    """The same for a card, as JSON has them; of a picture and the like only what it is."""
    said: dict[str, Any] = to_jsonable_python(call_options(pipe), fallback=lambda value: type(value).__name__)
    return said


def draw(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], steps: int, **options: Any) -> Any:
    """What a pipeline returns for prompts and seeds, B of each, and other options of its call.

    A text for one prompt (negative_prompt) goes to each of them. The pipeline is `borrowed`: no checker blacks pictures
    out. Raises InputError, in one line, for what the pipeline does not take.
    """
    each = {key: [value] * len(prompts) for key, value in options.items() if "prompt" in key and isinstance(value, str)}
    try:
        with borrowed(pipe), each_text_once(pipe):
            return pipe(
                prompt=list(prompts),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_inference_steps=steps,
                **{**options, **each},
            )
    except (InputError, FloatingPointError, MemoryError, torch.OutOfMemoryError):
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{type(pipe).__name__} cannot be run so: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:
        if should_reduce_batch_size(error):  # of a CPU and of MPS, to run out of memory is a plain RuntimeError
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise Unsupported(f"{type(pipe).__name__} is not supported: it raises {said}") from error


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: sha256 over names, shapes and values, in hex.

    Values are rounded to bfloat16 first, so that one model loaded in float32 and in bfloat16 has one fingerprint. An
    adapter that is on a module is no part of it.
    """
    digest, state = hashlib.sha256(), module.state_dict()
    for key, name in sorted(own_names(module, state).items()):
        value = state[name]
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(plain(value.detach()).to(torch.bfloat16).cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def base_hash(pipe: Any, keys: Iterable[str]) -> str:
    """What a card says of the weights of the denoisers of these names: a fingerprint; of two, the hash of both."""
    nets = denoisers(pipe)
    found = [fingerprint(nets[key]) for key in sorted(set(keys))]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def tokenizer(pipe: Any) -> Any:
    """A pipeline's first tokenizer. Raises InputError if it has none."""
    found = next((part for part in pipe.components.values() if hasattr(part, "get_vocab")), None)
    if found is None:
        raise InputError(f"{type(pipe).__name__} has no tokenizer to take words from")
    return found


def vocabulary(pipe: Any) -> list[str]:
    """The words of three letters and more for which a pipeline's first tokenizer has a token of its own, sorted."""
    tokens = tokenizer(pipe).get_vocab()
    # CLIP marks the end of a word, sentencepiece and byte-level BPE its beginning, WordPiece all but its beginning.
    often = [
        mark for mark in ("</w>", "\u2581", "\u0120", "##") if sum(mark in token for token in tokens) > len(tokens) / 8
    ]
    words = {token.replace(mark, "").lower() for mark in often if mark != "##" for token in tokens if mark in token}
    words |= {token.lower() for token in tokens if "##" in often and not token.startswith("##")}
    return sorted(word for word in words if word.isalpha() and len(word) > 2)


def picture(path: str) -> Image.Image:
    """A picture from a file, in RGB. Raises InputError if there is none."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the picture {path}: {error}") from error


def check_prompts(pipe: Any, prompts: Iterable[str]) -> None:
    """Raise InputError for a prompt that is longer than every text encoder of the pipeline reads; say what is cut."""
    tokenizers = [part for part in pipe.components.values() if hasattr(part, "model_max_length")]
    for prompt in prompts:
        cut = []
        for tokenizer in tokenizers:
            ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
            # The end mark takes the last place that is read.
            cut.append(tokenizer.decode(ids[tokenizer.model_max_length - 1 :], skip_special_tokens=True).strip())
        if cut and all(cut):
            raise InputError(
                f"{prompt!r} is longer than the text encoder reads: {min(cut, key=len)!r} would be cut off"
            )
