"""What is erased, by what, how it is looked at, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.evidence.goals import Goal
from benchmarks.evidence.quantities import ABOVE, LOSS, LOST_OF_BASE, OF_BASE, SHARE
from benchmarks.evidence.suites import KEPT, NEAR, REMOVED, STYLED, THINGS, WORDING
from unsee import methods
from unsee.concepts import Concept
from unsee.evaluate.measures import CHANGE
from unsee.evaluate.records import STAYS, Measured
from unsee.evaluate.suites import memorised, scenes, styles
from unsee.evaluate.suites.implicit import UNASKED
from unsee.runs.configure import configure

GONE, IN_STYLES, SYNONYMS, UNSEEN, IN_SCENES, REST, NEIGHBOUR, DESCRIBED, BESIDE, FID = COLUMNS = (
    "erased", "in every style", "by synonyms", "by unseen wording", "in scenes", "all others lose",
    "worst neighbour loses", "others by unseen wording lose", "what stands beside it loses", "FID",
)  # fmt: skip
"""Goals of tasks by what they are about. The first table has all but the last two."""
METHODS = ("balance", "hybrid", "esd", "lora", "uce", "oce", "speed")
"""The first is the default for names. What none of them has a preset for keeps its defaults."""
PAPER = {"ESD-x, paper": "cross", "ESD-u, paper": "noncross"}
"""The paper's own loop, by its selection."""
VARIED: dict[str, tuple[str, dict[str, Any]]] = {
    "balance, looks 0": ("balance", {"looks": 0}),
    **{f"hybrid, eta {eta}": ("hybrid", {"eta": eta}) for eta in (3, 10)},
}
"""Methods with a setting of their own: balance that compares no predictions; Sec. 5.5, how far to steer away (hybrid's
own eta is 1)."""
GUARDS = ("negative", "sld-strong", "sld-max")
"""SLD-Weak and SLD-Medium wait 15 and 10 steps, and the miniature takes 10."""
TWIN = "filtered twin"
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {("explicit", "esd"): {"select": "noncross"}}
"""By preset and method, as the paper has it: ESD-u for what no prompt names."""
EVERY_OBJECT, EVERY_STYLE = "every object", "every style"
"""Groups of tasks, an edit for each word: the paper's Table 2, and its Figs. 4 and 5."""


@dataclass(frozen=True)
class Task:
    """What one edit erases.

    words    of its concepts
    preset   of hybrid and lora
    goals    by column
    change   the suite and the key of the row that says how far other pictures change
    by       what it is erased by: names of methods, of PAPER, VARIED and guards, and TWIN
    keep     words that each method is told to keep
    default  the method that `unsee erase` would take, which has all pictures
    part     of the pictures that others have
    group    of tasks that are one line of the page, and a heat map
    square   of a group, how the keys of the rows begin that the heat map shows
    """

    name: str
    title: str
    words: tuple[str, ...]
    preset: str
    suites: tuple[str, ...]
    goals: Mapping[str, Goal]
    change: tuple[str, str]
    by: tuple[str, ...] = METHODS
    keep: tuple[str, ...] = ()
    default: str = METHODS[0]
    part: int = 1
    group: str = ""
    square: str = ""

    @property
    def line(self) -> str:
        """What the page calls it, or its group."""
        return self.group or self.name

    @property
    def concepts(self) -> list[Concept]:
        return [Concept(word, keep=self.keep if k == 0 else ()) for k, word in enumerate(self.words)]

    def method(self, name: str) -> Any:
        """A method with its preset for what is erased, where it has one."""
        if name in PAPER:
            return configure(methods.find("esd"), {"select": PAPER[name]}, "paper")
        kind, settings = VARIED.get(name, (name, SETTINGS.get((self.preset, name), {})))
        found = methods.find(kind)
        return configure(found, settings, self.preset if self.preset in found.presets else None)


def keyed(*keys: str) -> Callable[[Measured], bool]:
    return lambda one: one.key in keys


def starts(*beginnings: str) -> Callable[[Measured], bool]:
    return lambda one: one.key.startswith(beginnings)


def removed(one: Measured) -> bool:
    return one.expect_removed


def stays(beginning: str) -> Callable[[Measured], bool]:
    return lambda one: one.key.startswith(beginning) and one.role in STAYS


def of_objects(word: str, described: bool) -> dict[str, Goal]:
    """Goals of objects that are erased by their names."""
    found = {
        GONE: Goal("erased, per cent", "54.2 (church)", THINGS, keyed(REMOVED), SHARE, 1.0),
        IN_STYLES: Goal("erased, in all styles together, per cent", "-", THINGS, keyed(STYLED), SHARE, 2.0),
        REST: Goal("everything else loses, points", "15.0", THINGS, keyed(KEPT), LOSS, 0.5),
        NEIGHBOUR: Goal("no neighbour loses more, points", "-", THINGS, starts(NEAR), LOSS, 2.0),
    }
    if described:
        found[UNSEEN] = Goal("erased, by unseen wording, per cent", "-", WORDING, keyed(REMOVED), SHARE, 2.0)
        return found | of_descriptions(described)
    return found | {
        SYNONYMS: Goal("by synonyms, per cent", "38 of 79", "paraphrase", starts("synonyms/"), SHARE, 5.0),
        IN_SCENES: Goal("in scenes, per cent", "-", "scenes", keyed(f"{scenes.LEFT}/{word}"), SHARE, 2.0),
        BESIDE: Goal(
            "what stands beside it loses, per cent of base", "-", "scenes", starts(scenes.BESIDE), LOST_OF_BASE, 2.0
        ),
    }


