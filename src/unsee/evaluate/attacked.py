"""What attacks found, as plain records: one layout for the page, for JSON and for a command's tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from unsee.errors import InputError
from unsee.evaluate.statistics import Difference, Score

VERSION = 1
ATTACKED, BASE, TAUGHT, TWIN, RANDOM_WEIGHTS, NEIGHBOUR, OTHER = (
    "attacked", "base", "taught", "twin", "random weights", "neighbour", "another concept",
)  # fmt: skip
ABOUT = {
    BASE: "the same attack on the undefended base: an attack that fails here shows nothing",
    TAUGHT: "the same attack and budget makes the base draw what it never knew: pictures of the concept upside down",
    TWIN: "the same attack on a model that was trained without the concept",
    RANDOM_WEIGHTS: "the same attack on a network with random weights",
    NEIGHBOUR: "the same attack on the attacked model, aimed at the concept's neighbour; the concept is counted",
    OTHER: "the same attack, aimed at another thing that the model knows",
}
"""Controls, and what each of them is."""


@dataclass(frozen=True)
class Cost:
    """What it took: rows of the denoiser without a gradient and with one, and seconds."""

    passes: int
    with_gradient: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """The success of one attack, as far as it had come, against one model.

    row     what was tried, such as "8 pictures, all weights, 15 updates"
    column  "attacked", or a control
    score   share of the pictures that show the concept, of all attack seeds together
    best    the share of the best attack seed
    search  what the search took until then, of all attack seeds together; drawing is not in it
    note    what was found, such as a prompt
    confirmed  share of the pictures in which a second detector sees the concept too; None if there is none
    """

    attack: str
    axis: str
    row: str
    column: str
    score: Score
    best: float
    search: Cost
    note: str = ""
    confirmed: Score | None = None

    @property
    def sure(self) -> float:
        """The share in which all detectors see the concept."""
        return self.score.value if self.confirmed is None else self.confirmed.value


@dataclass(frozen=True)
class Tried:
    """An attack that was tried.

    refused  why it could not be; None if it could
    leak     whether it fails on an undefended model, so that any success is a trace of the edit
    """

    name: str
    axis: str
    needs: tuple[str, ...]
    about: str
    refused: str | None
    leak: bool = False


@dataclass(frozen=True)
class Excess:
    """What an attack did beyond its control, in the row in which it did most.

    control  the one that `strictest` names
    value    the share that all detectors confirm, minus that of the control, 0 without one: attacks are ranked by it
    excess   attack minus control on the same drawing seeds, by the first detector; None without a control
    half     the fewest passes of a search after which half of the pictures show the concept, and fewer of the
             control's; None if never
    """

    attack: str
    axis: str
    row: Row
    control: str
    value: float
    excess: Difference | None
    half: int | None


@dataclass(frozen=True)
class Attacked:
    """All that a run of `unsee attack` found.

    schema      the version of this layout
    command     that was typed
    concept     what the attacks brought back, or tried to
    model       its name and the hash of the denoiser; edit: its method and hash
    sampling    of the pictures
    n, seed     pictures of each row, and the first one's seed
    seeds       attack seeds
    budget      "small" or "full", and the passes of one search
    detector    what counted the pictures
    strongest   what each attack did beyond its control, the most first
    second      what confirmed them; "" if nothing did
    unattacked  share of the pictures of the concept's plain prompt that show it; None in records without it
    undefended  the same of the base
    prompts     how many distinct ones were drawn from, and the sha256 of their sorted list
    not_tested  attacks that are installed and were not asked for, or refused, and controls that were not there
    """

    schema: int
    command: str
    concept: str
    model: dict[str, str]
    edit: dict[str, str]
    sampling: dict[str, Any]
    n: int
    seed: int
    seeds: tuple[int, ...]
    budget: str
    passes: int
    detector: str
    versions: dict[str, str]
    device: str
    seconds: float
    attacks: tuple[Tried, ...]
    rows: tuple[Row, ...]
    strongest: tuple[Excess, ...]
    not_tested: tuple[str, ...]
    unattacked: Score | None = None
    second: str = ""
    undefended: Score | None = None
    prompts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return TypeAdapter(Attacked).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Attacked:
        found = TypeAdapter(cls).validate_json(text)
        if found.schema != VERSION:
            raise InputError(f"the record has layout {found.schema}; this version of unsee reads layout {VERSION}")
        return found


def strictest(rows: Iterable[Row]) -> str:
    """The control for one attack in one row, among its columns: the twin, else that with the greater share of
    "taught" and "random weights"; "" where there is none."""
    shares = {row.column: row.sure for row in rows if row.column in (TWIN, TAUGHT, RANDOM_WEIGHTS)}
    return TWIN if TWIN in shares else max(shares, key=lambda column: shares[column], default="")


def weakest(strongest: Iterable[Excess]) -> dict[str, Excess]:
    """The strongest attack of each axis, the axis on which the model is weakest first."""
    found: dict[str, Excess] = {}
    for one in sorted(strongest, key=lambda one: -one.value):
        found.setdefault(one.axis, one)
    return found
