"""What the evidence erases, how it looks at it, and what it aims at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unsee.concepts import Concept
from unsee.errors import unknown
from unsee.evaluate.records import Measured
from unsee.evaluate.suites.neighbours import KEPT, NEAR
from unsee.methods.hybrid import Hybrid

DEFAULT = "default"
STEPS = 18
"""Of the sampler where guards stand beside: more than the 15 that SLD-Weak waits. Elsewhere the model's own number."""


@dataclass(frozen=True)
class Goal:
    """What is aimed at, as a test of one column's numbers, with the paper's own figure.

    told  whether it is of the default that was told to keep what is alike, not of the default
    """

    text: str
    paper: str
    suite: str
    pick: Callable[[Measured], bool]
    value: Callable[[Measured], float]
    limit: float  # at most, for the worst of what is picked
    told: bool = False


@dataclass(frozen=True)
class Experiment:
    """What is erased, from which columns, looked at by which suites.

    erase    for each edit of a method the concepts that go; more than one entry: an edit each
    compare  whether guards and all methods stand beside the default
    apart    of the only suite, the rows that tell of each edit, if edits are measured one by one: each against what it
             erases
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


def share(one: Measured) -> float:
    return 100 * one.score.value


def loss(one: Measured) -> float:
    return -100 * one.difference.value if one.difference else 0.0


def of_base(one: Measured) -> float:
    """A share as per cent of the base's."""
    return 100 * one.score.value / one.base.value if one.base and one.base.value else 100.0


def lost_of_base(one: Measured) -> float:
    return 100 - of_base(one)


def row(*names: str) -> Callable[[Measured], bool]:
    return lambda one: one.row in names


def starts(text: str) -> Callable[[Measured], bool]:
    return lambda one: one.row.startswith(text)


def gone(one: Measured) -> bool:
    return one.gone