def of_descriptions(described: bool) -> dict[str, Goal]:
    text = "other things by unseen wording lose, points"
    return {DESCRIBED: Goal(text, "-", WORDING, keyed(KEPT), LOSS, 2.0)} if described else {}


def of_style() -> dict[str, Goal]:
    subjects = keyed("subject of removed")
    return {
        GONE: Goal("the style, per cent", "-", "styles", keyed("removed"), SHARE, 3.0),
        REST: Goal("other styles lose, points", "-", "styles", keyed("kept"), LOSS, 1.0),
        NEIGHBOUR: Goal("its subjects lose, per cent of base", "-", "styles", subjects, LOST_OF_BASE, 1.0),
    }


def of_thing(thing: str) -> dict[str, Goal]:
    unasked = keyed(f"{UNASKED}{thing}")
    return {
        GONE: Goal("where no prompt names it, per cent of base", "17 (-83 %)", "implicit", unasked, OF_BASE, 5.0),
        REST: Goal("what the prompts name loses, points", "-", "implicit", keyed("content"), LOSS, 1.0),
    }


def of_title(others: bool = True) -> dict[str, Goal]:
    """others: whether there are titles that stay."""
    copies = "copies of no other image lose more, points"
    return {
        GONE: Goal("copies of it, per cent", "-", "memorised", removed, SHARE, 5.0),
        **({REST: Goal(copies, "-", "memorised", stays(memorised.COPIES), LOSS, 2.0)} if others else {}),
    }


def tasks(
    words: Mapping[str, Any], concept: str, style: str, thing: str, one: str, described: bool, compared: bool
) -> list[Task]:
    """The tasks that a model's words allow.

    one        the method that `unsee erase` takes for one name, and for ten
    described  whether objects are asked for by unseen wording too
    compared   whether the paper's loop, other settings, guards and a filtered twin stand beside the methods, and
               whether each experiment of the paper is there
    """
    ten = tuple(dict.fromkeys(words.get("imagenette", {}).values()))
    every_style, titles = tuple(words.get("styles", ())), tuple(words.get("memorised", ()))
    wording = (WORDING,) if described else ()
    beside = GUARDS if compared else ()
    paper = tuple(PAPER) if compared else ()
    more = (*VARIED, TWIN) if compared else ()
    extra = () if described else ("paraphrase", "scenes")
    objects, other = of_objects(concept, described), of_descriptions(described)
    ten_goals = {key: goal for key, goal in objects.items() if key in (GONE, IN_STYLES, UNSEEN, REST, NEIGHBOUR)}
    things, style_change = (THINGS, f"{KEPT}{CHANGE}"), ("styles", f"kept{CHANGE}")
    copied = ("memorised", f"{memorised.REST}{CHANGE}")
    found = [
        Task(
            "object", f"An object: {concept}", (concept,), "object", (THINGS, *wording, *extra), objects, things,
            by=(*METHODS, *more, *paper, *beside), default=one,
        ),
        Task("ten", "Ten objects in one edit", ten, "object", (THINGS, *wording), ten_goals, things, default=one),
        Task(
            "style", f"A style: {style}", (style,), "style", ("styles", *wording), of_style() | other, style_change,
            by=(*METHODS, *paper, *beside), default=one,
        ),
        Task(
            "implicit", f"An implicit concept: {thing}", (thing,), "explicit", ("implicit", *wording),
            of_thing(thing) | other, ("implicit", f"pictures{CHANGE}"),
            by=("hybrid", "lora", "esd", *[name for name in paper if "ESD-u" in name], *beside), default="hybrid",
        ),
        Task(
            "title", f"A memorised image: {next(iter(titles), '')}", titles[:1], "memorised", ("memorised", *wording),
            of_title() | other, copied, by=(*METHODS, *[name for name in paper if "ESD-x" in name], *beside),
            keep=titles[1:], default=one, part=2,
        ),
    ]  # fmt: skip
    if compared:
        alone = METHODS[:1]
        noise = {FID: Goal("FID above seed noise (0 no, 1 yes)", "-", "fidelity", keyed("fid"), ABOVE, 0.0)}
        title = f"Fidelity without {concept}"
        found += [
            Task("fidelity", title, (concept,), "object", ("fidelity",), noise, ("", ""), by=alone, part=4),
            *[Task(
                f"{k} titles", f"{k} memorised images in one edit (Figs. 8 and 9)", titles[:k], "memorised",
                ("memorised",), of_title(k < len(titles)), copied, by=alone, keep=titles[k:], part=2,
            )
            for k in (2, 4, 8) if k <= len(titles)],
        ]  # fmt: skip
        single = {
            GONE: Goal("each erased object, per cent", "12.6 on average", "objects", keyed("removed"), SHARE, 1.0),
            REST: Goal("all others lose by the worst edit, points", "15.0", "objects", keyed("kept"), LOSS, 0.5),
        }
        found += [
            Task(
                f"{EVERY_OBJECT}: {word}", f"Ten objects, an edit each (Table 2): {word}", (word,), "object",
                ("objects",), single, ("", ""), by=alone, part=4, group=EVERY_OBJECT, square="class/",
            )
            for word in ten
        ]  # fmt: skip
        found += [
            Task(
                f"{EVERY_STYLE}: {word}", f"Every style, an edit each (Figs. 4 and 5): {word}", (word,), "style",
                ("styles",), of_style(), style_change, by=(*alone, "hybrid"), part=4, group=EVERY_STYLE,
                square=styles.STYLE,
            )
            for word in every_style
        ]  # fmt: skip
    return [task for task in found if task.words]


def chosen(found: Sequence[Task], only: Sequence[str]) -> list[Task]:
    """Tasks by their names, or by those of their groups; all where none is named."""
    return [task for task in found if not only or task.name in only or task.group in only]
