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
        if name not in sources and (found := source_of(name)):
            sources[name], imported = found
            todo += imported
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


@cache  # methods share nearly all of what they import
def source_of(module: str) -> tuple[bytes, list[str]] | None:
    """The source of a module and what it imports of unsee; None for what has no source."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    source, imported = Path(spec.origin).read_bytes(), list[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "unsee":
            imported.append(node.module)
            package = find_spec(node.module)
            if package and package.submodule_search_locations:
                imported += [f"{node.module}.{alias.name}" for alias in node.names]
    return source, imported
