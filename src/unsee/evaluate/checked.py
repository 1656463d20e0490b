"""What a check found, as a plain record: one layout for JSON and for the command's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from unsee.evaluate.statistics import Score

VERSION = 1
ABSENT, PRESENT = "absent", "present"


@dataclass(frozen=True)
class Word:
    """One word of a check.

    wanted   "absent" or "present"
    prompt   that was drawn; label what the detector counted
    score    share of its pictures that show the word
    limit    what the interval's upper end must not pass (absent), or its lower end must reach (present)
    """

    word: str
    wanted: str
    prompt: str
    label: str
    score: Score
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the interval lies on the right side of the limit."""
        return self.score.high <= self.limit if self.wanted == ABSENT else self.score.low >= self.limit


@dataclass(frozen=True)
class Checked:
    """All that a run of `unsee check` found.

    schema   the version of this layout
    command  that was typed
    model    its name and the hash of its denoisers as they were checked
    edits    that were put on it: name, method and hash
    passed   whether every word holds
    """

    schema: int
    command: str
    model: dict[str, str]
    edits: tuple[dict[str, str], ...]
    sampling: dict[str, Any]
    n: int
    seed: int
    detectors: dict[str, str]
    versions: dict[str, str]
    words: tuple[Word, ...]
    passed: bool

    def to_json(self) -> str:
        return TypeAdapter(Checked).dump_json(self, indent=1).decode()
