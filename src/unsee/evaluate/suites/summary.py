"""What `unsee erase` prints: each erased concept, what is most like it, and everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Final

from unsee.concepts import Concept
from unsee.evaluate.context import EvalContext
from unsee.evaluate.counted import counted_as, uncounted
from unsee.evaluate.detectors import AnyDetector
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import NEIGHBOURS, STYLED, Question, Row, nearest, spread
from unsee.evaluate.records import Answer, Measured, Role
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.suites.many import MANY, NEAREST, drawn, each, for_each, is_whole, nearest_texts, worst_first
from unsee.evaluate.words import IMAGENETTE, article, ways
from unsee.spelling import lookup, plain, same

NAME: Final = "summary"
REST = "everything else"
"""The key of everything else."""
PART = 16
"""Everything else has one picture for each object, at most so many times a row's."""


def ask(context: EvalContext) -> list[Question]:
    """Rows for each concept, for the objects most like it, for what the edits were made to preserve, and for the rest.

    More than MANY concepts have one row each, with fewer pictures, and one together; see many.py.
    "everything else" has one picture for each object, unless n is so small that PART n are fewer.
    """
    detectors, words, n, names = context.detectors, context.words, context.n, context.known
    concepts = list({(c.erase, c.from_): c for c in reversed(context.concepts)}.values())[::-1]
    objects, styles = ([*detectors[kind].labels] if kind in detectors else [] for kind in ("objects", "styles"))
    erased = {lookup(name, names) for c in concepts for name in ([c.from_] if c.from_ else c.names)}
    rest = [label for label in objects if label not in erased]
    together = [concept for concept in concepts if not concept.from_] if len(concepts) > MANY else []
    near = {
        label: nearest(context.pipe, [label], rest)[:NEIGHBOURS]
        for c in concepts
        if c not in together and (label := lookup(c.from_ or c.erase, names)) in objects and label
    }
    if any_of := [label for c in together if (label := lookup(c.erase, names)) in objects and label]:
        most = max(NEIGHBOURS, min(NEAREST, len(rest) // 3))  # some remain that are not near
        near["all"] = nearest(context.pipe, any_of, rest)[:most]
    close = {label for labels in near.values() for label in labels}
    named = [label for label in rest if label not in close and set(label.split()) & set(context.kept)]
    other = [label for label in rest if label not in close and label not in named]
    few = spread(rest or [name for name in words.get("objects", IMAGENETTE) if name not in erased], n)

    asked: list[Question] = []

    def add(row: Row, count: int = n, erases: Sequence[Concept] = ()) -> None:
        """Add a row of `count` pictures, if it asks for any."""
        if row.pairs:
            asked.append(drawn(row, count, context.seed, erases))

    asked += [*for_each(context, together, few), *nearest_texts(context, near.get("all", ()))]
    for concept in concepts:
        if concept not in together:
            for row in rows(concept, names, detectors, few, styles, near):
                add(row, each(n, len(concepts)) if len(concepts) > MANY else n, [concept])
    shown = [(article(label), label) for label in named]
    add(Row("preserved", "objects that the method preserved", shown, "objects", "kept"))
    some = [(article(label), label) for label in spread(other, PART * n)]
    add(Row(REST, "everything else", some, "objects", "kept"), max(n, len(some)))
    stay = [style for style in styles if style not in erased]
    pairs = list(zip(islice(cycle(other or few), n if stay else 0), cycle(stay), strict=False))
    title = "styles" if len(stay) == len(styles) else "other styles"
    add(Row("styles", title, [(STYLED.format(*pair), pair[1]) for pair in pairs], "styles", "style"))
    if not objects:
        add(Row("prompts", "what must stay", [(prompt, "") for prompt in context.kept], None, "kept"))
    return asked


def rows(
    concept: Concept,
    names: Mapping[str, str],
    detectors: Mapping[str, AnyDetector],
    some: Sequence[str],
    styles: Sequence[str],
    near: Mapping[str, Sequence[str]],
) -> Iterator[Row]:
    """The rows about one concept.

    names  what each name stands for, see words.known
    some   labels of objects on which a style, or what appears unasked, is looked for
    near   the objects most like an object
    """
    word, removed = concept.from_ or concept.erase, concept.from_ is None
    label, kind = counted_as(word, names, detectors)
    title = f"{word.removesuffix(' style')} style" if kind == "styles" else word
    title += "" if removed else f" without {concept.erase}"
    role: Role = "removed" if removed else "kept"
    own = word if removed else f"{word} without {concept.erase}"
    mixture = list(mixed(word, names, detectors, some)) if kind is None else []
    yield from mixture if removed else taken(concept, names, detectors, some)
    if kind == "objects" or not (kind or mixture):
        given = concept.names if removed else (word,)
        pairs = [(way, counted_as(name, names, detectors)[0]) for name in given for way in ways(name)]
        yield Row(f"{role}/{own}", title, pairs, kind, role, "" if kind else uncounted(word, names, detectors))
    if kind == "objects":
        if removed and not any(plain(name) == plain(label) for name in concept.names):
            pairs = [(way, label) for way in ways(label)]
            yield Row(f"{role} by label/{own}", f"{title}, asked for as {label}", pairs, kind, role)
        pairs = [(STYLED.format(word, style), label) for style in styles]
        yield Row(f"{role} in styles/{own}", f"{title}, in every style", pairs, kind, role)
        pairs = [(article(name), name) for name in near[label]]
        yield Row(f"neighbours/{label}", f"its neighbours: {', '.join(near[label])}", pairs, "objects", "neighbour")
    elif kind == "styles":
        yield Row(f"{role}/{own}", title, [(STYLED.format(name, label), label) for name in some], kind, role)
        if "objects" in detectors:
            pairs = [(STYLED.format(name, label), name) for name in some]
            yield Row(f"subject/{own}", f"what is drawn in {title}", pairs, "objects", "kept")
    elif kind is not None:
        yield Row(f"{role} unasked/{own}", f"{title}, unasked", [(article(name), label) for name in some], kind, role)
        pairs = [(f"{article(name)} with {article(word)}", label) for name in some]
        yield Row(f"{role} asked/{own}", f"{title}, asked for", pairs, kind, role)


def taken(
    concept: Concept, names: Mapping[str, str], detectors: Mapping[str, AnyDetector], some: Sequence[str]
) -> Iterator[Row]:
    """Whether a concept is gone from `from_`, and whether it stays elsewhere.

    some  labels of objects on which it is looked for elsewhere
    """
    c, b = (name.removesuffix(" style") for name in (concept.erase, str(concept.from_)))
    if parts := re.fullmatch(STYLED.replace("{}", "(.+)"), str(concept.from_)):  # "church in neon style" holds it
        b = next((part for part in parts.groups() if not same(part, c)), b)
    (label, kind), (_, place) = counted_as(c, names, detectors), counted_as(b, names, detectors)
    here, there = f"removed/{concept.erase} from {concept.from_}", f"elsewhere/{concept.erase} from {concept.from_}"
    alone = [(way, label) for way in ways(c)]
    both = [(article(b), label), (f"{article(b)} with {article(c)}", label)]
    if kind == "styles":
        yield Row(here, f"{c} style on {b}", [(STYLED.format(b, c), label)], kind, "removed")
        others = [(STYLED.format(name, c), label) for name in some]
        yield Row(there, f"{c} style elsewhere", others, kind, "kept")
    elif place == "styles":
        note = "" if kind else uncounted(c, names, detectors)
        yield Row(here, f"{c} in {b} style", [(STYLED.format(c, b), label)], kind, "removed", note)
        yield Row(there, f"{c} elsewhere", alone, kind, "kept", note)
    elif kind not in ("objects", None):
        yield Row(here, f"{c} on {b}", both, kind, "removed")
        others = [(f"{article(name)} with {article(c)}", label) for name in some]
        yield Row(there, f"{c} elsewhere", others, kind, "kept")
    else:
        note = f"no detector sees whether {c!r} is part of {b!r}: compare the pictures and the picture change"
        yield Row(here, f"{c} on {b}", both[1:], None, "removed", note)
        if kind:
            yield Row(there, f"{c} elsewhere", alone, kind, "kept")


def mixed(
    word: str, names: Mapping[str, str], detectors: Mapping[str, AnyDetector], some: Sequence[str]
) -> Iterator[Row]:
    """Rows for a thing in a style, "church in neon style", of which detectors know both; none for any other word."""
    parts = re.fullmatch(STYLED.replace("{}", "(.+)"), word)
    thing, style = (counted_as(p, names, detectors) for p in parts.groups()) if parts else (("", None), ("", None))
    if (thing[1], style[1]) != ("objects", "styles"):
        return
    for part, (label, kind) in (("thing", thing), ("style", style)):
        note = "it counts as gone if either the thing or the style is gone"
        yield Row(f"removed {part}/{word}", f"{word}, seen as {label}", [(word, label)], kind, "removed", note)
    elsewhere = [(STYLED.format(name, style[0]), style[0]) for name in some]
    yield Row(f"style elsewhere/{word}", f"{style[0]} style elsewhere", elsewhere, "styles", "kept")
    alone = [(way, thing[0]) for way in ways(thing[0])]
    yield Row(f"thing elsewhere/{word}", f"{thing[0]} in no style", alone, "objects", "kept")


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    """Every row's share, then how far every row's pictures are from the base's."""
    asked = worst_first(asked, c)
    for found in c.count([question for question in asked if question.detector]):
        if isinstance(found, Measured) or not is_whole(found.key):  # its parts have its answers
            yield found
    for question in asked:
        note = "" if question.detector else question.note
        yield c.change(question.key, question.name, question.shots, c.role(question), note)


SUITE = Suite(
    NAME,
    "Each erased concept, the objects whose texts are most similar to it, and all other objects: the share of pictures "
    "that show what the prompt asks for, and how far pictures change.",
    ask,
    score,
)
