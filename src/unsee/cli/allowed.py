"""What may be given to options of the command line, by name; for help and completion, which must not import torch.

Methods and suites are those that are installed. The rest is written here and tested against the code that it names.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from unsee.errors import unknown

SELECTIONS = ("cross", "cross-kv", "self", "noncross", "all")
GUARDS = ("negative", "sld-weak", "sld-medium", "sld-strong", "sld-max")
PRESETS = ("object", "style", "explicit", "person", "memorised", "paper", "leco")
DEFAULTS = {
    "eta": {"hybrid": "1", "esd": "1", "gem": "1", "lora": "1", "robust": "1", "stereo": "1", "uce": "0.7"},
    "select": {
        "hybrid": "cross-kv",
        "esd": "cross",
        "gem": "cross",
        "lora": "cross-kv",
        "robust": "all",
        "stereo": "noncross",
    },
}
EXPORTS = ("comfy", "delta", "diffusers-lora", "kohya-lora", "pipeline")
DTYPES = ("float32", "float16", "bfloat16")
"""Defaults of settings that have an option of their own, by method."""


def installed(kind: str) -> list[str]:
    """The names of the methods or suites that are installed."""
    return list(_installed(kind))


def known_method(name: str | None) -> str | None:
    """The same name. Raises InputError for an unknown method, before libraries are imported, which takes seconds."""
    if name and name not in installed("methods"):
        raise unknown("method", name, installed("methods"))
    return name


@cache  # a dozen options name them, and finding them reads the files of every package
def _installed(kind: str) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in entry_points(group=f"unsee.{kind}")))


def default(setting: str) -> str:
    """The default of a setting as text, of each method where they differ."""
    by = DEFAULTS[setting]
    if len(set(by.values())) == 1:
        return next(iter(by.values()))
    groups = {value: [method for method, one in by.items() if one == value] for value in by.values()}
    return ", ".join(f"{value} ({', '.join(methods)})" for value, methods in groups.items())
