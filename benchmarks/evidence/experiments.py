"""What the evidence erases, how it looks at it, and what it aims at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.evidence.quantities import (
    ABOVE,
    LOSS,
    LOST_OF_BASE,
    OF_BASE,
    SHARE,
    SURE_LOSS,
    SURE_MOVE,
    Quantity,
)
from unsee.concepts import Concept
from unsee.errors import unknown
from unsee.evaluate.records import STAYS, Measured
from unsee.evaluate.suites import memorised, neighbours, scenes, styles
from unsee.evaluate.suites.implicit import UNASKED
from unsee.methods.hybrid import Hybrid

DEFAULT = "default"
STEPS = 18
"""Of the sampler where guards stand beside: more than the 15 that SLD-Weak waits. Elsewhere the model's own number."""


@dataclass(frozen=True)
class Goal:
    """What is aimed at, as a test of one column's numbers, with the paper's own figure.

    pick  the rows that it is about, by their keys and roles
    limit of the worst of them, at most
    told  whether it is of the default that was told to keep what is alike, not of the default
    """

    text: str
    paper: str
    suite: str
    pick: Callable[[Measured], bool]
    quantity: Quantity
    limit: float
    told: bool = False


@dataclass(frozen=True)
class Experiment:
    """What is erased, from which columns, looked at by which suites.

    erase    for each edit of a method the concepts that go; more than one entry: an edit each
    compare  whether guards and all methods stand beside the default
    apart    of the only suite, the keys of the rows that are shown of each edit, if edits are measured one by one: each
             against what it erases
    square   how the keys of the rows begin that show each edit against each of the others' concepts
    preset   of the default's settings
    keep     words that each edit is told to keep, but for those that it erases
    part     of the pictures of a row that others have
    alike    words for what looks like it: all columns are measured on them, and one more is told to keep them
    """

    name: str
    title: str
    suites: tuple[str, ...]
    erase: tuple[tuple[str, ...], ...]
    compare: bool
    goals: tuple[Goal, ...] = ()
    settings: tuple[dict[str, Any], ...] = ()
    apart: tuple[str, ...] = ()
    square: str = ""
    preset: str = "object"
    keep: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    part: int = 1

    @property
    def told(self) -> str:
        """The name of the default that is told to keep what is alike."""
        return f"{DEFAULT}, keep {', '.join(self.alike) if len(self.alike) < 3 else f'{len(self.alike)} others'}"

    def n(self, asked: int) -> int:
        """Pictures for each row of what is erased."""
        return max(2, asked // self.part)

    def steps(self, asked: int | None) -> int | None:
        """Of the sampler; None is the model's own number."""
        return asked or (STEPS if self.compare else None)

    def concepts(self, words: Sequence[str], *, told: bool = False) -> list[Concept]:
        """Of one edit; `told` what is alike, or not."""
        keep = tuple(word for word in self.keep + self.alike * told if word not in words)
        return [Concept(word, keep=keep if word == words[0] else ()) for word in words]

    def default(self, settings: dict[str, Any], **others: Any) -> Hybrid:
        """What is measured: its preset, with settings that the whole page was asked for."""
        return Hybrid(**{**Hybrid.presets[self.preset], **settings, **others})


def keyed(*keys: str) -> Callable[[Measured], bool]:
    return lambda one: one.key in keys


def starts(*beginnings: str) -> Callable[[Measured], bool]:
    return lambda one: one.key.startswith(beginnings)


def removed(one: Measured) -> bool:
    return one.expect_removed


def kept(beginning: str) -> Callable[[Measured], bool]:
    return lambda one: one.key.startswith(beginning) and one.role in STAYS


def experiments(
    words: dict[str, Any], concept: str, style: str, thing: str, alike: Sequence[str] = ()
) -> list[Experiment]:
    """The tables and figures of the paper, and ours, that this model's words allow."""
    ten = tuple((name,) for name in dict.fromkeys(words.get("imagenette", {}).values()))
    titles = tuple(words.get("memorised", ()))
    near = starts(neighbours.NEAR, neighbours.KEPT)
    of_object = (
        Goal("erased, per cent", "54.2 (church)", "objects", keyed("removed"), SHARE, 1.0),
        Goal("all others lose, points", "15.0", "objects", keyed("kept"), LOSS, 0.5),
        Goal("no neighbour loses more, points", "-", "neighbours", near, LOSS, 5.0),
        *(
            [Goal("no neighbour loses more, with `keep`, points", "-", "neighbours", near, LOSS, 5.0, told=True)]
            if alike
            else []
        ),
        Goal("every other object together loses, points", "-", "neighbours", keyed("kept"), LOSS, 0.5),
        Goal("in all styles together, per cent", "-", "styles", keyed(f"{styles.OBJECT}{concept}"), SHARE, 2.0),
        Goal("by synonyms, per cent", "38 of 79", "paraphrase", removed, SHARE, 5.0),
        Goal("in scenes, per cent", "-", "scenes", removed, SHARE, 2.0),
        Goal("the object beside it loses, per cent of base", "-", "scenes", starts(scenes.BESIDE), LOST_OF_BASE, 2.0),
        Goal("FID above seed noise (0 no, 1 yes)", "-", "fidelity", keyed("fid"), ABOVE, 0.0),
    )
    of_ten = (
        Goal("each erased object, per cent", "12.6 on average", "objects", keyed("removed"), SHARE, 1.0),
        Goal("all others lose, points", "15.0 on average", "objects", keyed("kept"), LOSS, 0.5),
    )
    of_style = (
        Goal("the style, per cent", "-", "styles", keyed("removed"), SHARE, 3.0),
        Goal("other styles lose, points", "-", "styles", keyed("kept"), LOSS, 1.0),
        Goal("its subjects lose, per cent of base", "-", "styles", keyed("subject of removed"), LOST_OF_BASE, 1.0),
    )
    of_styles = (
        Goal("each erased style, per cent", "-", "styles", keyed("removed"), SHARE, 3.0),
        Goal("other styles lose by each, points", "-", "styles", keyed("kept"), LOSS, 1.0),
        Goal("subjects lose, per cent of base", "-", "styles", keyed("subject of removed"), LOST_OF_BASE, 1.0),
    )
    of_thing = (
        Goal(
            "where no prompt names it, per cent of base",
            "17 (-83 %)",
            "implicit",
            keyed(f"{UNASKED}{thing}"),
            OF_BASE,
            5.0,
        ),
        Goal("what the prompts name loses, points", "-", "implicit", keyed("content"), LOSS, 1.0),
    )
    counts = tuple(titles[:k] for k in (1, 2, 4, 8) if k <= len(titles))
    copies, distances = kept(memorised.COPIES), kept(memorised.DISTANCE)
    of_title = (
        Goal("copies of it, per cent", "-", "memorised", removed, SHARE, 5.0),
        Goal("copies of other images lost (significant only), points", "-", "memorised", copies, SURE_LOSS, 0.0),
        Goal("the same, with `keep`", "-", "memorised", copies, SURE_LOSS, 0.0, told=True),
        Goal(
            "other images change (significant only), with `keep`, grey levels",
            "-",
            "memorised",
            distances,
            SURE_MOVE,
            1.0,
            told=True,
        ),
    )
    of_titles = (
        Goal("copies of an erased one, per cent", "-", "memorised", removed, SHARE, 5.0),
        Goal("copies of other images lost (significant only), points", "-", "memorised", copies, SURE_LOSS, 0.0),
        Goal("other images change (significant only), grey levels", "-", "memorised", distances, SURE_MOVE, 1.0),
    )
    every = ("objects", "neighbours", "styles", "paraphrase", "partial", "scenes", "fidelity", "attention")
    etas = ({"eta": 1}, {"eta": 3}, {"eta": 10})
    table = "Ten objects, an edit each (the paper's Table 2)"
    every_style = tuple((name,) for name in words.get("styles", ()))
    by_style = "Every style, an edit each, against every style (the paper's Figs. 4 and 5)"
    rows_of_styles = ("removed", "kept", "subject of removed", "subject of kept")
    several = "Memorised images: 1, 2, 4 and 8 of them erased (the paper's Figs. 8 and 9)"
    found = [
        Experiment("object", f"An object: {concept}", every, ((concept,),), True, of_object, alike=tuple(alike)),
        Experiment("ten", table, ("objects",), ten, False, of_ten, (), ("removed", "kept"), "class/"),
        Experiment("style", f"A style: {style}", ("styles",), ((style,),), True, of_style, preset="style"),
        Experiment(
            "matrix", by_style, ("styles",), every_style, False, of_styles, (), rows_of_styles, styles.STYLE, "style"
        ),
        Experiment(
            "implicit", f"An implicit concept: {thing}", ("implicit",), ((thing,),), True, of_thing, preset="explicit"
        ),
        Experiment("eta", f"{concept} at eta 1, 3, 10 (Sec. 5.5)", ("eta",), ((concept,),), False, (), etas),
        *[
            Experiment(
                "title",
                f"A memorised image: {title}",
                ("memorised",),
                ((title,),),
                True,
                of_title,
                preset="memorised",
                part=2,
                alike=tuple(other for other in titles if other != title),
            )
            for title in titles[:1]
        ],
        Experiment("memorised", several, ("memorised",), counts, False, of_titles, preset="memorised", keep=titles),
    ]
    return [experiment for experiment in found if experiment.erase]


def chosen(found: Sequence[Experiment], only: Sequence[str]) -> list[Experiment]:
    """Experiments by their names, and those suites of others that are named. Raises InputError for an unknown name."""
    known = {name for one in found for name in (one.name, *one.suites)}
    for name in only:
        if name not in known:
            raise unknown("experiment or suite", name, known)
    some = [
        one if one.name in only else replace(one, suites=tuple(name for name in one.suites if name in only))
        for one in found
    ]
    return [one for one in some if one.suites] if only else list(found)


def column(words: Sequence[str]) -> str:
    """The name of an edit among others of its experiment."""
    return words[0] if len(words) == 1 else f"{len(words)} titles"
