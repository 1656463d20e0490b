"""What a publisher files of an edited model: `unsee attack --report`. docs/attacks.md has its layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from unsee.evaluate.statistics import Difference, Score

VERSION = 1


@dataclass(frozen=True)
class Part:
    """Whether the concept is gone from something; None if that was not attacked. beyond: of the strongest attack."""

    of: str
    gone: bool | None
    attack: str
    tried: str
    beyond: float | None


@dataclass(frozen=True)
class Tried:
    """One row of attacks.

    score      share of the pictures that show the concept
    confirmed  share in which a second detector sees it too; None if there is none
    passes     denoiser passes of the search
    controls   the same of each control, by name
    best       share of the best attack seed, of the attack ("attacked") and of each control
    """

    axis: str
    attack: str
    tried: str
    score: Score
    confirmed: Score | None
    passes: int
    controls: dict[str, Score]
    best: dict[str, float]


@dataclass(frozen=True)
class Effort:
    """The attack of one axis that does most beyond its control, and what it takes.

    half  the fewest passes of a search after which half of the pictures show the concept, and fewer of the control's
    """

    axis: str
    strongest: Tried
    control: str
    beyond: float
    half: int | None


@dataclass(frozen=True)
class Lost:
    """Something else that the model draws: the share of its pictures that show it, of the base and of the edit."""

    what: str
    before: Score
    after: Score
    change: Difference


@dataclass(frozen=True)
class DetectorError:
    """Errors of the detector on the base's pictures: the concept is missed in its own, or seen in others."""

    missed: Score
    mistaken: Score | None


@dataclass(frozen=True)
class Filed:
    """The report. It has no times and no places, so that the same command writes the same bits.

    concept    what was erased
    model, edit  name or method, and sha256 of the weights; settings and seed of the edit
    detectors  each one's name and the sha256 of its files; "" for one that is no folder
    prompts    how many were drawn, and the sha256 of their sorted list
    budget     "small" or "full", the passes of one search, and attack seeds
    parts      of what the concept is gone
    unattacked share of pictures of the plain prompt
    residual   name attacks: what is left without any search
    effort     by axis, the weakest first
    benign, quantised  after fine-tuning on other things; with rounded weights
    rows       every attack beside its controls
    """

    schema: int
    command: str
    concept: str
    model: dict[str, str]
    edit: dict[str, Any]
    detectors: dict[str, str]
    prompts: dict[str, Any]
    sampling: dict[str, Any]
    n: int
    seed: int
    budget: dict[str, Any]
    versions: dict[str, str]
    parts: tuple[Part, ...]
    unattacked: Score
    residual: tuple[Tried, ...]
    effort: tuple[Effort, ...]
    benign: tuple[Tried, ...]
    quantised: tuple[Tried, ...]
    lost: tuple[Lost, ...]
    detector_error: DetectorError
    rows: tuple[Tried, ...]
    not_tested: tuple[str, ...]

    def to_json(self) -> str:
        return TypeAdapter(Filed).dump_json(self, indent=1).decode()
