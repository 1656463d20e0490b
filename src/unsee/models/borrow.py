"""A pipeline belongs to whoever loaded it: unsee works on it for a while, and gives it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from weakref import WeakSet

from torch import nn

from unsee.models.model import Model, Pipeline, kind, raw
from unsee.models.sources import checkers

_BORROWED: WeakSet[Any] = WeakSet()
"""The pipelines that are within a `borrowed` now."""


def present(pipe: Pipeline) -> tuple[str, ...]:
    """The checkers that a pipeline has; they are left out while it is `borrowed`."""
    return tuple(name for name in checkers(kind(pipe)) if getattr(raw(pipe), name, None) is not None)


def left_out(pipe: Pipeline) -> tuple[str, ...]:
    """The checkers of a model without which its pictures are drawn: those that `load` left out, and those `present`."""
    return tuple(dict.fromkeys((*Model.of(pipe).left_out, *present(pipe))))


@contextmanager
def borrowed(pipe: Pipeline) -> Iterator[None]:
    """Within the context a pipeline is frozen, in eval mode, without progress bars and without `checkers`.

    A checker would black out pictures, which would be counted as erasing; what is measured is what the model draws.
    Afterwards, also after an exception, the pipeline has its own modes, `requires_grad`, gradients, attributes and
    scheduler again; the scheduler in use is a copy. Within another such context its modules are left as they are: it
    is frozen but for what learns, and to walk all weights for each drawing takes as long as a small drawing.
    """
    own = raw(pipe)
    nested = own in _BORROWED
    parts = [part for part in getattr(own, "components", {}).values() if isinstance(part, nn.Module) and not nested]
    training, learning = _awake(parts)
    attributes = dict(vars(own))
    try:
        _BORROWED.add(own)
        for module in training:
            module.training = False
        for weight in learning:
            weight.requires_grad_(False)
        for name in present(own):
            setattr(own, name, None)
        if "scheduler" in attributes:
            own.scheduler = deepcopy(own.scheduler)
        if hasattr(own, "set_progress_bar_config"):
            own.set_progress_bar_config(disable=True)
        yield
    finally:
        if not nested:
            _BORROWED.discard(own)
        attributes.pop("_all_hooks", None)  # of enable_model_cpu_offload, which each call makes anew
        for name in vars(own).keys() - attributes.keys() - {"_all_hooks"}:
            delattr(own, name)
        vars(own).update(attributes)
        for module in training:
            module.training = True
        for weight in learning:
            weight.requires_grad_(True)


def _awake(left: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """The modules in training mode and the weights that require a gradient, of some modules and all within them."""
    training, learning = list[nn.Module](), list[nn.Parameter]()
    while left:  # `modules()` and `parameters()` take three times as long, and this comes before each drawing
        own = vars(module := left.pop())
        left += filter(None, own["_modules"].values())
        learning += [weight for weight in own["_parameters"].values() if weight is not None and weight.requires_grad]
        if own["training"]:
            training.append(module)
    return training, learning
