"""unsee: take a concept out of a text-to-image diffusion model, with the evidence that it is gone.

    pipe = unsee.load("mini")
    edit = unsee.ESD()(pipe, unsee.Concept("church"))
    with edit.applied(pipe):
        pipe("a church").images

Importing this package imports no torch: the names below are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsee.concepts import Concept as Concept
    from unsee.edits.edit import Edit as Edit
    from unsee.errors import InputError as InputError
    from unsee.methods.esd import ESD as ESD
    from unsee.methods.hybrid import Hybrid as Hybrid
    from unsee.models.load import load as load

__version__ = "0.1.0"
__all__ = ["ESD", "Concept", "Edit", "Hybrid", "InputError", "load"]

_HOME = {
    "Concept": "unsee.concepts",
    "ESD": "unsee.methods.esd",
    "Edit": "unsee.edits.edit",
    "Hybrid": "unsee.methods.hybrid",
    "InputError": "unsee.errors",
    "load": "unsee.models.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unsee' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
