"""Names of earlier versions: settings in cards, run.json and configurations, in the names of this version."""

from __future__ import annotations

from typing import Any

RENAMED = {
    "company": "context_words",
    "spared": "preserve_words",
    "unasked": "implicit",
    "checkpointing": "gradient_checkpointing",
    "steps": "record_steps",
    "guidance_scale": "record_guidance",
}
"""Settings of methods that had other names; cards, run.json, configurations and --set may have those."""

HYBRID = {"start", "company", "spared", "unasked"}
"""Settings that tell what an earlier version called "esd" and is hybrid today: each of its cards has one."""


def current(values: dict[str, Any]) -> dict[str, Any]:
    """A mapping with `method` and `settings` in the names of this version. "esd" was then what hybrid is today."""
    method, settings = values.get("method"), values.get("settings")
    if not isinstance(settings, dict):
        return values
    if method == "merge" and isinstance(parts := settings.get("edits"), list):  # cards themselves
        parts = [current(part) if isinstance(part, dict) else part for part in parts]
        return {**values, "settings": {**settings, "edits": parts}}
    if method not in (None, "esd", "hybrid", "lora", "uce"):
        return values
    hybrid = {"method": "hybrid"} if method == "esd" and settings.keys() & HYBRID else {}
    return {**values, "settings": {RENAMED.get(name, name): value for name, value in settings.items()}, **hybrid}