def experiments(
    words: dict[str, Any], concept: str, style: str, thing: str, alike: Sequence[str] = ()
) -> list[Experiment]:
    """The tables and figures of the paper, and ours, that this model's words allow."""
    ten = tuple((name,) for name in dict.fromkeys(words.get("imagenette", {}).values()))
    titles = tuple(words.get("memorised", ()))
    of_object = (
        Goal("erased, per cent", "54.2 (church)", "objects", row("erased"), share, 1.0),
        Goal("all others lose, points", "15.0", "objects", row("all others"), loss, 0.5),
        Goal("no neighbour loses more, points", "-", "neighbours", near, loss, 5.0),
        *(
            [Goal("the same, told to keep what is alike", "-", "neighbours", near, loss, 5.0, told=True)]
            if alike
            else []
        ),
        Goal("every other object together loses, points", "-", "neighbours", row("all other objects"), loss, 0.5),
        Goal("in all styles together, per cent", "-", "styles", starts(f"{concept}, in"), share, 2.0),
        Goal("by other names, per cent", "38 of 79", "paraphrase", gone, share, 5.0),
        Goal("in scenes, per cent", "-", "scenes", gone, share, 2.0),
        Goal("what stands beside it loses, per cent of base", "-", "scenes", starts("the one"), lost_of_base, 2.0),
        Goal("FID above what other seeds give (0 no, 1 yes)", "-", "fidelity", starts("FID"), above, 0.0),
    )
    of_ten = (
        Goal("each erased object, per cent", "12.6 on average", "objects", row("erased"), share, 1.0),
        Goal("all others lose, points", "15.0 on average", "objects", row("all others"), loss, 0.5),
    )
    of_style = (
        Goal("the style, per cent", "-", "styles", row("erased styles"), share, 3.0),
        Goal("other styles lose, points", "-", "styles", row("other styles"), loss, 1.0),
        Goal("its subjects lose, per cent of base", "-", "styles", starts("subject of erased"), lost_of_base, 1.0),
    )
    of_styles = (
        Goal("each erased style, per cent", "-", "styles", row("erased styles"), share, 3.0),
        Goal("other styles lose by each, points", "-", "styles", row("other styles"), loss, 1.0),
        Goal("subjects lose, per cent of base", "-", "styles", starts("subject of erased"), lost_of_base, 1.0),
    )
    of_thing = (
        Goal("unasked, per cent of base", "17 (-83 %)", "implicit", row(f"{thing}, unasked"), of_base, 5.0),
        Goal("what the prompts name loses, points", "-", "implicit", starts("what the prompts"), loss, 1.0),
    )
    counts = tuple(titles[:k] for k in (1, 2, 4, 8) if k <= len(titles))
    erased = {column(some): some for some in counts}

    def stays(one: Measured) -> bool:
        return one.row.split(": ")[0] not in erased.get(one.column, titles[:1])

    def copies(one: Measured) -> bool:
        return stays(one) and one.row.endswith("copies of it")

    def distances(one: Measured) -> bool:
        return stays(one) and one.row.endswith(": distance to it")

    of_title = (
        Goal("copies of it, per cent", "-", "memorised", gone, share, 5.0),
        Goal("copies of the others lost beyond chance, points", "-", "memorised", copies, lost_for_sure, 0.0),
        Goal("the same, told to keep the others", "-", "memorised", copies, lost_for_sure, 0.0, told=True),
        Goal(
            "others move beyond chance, told to, grey levels",
            "-",
            "memorised",
            distances,
            moved_for_sure,
            1.0,
            told=True,
        ),
    )
    of_titles = (
        Goal("copies of an erased one, per cent", "-", "memorised", gone, share, 5.0),
        Goal("copies of the others lost beyond chance, points", "-", "memorised", copies, lost_for_sure, 0.0),
        Goal("others move beyond chance, grey levels", "-", "memorised", distances, moved_for_sure, 1.0),
    )
    every = ("objects", "neighbours", "styles", "paraphrase", "partial", "scenes", "fidelity", "attention")
    etas = ({"eta": 1}, {"eta": 3}, {"eta": 10})
    table = "Ten objects, an edit each (the paper's Table 2)"
    every_style = tuple((name,) for name in words.get("styles", ()))
    by_style = "Every style, an edit each, against every style (the paper's Figs. 4 and 5)"
    rows_of_styles = ("erased styles", "other styles", "subject of erased styles", "subject of other styles")
    by_heart = "Pictures known by heart, 1, 2, 4 and 8 of them erased (the paper's Figs. 8 and 9)"
    unasked = f"What nobody asked for: {thing}"
    found = [
        Experiment("object", f"An object: {concept}", every, ((concept,),), True, of_object, alike=tuple(alike)),
        Experiment("ten", table, ("objects",), ten, False, of_ten, (), ("erased", "all others")),
        Experiment("style", f"A style: {style}", ("styles",), ((style,),), True, of_style, preset="style"),
        Experiment("matrix", by_style, ("styles",), every_style, False, of_styles, (), rows_of_styles, "style"),
        Experiment("implicit", unasked, ("implicit",), ((thing,),), True, of_thing, preset="explicit"),
        Experiment("eta", f"{concept} at eta 1, 3, 10 (Sec. 5.5)", ("eta",), ((concept,),), False, (), etas),
        *[
            Experiment(
                "title",
                f"A picture known by heart: {title}",
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
        Experiment("memorised", by_heart, ("memorised",), counts, False, of_titles, (), (), "memorised", titles),
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


def near(one: Measured) -> bool:
    return one.row.endswith((NEAR, KEPT))


def moved_for_sure(one: Measured) -> float:
    return abs(one.difference.value) * differs(one) if one.difference else 0.0


def lost_for_sure(one: Measured) -> float:
    return max(0.0, loss(one)) * differs(one)


def above(one: Measured) -> float:
    """Whether a number is beyond the interval of the base's own."""
    return float(one.base is not None and one.score.value > one.base.high)


def differs(one: Measured) -> float:
    return float(one.difference is not None and one.difference.differs)
