"""A pipeline belongs to whoever loaded it: unsee works on it for a while, and gives it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn

CHECKERS = ("safety_checker", "watermarker")
"""Components that black pictures out, or mark them, after a model has drawn them."""


def checkers(kind: type) -> tuple[str, ...]:
    """The CHECKERS that a class of pipelines can do without.

    diffusers has one method for them, `run_safety_checker`, which lets pictures pass where the component is None.
    Pipelines of Cosmos have none: their checker stays, and stops a run with an error, which is not taken for erasing.
    """
    return CHECKERS if hasattr(kind, "run_safety_checker") else ()


def present(pipe: Any) -> tuple[str, ...]:
    """Those that a pipeline has, and that are left out while it is `borrowed`."""
    return tuple(name for name in checkers(type(pipe)) if getattr(pipe, name, None) is not None)


@contextmanager
def borrowed(pipe: Any) -> Iterator[None]:
    """Within the context a pipeline is frozen, in eval mode, without progress bars and without `checkers`.

    A checker would black out pictures, which would be counted as erasing; what is measured is what the model draws.
    Afterwards, also after an exception, the pipeline has its own modes, `requires_grad`, gradients, attributes and
    scheduler again; the scheduler in use is a copy.
    """
    parts = [part for part in getattr(pipe, "components", {}).values() if isinstance(part, nn.Module)]
    training = [module for part in parts for module in part.modules() if module.training]
    learning = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    attributes = dict(vars(pipe))
    try:
        for module in training:
            module.training = False
        for weight in learning:
            weight.requires_grad_(False)
        for name in present(pipe):
            setattr(pipe, name, None)
        if "scheduler" in attributes:
            pipe.scheduler = deepcopy(pipe.scheduler)
        if hasattr(pipe, "set_progress_bar_config"):
            pipe.set_progress_bar_config(disable=True)
        yield
    finally:
        attributes.pop("_all_hooks", None)  # of enable_model_cpu_offload, which each call makes anew
        for name in vars(pipe).keys() - attributes.keys() - {"_all_hooks"}:
            delattr(pipe, name)
        vars(pipe).update(attributes)
        for module in training:
            module.training = True
        for weight in learning:
            weight.requires_grad_(True)
