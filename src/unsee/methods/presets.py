"""Settings by what is erased, with the source of each number; and the ranges that settings of all methods have.

Sections and tables are those of the ESD paper, arXiv:2303.07345. What was tuned on the miniature says so.
"""

from __future__ import annotations

from typing import Annotated, Any

from diffusers.optimization import SchedulerType
from pydantic import AfterValidator, Field

from unsee.errors import unknown
from unsee.methods.prompts import TEMPLATES

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Guidance = Annotated[float, Field(gt=1, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=2)]
Templates = tuple[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")], ...]

Contexts = tuple[Annotated[str, Field(pattern=r"^[^{}*]*(\{\}[^{}*]*\*|\*[^{}*]*\{\})[^{}*]*$")], ...]


def _schedule(name: str) -> str:
    if name not in (known := [kind.value for kind in SchedulerType]):
        raise unknown("schedule", name, known)
    return name


Schedule = Annotated[str, AfterValidator(_schedule)]

NAMES = tuple(way.replace("a {}", "{}") for way in TEMPLATES if way != "a {}")
"""TEMPLATES without the article, which names of people and many things do not take."""

STYLED = ("{}", "art by {}", "a design of {}", "an image in the style of {}")
"""How prompts ask for a style: the bare name, and prompts of the paper's user study (Sec. 5.1). The longest of those is
left out, since short encoders cut it."""

_NAMED = {"select": "cross-kv", "eta": 1.0, "keep_weight": 3.0}

PRESETS: dict[str, dict[str, Any]] = {
    # The defaults: what the first table of docs/LOG.md led to. The paper erases objects with ESD-u (Table 2).
    "object": {**_NAMED, "templates": TEMPLATES},
    # ESD-x (Sec. 4.1 and 5.1), of it the part that reads the text: the table has what "cross" costs.
    "style": {**_NAMED, "templates": STYLED},
    # ESD-u with eta 1 (Sec. 4.1 and 5.2). An implicit concept also appears in pictures of what is preserved, which
    # shall lose it. docs/LOG.md has what is left without that, and what led to the other numbers.
    "explicit": {
        "select": "noncross",
        "eta": 1.0,
        "keep_weight": 1.0,
        "implicit": True,
        "templates": NAMES,
        "updates": 60,
        "runs": 8,
        "keep_runs": 32,
    },
    # Cross-attention: with all layers, or with all others, one actor's erasing took another one along (issue 13 of the
    # authors' repository).
    "person": {**_NAMED, "templates": NAMES},
    # The title is the whole prompt (Sec. 5.4). With the concept's `image`, x_t is that picture, noised, as there. Other
    # memorised images stay what they were only if their titles are words of `keep`, and are exact only after more
    # updates (docs/LOG.md).
    "memorised": {**_NAMED, "templates": ("{}",), "updates": 60},
}
"""Presets of hybrid and lora, by what is erased."""
