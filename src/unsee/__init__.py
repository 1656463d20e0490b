"""unsee: remove a concept from a text-to-image diffusion model, and measure what was removed and what was damaged.

    pipe = unsee.load("mini")
    edit = unsee.Hybrid()(pipe, "church")
    with edit.applied(pipe):
        pipe("a church").images

Importing this package imports no torch: the names below are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unsee.concepts import Concept as Concept
    from unsee.edits.algebra import applied as applied
    from unsee.edits.algebra import merge as merge
    from unsee.edits.edit import Edit as Edit
    from unsee.errors import InputError as InputError
    from unsee.guards import SLD as SLD
    from unsee.guards import NegativePrompt as NegativePrompt
    from unsee.methods.balance import Balance as Balance
    from unsee.methods.esd import ESD as ESD
    from unsee.methods.gem import GEM as GEM
    from unsee.methods.hybrid import Hybrid as Hybrid
    from unsee.methods.lora import LoRA as LoRA
    from unsee.methods.oce import OCE as OCE
    from unsee.methods.robust import Robust as Robust
    from unsee.methods.speed import SPEED as SPEED
    from unsee.methods.stereo import STEREO as STEREO
    from unsee.methods.uce import UCE as UCE
    from unsee.models.load import load as load
    from unsee.models.model import Model as Model
    from unsee.progress import bars as bars
    from unsee.runs.api import attack as attack
    from unsee.runs.api import erase as erase
    from unsee.runs.api import generate as generate
    from unsee.runs.api import measure as measure

__version__ = "0.1.0"

_HOME = {
    "load": "unsee.models.load",
    "Model": "unsee.models.model",
    "Concept": "unsee.concepts",
    "Balance": "unsee.methods.balance",
    "Hybrid": "unsee.methods.hybrid",
    "ESD": "unsee.methods.esd",
    "UCE": "unsee.methods.uce",
    "OCE": "unsee.methods.oce",
    "GEM": "unsee.methods.gem",
    "Robust": "unsee.methods.robust",
    "STEREO": "unsee.methods.stereo",
    "SPEED": "unsee.methods.speed",
    "LoRA": "unsee.methods.lora",
    "Edit": "unsee.edits.edit",
    "applied": "unsee.edits.algebra",
    "merge": "unsee.edits.algebra",
    "NegativePrompt": "unsee.guards",
    "SLD": "unsee.guards",
    "generate": "unsee.runs.api",
    "erase": "unsee.runs.api",
    "measure": "unsee.runs.api",
    "attack": "unsee.runs.api",
    "bars": "unsee.progress",
    "InputError": "unsee.errors",
}
"""The public names, in the order in which one meets them, and where each lives."""
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unsee' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*_HOME, "__version__"]
