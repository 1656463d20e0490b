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
    found = {key: getattr(raw(pipe), key, None) for key in ("unet", "transformer", "transformer_2")}
    modules = {key: module for key, module in found.items() if isinstance(module, nn.Module)}
    if not modules:
        raise InputError(f"{kind(pipe).__name__} has no denoiser: looked for {', '.join(found)}")
    for key, module in modules.items():
        if (how := _moved_by(module)) not in (None, "enable_model_cpu_offload"):
            raise InputError(
                f"the weights of {kind(pipe).__name__}.{key} are replaced whenever they are used, by {how}: nothing "
                f"can be added to them; do without it for the {key}"
            )
    return modules


def denoiser(pipe: Pipeline) -> tuple[str, nn.Module]:
    """The module that denoises, and its attribute's name, to be trained; of two, the one in the Model's focus.

    Raises InputError as `denoisers` does, for a pipeline with two, and for a denoiser that moves between devices.
    """
    modules = denoisers(pipe)
    key = Model.of(pipe).focus
    if key is None and len(modules) > 1:
        raise InputError(
            f"{kind(pipe).__name__} has two denoisers ({', '.join(modules)}), one for noisy steps and one for the "
            "rest: methods edit both, and such edits are applied, merged and drawn with; this works on one network"
        )
    key = key or next(iter(modules))
    net = modules[key]
    if how := _moved_by(net):
        raise InputError(
            f"{kind(pipe).__name__}.{key} moves from device to device, by {how}: it cannot be trained so; keep the "
            f"{key} on one device (text encoders may move), or train less of it"
        )
    return key, net


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
