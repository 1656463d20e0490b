"""Which modules of a pipeline denoise."""

from __future__ import annotations

from accelerate.hooks import AlignDevicesHook, CpuOffload
from torch import nn

from unsee.errors import InputError
from unsee.models.model import Model, Pipeline, kind, raw


def denoisers(pipe: Pipeline) -> dict[str, nn.Module]:
    """The modules that denoise, by the attribute of the pipeline that holds them.

    Raises InputError if there are none, and if their weights are replaced whenever they run: a change would be lost.
    """
    return {key: module for key, (module, _) in _found(pipe).items()}


def denoiser(pipe: Pipeline) -> tuple[str, nn.Module]:
    """The module that denoises, and its attribute's name, to be trained; of two, the one in the Model's focus.

    Raises InputError as `denoisers` does, for a pipeline with two, and for a denoiser that moves between devices.
    """
    modules = _found(pipe)
    key = Model.of(pipe).focus
    if key is None and len(modules) > 1:
        raise InputError(
            f"{kind(pipe).__name__} has two denoisers ({', '.join(modules)}), one for noisy steps and one for the "
            "rest. This works on one network only; making, applying, merging and drawing with edits works on both"
        )
    key = key or next(iter(modules))
    net, how = modules[key]
    if how:
        raise InputError(
            f"{kind(pipe).__name__}.{key} is moved between devices by {how}, so it cannot be trained; keep the "
            f"{key} on one device (text encoders may move), or train less of it"
        )
    return key, net


def _found(pipe: Pipeline) -> dict[str, tuple[nn.Module, str | None]]:
    """The modules that denoise, each with what moves it from device to device."""
    named = {key: getattr(raw(pipe), key, None) for key in ("unet", "transformer", "transformer_2")}
    found = {key: (module, _moved_by(module)) for key, module in named.items() if isinstance(module, nn.Module)}
    if not found:
        raise InputError(f"{kind(pipe).__name__} has no denoiser: looked for {', '.join(named)}")
    for key, (_, how) in found.items():
        if how not in (None, "enable_model_cpu_offload"):
            raise InputError(
                f"{how} replaces the weights of {kind(pipe).__name__}.{key} whenever they are used, so no edit "
                f"can be added: turn it off for the {key}"
            )
    return found


def _moved_by(module: nn.Module) -> str | None:
    """What replaces the weights of a module when it runs, in the words of diffusers; None if they stay."""
    left = [module]
    while left:  # `modules()` takes twice as long, and a module that is asked for what it lacks too
        part = vars(left.pop())
        left += filter(None, part["_modules"].values())
        if "_hf_hook" not in part and "_diffusers_hook" not in part:
            continue
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
