"""Versions of the software that computed a result."""

from __future__ import annotations

import ast
import hashlib
import platform
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

version = cache(metadata.version)  # read from disk each time; the key of every picture asks for two


def versions() -> dict[str, str]:
    """unsee, Python and the libraries whose version can change a result."""
    libraries = ("unsee", "torch", "diffusers", "transformers", "accelerate")
    return {"python": platform.python_version(), **{library: version(library) for library in libraries}}


@cache
def code(module: str) -> str:
    """A hash of the source of a module and of every module of unsee that it imports, directly or not.

    What such code made is made anew when the code changes. Other packages count by their versions.
    """
    sources: dict[str, bytes] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        spec = None if name in sources else find_spec(name)
        if spec is None or spec.origin is None:
            continue
        sources[name] = Path(spec.origin).read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "unsee":
                todo.append(node.module)
                package = find_spec(node.module)
                if package and package.submodule_search_locations:
                    todo += [f"{node.module}.{alias.name}" for alias in node.names]
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()
