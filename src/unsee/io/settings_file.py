"""Files of settings, YAML or JSON, from strangers."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from unsee.errors import InputError

MOST_BYTES = 16 * 2**20
MOST_DEPTH = 64
"""What is read at most of a file of settings: bytes, and mappings and lists inside each other."""


def read(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, or in the run.json of an earlier run. Raises InputError if it has none."""
    data = parse(bounded(path, "settings", "the configuration "), str(path))
    if isinstance(data, dict) and "config" in data:
        data = data["config"]
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no settings: it should map names to values, such as 'model: mini'")
    return data


def bounded(path: Path, of: str, what: str, encoding: str = "utf-8") -> str:
    """The text of a file of a stranger's, called `of` and `what` in errors. Raises InputError if it is too large."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which is the most that is read of {of}")
        return path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {what}{path}: {error}") from error


def parse(text: str, name: str) -> Any:
    """The value that a YAML or JSON text stands for. Raises InputError, also on what such texts are abused for.

    A key that is given twice hides one of the two; an alias can make a short text stand for gigabytes; and nesting
    without end exhausts the stack.
    """
    try:
        if text.lstrip().startswith("{"):
            try:
                return json.loads(text, object_pairs_hook=_once)
            except json.JSONDecodeError:
                pass  # {a: 1} is YAML
        depth = 0
        for token in yaml.scan(text, Loader=yaml.CSafeLoader):
            if isinstance(token, yaml.AliasToken | yaml.AnchorToken):
                raise InputError(f"{name} uses anchors (&) or aliases (*), which are not read")
            depth += isinstance(token, _OPEN) - isinstance(token, _CLOSE)
            if depth > MOST_DEPTH:
                raise InputError(f"{name} is nested more than {MOST_DEPTH} deep")
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{name} is no YAML or JSON: {' '.join(str(error).split())[:300]}") from error
    except InputError as error:
        raise InputError(str(error) if name in str(error) else f"{name}: {error}") from error
    except (ValueError, RecursionError, OverflowError, AttributeError) as error:
        # A number of more digits than Python reads, a date that is none, nesting without end.
        raise InputError(f"{name} holds a value that cannot be read: {' '.join(str(error).split())[:200]}") from error


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping. Raises InputError for a key that is given twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{str(key)[:100]!r} is given twice")
        found[key] = value
    return found


class _Loader(yaml.CSafeLoader):
    """YAML without tags that build objects, and without keys that are given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = [
        (loader.construct_object(key, deep=True), loader.construct_object(value, deep=True))
        for key, value in node.value
    ]
    if bad := next((key for key, _ in pairs if not isinstance(key, Hashable)), None):
        raise InputError(f"{str(bad)[:100]!r} cannot be a name")
    return _once(pairs)


_OPEN = (
    yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken
)  # fmt: skip
_CLOSE = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
