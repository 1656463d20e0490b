"""Which software computed something."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

version = cache(metadata.version)  # read from disk each time; the key of every picture asks for two


def versions() -> dict[str, str]:
    """unsee, Python and the libraries whose version can change a result."""
    libraries = ("unsee", "torch", "diffusers", "transformers", "accelerate")
    return {"python": platform.python_version(), **{library: version(library) for library in libraries}}
