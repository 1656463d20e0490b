"""Which software computed something."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """unsee, Python and the libraries whose version can change a result."""
    libraries = ("unsee", "torch", "diffusers", "transformers", "accelerate")
    return {"python": platform.python_version(), **{library: version(library) for library in libraries}}
