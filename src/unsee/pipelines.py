"""Models: a name, a folder or a hub id becomes a diffusers pipeline; which modules denoise; which weights it has."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
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
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError, fetch_diffusers_config
from huggingface_hub import metadata_load, try_to_load_from_cache
from PIL import Image
from pydantic_core import to_jsonable_python
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unsee.errors import InputError, unknown
from unsee.lora import factors, loaded, read_tensors

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
            raise InputError(
                f"{model} is no pipeline folder: it has no model_index.json; save one with pipe.save_pretrained()"
            )
        return path
    if path.is_file() and path.suffix == ".safetensors":
        return None
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
    model: str,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A diffusers pipeline, frozen and in eval mode, ready to be recorded.

    model    "mini", a folder written by save_pretrained, a hub id or ID@REVISION, or a checkpoint FILE@LAYOUT, where
             LAYOUT is a folder or hub id of the same configuration; +FILE behind any of them puts a LoRA on top
    dtype    of all weights; default float32 on a CPU and bfloat16 elsewhere
    device   default is accelerate's choice (ACCELERATE_USE_CPU and the like are obeyed)

    Call options that the model's own card names are kept, as `calling` keeps them; later ones go over them.
    Only safetensors are read. On a CPU, convolutions are laid out channels-last, which is several times faster there.
    Under `accelerate launch --use_fsdp` the denoiser is spread over all processes.
    Raises InputError when the model cannot be found or is no pipeline.
    """
    path, parts = folder(model), source(model)
    revision = revision or (parts.version if path is None else None)
    file = Path(parts.base) if path is None and Path(parts.base).is_file() else None
    device = torch.device(device) if device is not None else processes().device
    device = torch.device("cpu") if device.type == "cpu" else device  # accelerate counts them: cpu:0
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    options: dict[str, Any] = {}
    if path and "safety_checker" in json.loads((path / "model_index.json").read_text()):
        # Its verdict would black out pictures and so be counted as erasing; evaluation must see what the model draws.
        options = {"safety_checker": None, "requires_safety_checker": False}
    # The bundled model loads in a second, and bars that only flash hide what is said; others keep theirs.
    for library in (diffusers.utils.logging, transformers.utils.logging):
        (library.disable_progress_bar if path == MINI else library.enable_progress_bar)()
    try:
        if file is not None:
            pipe: Any = _from_file(file, parts.version, dtype)
        else:
            pipe = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
                path or parts.base,
                dtype=dtype,
                use_safetensors=True,
                revision=revision,
                trust_remote_code=trust_remote_code,
                **options,
            )
        for lora in parts.loras:
            _put_on(pipe, Path(lora).expanduser())
    except (OSError, ValueError, SingleFileComponentError) as error:
        raise InputError(f"cannot load {model!r}: {' '.join(str(error).split())[:300]}") from error
    at = commit(parts.base, revision) if path is None and file is None else None
    pipe.unsee_revision = at
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


def spread_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A tensor on the device of another one, and spread over processes if that is."""
    tensor = tensor.to(other.device)
    if isinstance(other, DTensor):
        return distribute_tensor(tensor, other.device_mesh, other.placements)
    return tensor


def _from_file(file: Path, layout: str | None, dtype: torch.dtype) -> Any:
    """A pipeline from one checkpoint file with the configuration of `layout`; by default what diffusers guesses."""
    place = MINI if layout == "mini" else layout
    if place is None:
        guessed: Any = fetch_diffusers_config(load_file(file))  # type: ignore[no-untyped-call]
        place = guessed["pretrained_model_name_or_path"]
    index: dict[str, Any] = DiffusionPipeline.load_config(str(place))
    kind = getattr(diffusers, index["_class_name"])
    without = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    return kind.from_single_file(str(file), config=str(place), dtype=dtype, **without)


def _put_on(pipe: Any, lora: Path) -> None:
    """Add a LoRA to a pipeline's weights."""
    if not lora.is_file():
        raise InputError(f"there is no LoRA {lora}; where the model's parts lie is said by --model")
    with loaded(pipe, lora, factors(lora, *read_tensors(lora))):
        pipe.fuse_lora(safe_fusing=True)  # refuses numbers that are not finite


def commit(model: str, revision: str | None = None) -> str | None:
    """The commit of a hub model's revision as it lies in the local cache; None if it does not."""
    found = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


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
    pipe.unsee_denoiser = key
    try:
        yield denoiser(pipe)[1]
    finally:
        del pipe.unsee_denoiser


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

    A text for one prompt (negative_prompt) goes to each of them. Raises InputError, in one line, for what the pipeline
    does not take.
    """
    each = {key: [value] * len(prompts) for key, value in options.items() if "prompt" in key and isinstance(value, str)}
    try:
        return pipe(
            prompt=list(prompts),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            **{**options, **each},
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{type(pipe).__name__} cannot be run so: {' '.join(str(error).split())[:300]}") from error


def guided(pipe: Any, scale: float) -> dict[str, Any]:
    """The options that turn a pipeline's classifier-free guidance on: u + scale (c - u)."""
    if _true_scale(pipe) is not None:
        return {"true_cfg_scale": scale, "negative_prompt": ""}
    return {"guidance_scale": scale - _off(pipe)}


def unguided(pipe: Any) -> dict[str, Any]:
    """The options that turn it off. Guidance that is distilled into the network stays as it is."""
    if _true_scale(pipe) is not None:
        return {"true_cfg_scale": 1.0}
    distilled = getattr(getattr(denoiser(pipe)[1], "config", None), "guidance_embeds", False)
    return {} if distilled else {"guidance_scale": 1.0 - _off(pipe)}


def for_pictures(pipe: Any, scale: float) -> dict[str, Any]:
    """The options with which pictures are drawn at a guidance scale: those that turn it on, and those kept with it.

    A pipeline that leaves true_cfg_scale off by itself, as FLUX.1 does, has its guidance distilled into the network:
    the scale is then what the network reads, and real guidance comes with `calling(pipe, true_cfg_scale=...)`.
    """
    own = _true_scale(pipe)
    options = {"guidance_scale": scale} if own is not None and own <= 1 else guided(pipe, scale)
    options |= call_options(pipe)
    return {"negative_prompt": "", **options} if options.get("true_cfg_scale", 1.0) > 1 else options


def _true_scale(pipe: Any) -> float | None:
    """What a pipeline takes for true_cfg_scale if nothing is said; None if it has no such option."""
    option = inspect.signature(type(pipe).__call__).parameters.get("true_cfg_scale")
    return None if option is None else float(option.default)


def _off(pipe: Any) -> float:
    """1 for a pipeline that counts guidance from 0, as c + scale (c - u), and else 0."""
    pipe._guidance_scale = 1.0  # what a call sets first; the pipeline then says whether it guides
    return float(bool(getattr(pipe, "do_classifier_free_guidance", False)))


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: sha256 over names, shapes and values, in hex.

    Values are rounded to bfloat16 first, so that one model loaded in float32 and in bfloat16 has one fingerprint.
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(full(value.detach()).to(torch.bfloat16).cpu().flatten().view(torch.uint8).numpy().tobytes())
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
