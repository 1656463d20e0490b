"""What is erased, by which methods, how it is looked at, and what is aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.evidence.experiments import Goal, kept, keyed, removed, starts
from benchmarks.evidence.quantities import LOSS, LOST_OF_BASE, OF_BASE, SHARE, SURE_LOSS
from benchmarks.flow.suites import KEPT, NEAR, REMOVED, STYLED, THINGS, WORDING
from unsee import methods
from unsee.concepts import Concept
from unsee.evaluate.suites import memorised
from unsee.evaluate.suites.implicit import UNASKED
from unsee.runs.configure import configure

GONE, IN_STYLES, UNSEEN, REST, NEIGHBOUR, DESCRIBED = COLUMNS = (
    "erased", "in every style", "by unseen wording", "all others lose", "worst neighbour loses",
    "others by unseen wording lose",
)  # fmt: skip
"""Columns of the first table: goals of tasks, by what they are about."""
METHODS = ("balance", "hybrid", "esd", "lora", "uce", "oce", "speed")
"""The first is the default for names. What none of them has a preset for keeps its defaults."""
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {("explicit", "esd"): {"select": "noncross"}}
"""By preset and method, as the paper has it: ESD-u for what no prompt names."""
PAPER = "-"


@dataclass(frozen=True)
class Task:
    """What one edit erases.

    words    of its concepts
    preset   of hybrid and lora
    goals    by column
    keep     words that each method is told to keep
    default  the method that `unsee erase` would take, which has all pictures
    """

    name: str
    title: str
    words: tuple[str, ...]
    preset: str
    suites: tuple[str, ...]
    goals: Mapping[str, Goal]
    methods: tuple[str, ...] = METHODS
    keep: tuple[str, ...] = ()
    default: str = "balance"

    @property
    def concepts(self) -> list[Concept]:
        return [Concept(word, keep=self.keep if k == 0 else ()) for k, word in enumerate(self.words)]

    def method(self, name: str) -> Any:
        """A method with its preset for what is erased, where it has one."""
        found = methods.find(name)
        preset = self.preset if self.preset in found.presets else None
        return configure(found, SETTINGS.get((self.preset, name), {}), preset)


def tasks(words: Mapping[str, Any], concept: str, style: str, thing: str) -> list[Task]:
    """The tasks that a model's words allow."""
    ten = tuple(dict.fromkeys(words.get("imagenette", {}).values()))
    titles = tuple(words.get("memorised", ()))
    described = Goal("other things by unseen wording lose, points", PAPER, WORDING, keyed(KEPT), LOSS, 2.0)
    unseen = Goal("erased, by unseen wording, per cent", PAPER, WORDING, keyed(REMOVED), SHARE, 2.0)
    of_objects = {
        GONE: Goal("erased, per cent", PAPER, THINGS, keyed(REMOVED), SHARE, 1.0),
        IN_STYLES: Goal("erased, in all styles together, per cent", PAPER, THINGS, keyed(STYLED), SHARE, 2.0),
        UNSEEN: unseen,
        REST: Goal("everything else loses, points", PAPER, THINGS, keyed(KEPT), LOSS, 0.5),
        NEIGHBOUR: Goal("no neighbour loses more, points", PAPER, THINGS, starts(NEAR), LOSS, 2.0),
        DESCRIBED: described,
    }
    of_style = {
        GONE: Goal("the style, per cent", PAPER, "styles", keyed("removed"), SHARE, 3.0),
        REST: Goal("other styles lose, points", PAPER, "styles", keyed("kept"), LOSS, 1.0),
        NEIGHBOUR: Goal(
            "its subjects lose, per cent of base", PAPER, "styles", keyed("subject of removed"), LOST_OF_BASE, 1.0
        ),
        DESCRIBED: described,
    }
    of_thing = {
        GONE: Goal(
            "where no prompt names it, per cent of base", PAPER, "implicit", keyed(f"{UNASKED}{thing}"), OF_BASE, 5.0
        ),
        REST: Goal("what the prompts name loses, points", PAPER, "implicit", keyed("content"), LOSS, 1.0),
        DESCRIBED: described,
    }
    copies = "copies of other images lost (significant only), points"
    of_title = {
        GONE: Goal("copies of it, per cent", PAPER, "memorised", removed, SHARE, 5.0),
        REST: Goal(copies, PAPER, "memorised", kept(memorised.COPIES), SURE_LOSS, 0.0),
        DESCRIBED: described,
    }
    both = (THINGS, WORDING)
    unasked = ("hybrid", "lora", "esd")
    found = [
        Task("object", f"An object: {concept}", (concept,), "object", both, of_objects),
        Task("ten", "Ten objects in one edit", ten, "object", both, of_objects),
        Task("style", f"A style: {style}", (style,), "style", ("styles", WORDING), of_style),
        Task(
            "implicit", f"An implicit concept: {thing}", (thing,), "explicit", ("implicit", WORDING), of_thing,
            methods=unasked, default="hybrid",
        ),
        Task(
            "title", f"A memorised image: {next(iter(titles), '')}", titles[:1], "memorised", ("memorised", WORDING),
            of_title, keep=titles[1:],
        ),
    ]  # fmt: skip
    return [task for task in found if task.words]


def chosen(found: Sequence[Task], only: Sequence[str]) -> list[Task]:
    return [task for task in found if not only or task.name in only]
