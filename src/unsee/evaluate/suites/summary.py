"""What `unsee erase` prints: each erased concept, what is most like it, and everything else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Final, NamedTuple

from unsee.concepts import Concept
from unsee.evaluate.context import EvalContext
from unsee.evaluate.counted import counted_as, uncounted
from unsee.evaluate.detectors import AnyDetector
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import NEIGHBOURS, STYLED, Question, nearest, spread
from unsee.evaluate.records import Answer, Measured, Role
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import IMAGENETTE, article
from unsee.spelling import lookup, plain, same

NAME: Final = "summary"
REST = "everything else"
"""The key of everything else."""
MANY = 8
"""More concepts than these are counted together: a row for each kind of detector, not several for each concept."""
PART = 16
"""Everything else has one picture for each object, at most so many times a row's."""

Pairs = Sequence[tuple[str, str]]
"""Prompts, each with the label that counts."""


class Row(NamedTuple):
    """A row before its pictures are chosen."""

    key: str
    name: str
    pairs: Pairs
    detector: str | None
    role: Role
    note: str = ""


def ask(context: EvalContext) -> list[Question]:
    """Rows for each concept, for the objects most like it, for what the edits were made to preserve, and for the rest.

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
        near["all"] = nearest(context.pipe, any_of, rest)[:NEIGHBOURS]
    close = {label for labels in near.values() for label in labels}
    named = [label for label in rest if label not in close and set(label.split()) & set(context.kept)]
    other = [label for label in rest if label not in close and label not in named]
    few = spread(rest or [name for name in words.get("objects", IMAGENETTE) if name not in erased], n)

    asked: list[Question] = []

    def add(row: Row, count: int = n, erases: Sequence[Concept] = ()) -> None:
        """Add a row of `count` pictures that go through its pairs."""
        if row.pairs:
            some = list(islice(cycle(row.pairs), count))
            shots = tuple(Shot(prompt, context.seed + k) for k, (prompt, _) in enumerate(some))
            labels, gone = tuple(label for _, label in some), tuple(erases) if row.role == "removed" else ()
            asked.append(Question(row.key, row.name, shots, row.detector, labels, row.role, gone, note=row.note))

    for row in pooled(together, names, detectors, few):
        add(row, max(n, len(row.pairs)), together)
    if "all" in near:
        add(neighbours("their", "all", near["all"]))
    for concept in concepts:
        if concept not in together:
            for row in rows(concept, names, detectors, few, styles, near):
                add(row, erases=[concept])
    shown = [(article(label), label) for label in named]
    add(Row("preserved", "shown to the method as ones to keep", shown, "objects", "kept"))
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
        yield neighbours("its", label, near[label])
    elif kind == "styles":
        yield Row(f"{role}/{own}", title, [(STYLED.format(name, label), label) for name in some], kind, role)
        if "objects" in detectors:
            pairs = [(STYLED.format(name, label), name) for name in some]
            yield Row(f"subject/{own}", f"what is drawn in {title}", pairs, "objects", "kept")
    elif kind is not None:
        yield Row(f"{role} unasked/{own}", f"{title}, unasked", [(article(name), label) for name in some], kind, role)
        pairs = [(f"{article(name)} with {article(word)}", label) for name in some]
        yield Row(f"{role} asked/{own}", f"{title}, asked for", pairs, kind, role)


def neighbours(whose: str, key: str, names: Sequence[str]) -> Row:
    """The objects whose texts are most like an erased one's."""
    pairs = [(article(name), name) for name in names]
    return Row(f"neighbours/{key}", f"{whose} neighbours: {', '.join(names)}", pairs, "objects", "neighbour")


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
        note = f"no detector sees whether {c!r} is part of {b!r}: compare the pictures and their change"
        yield Row(here, f"{c} on {b}", both[1:], None, "removed", note)
        if kind:
            yield Row(there, f"{c} elsewhere", alone, kind, "kept")


def pooled(
    concepts: Sequence[Concept],
    names: Mapping[str, str],
    detectors: Mapping[str, AnyDetector],
    some: Sequence[str],
) -> Iterator[Row]:
    """Rows for many concepts: of each kind of detector those that it knows, each asked for once."""
    kinds: dict[str | None, list[tuple[str, str]]] = {}
    for concept, thing in zip(concepts, cycle(some), strict=False):
        label, kind = counted_as(concept.erase, names, detectors)
        way = {"styles": STYLED.format(thing, label), "objects": ways(concept.erase)[-1], None: concept.erase}
        kinds.setdefault(kind, []).append((way.get(kind, f"{article(thing)} with {article(label)}"), label))
    for kind, pairs in kinds.items():
        note = ""
        if not kind and any(detector.labels for detector in detectors.values()):
            note = f"not measured: no detector has a word for {'; '.join(word for word, _ in pairs[:3])} ..."
        title = f"{len(pairs)} erased {kind or 'names'}, together"
        yield Row(f"removed together/{kind or 'names'}", title, pairs, kind, "removed", note)


def mixed(
    word: str, names: Mapping[str, str], detectors: Mapping[str, AnyDetector], some: Sequence[str]
) -> Iterator[Row]:
    """Rows for a thing in a style, "church in neon style", of which detectors know both; none for any other word."""
    parts = re.fullmatch(STYLED.replace("{}", "(.+)"), word)
    thing, style = (counted_as(p, names, detectors) for p in parts.groups()) if parts else (("", None), ("", None))
    if (thing[1], style[1]) != ("objects", "styles"):
        return
    for part, (label, kind) in (("thing", thing), ("style", style)):
        note = "it is gone if the thing or the style is"
        yield Row(f"removed {part}/{word}", f"{word}, seen as {label}", [(word, label)], kind, "removed", note)
    elsewhere = [(STYLED.format(name, style[0]), style[0]) for name in some]
    yield Row(f"style elsewhere/{word}", f"{style[0]} style elsewhere", elsewhere, "styles", "kept")
    alone = [(way, thing[0]) for way in ways(thing[0])]
    yield Row(f"thing elsewhere/{word}", f"{thing[0]} in no style", alone, "objects", "kept")


def ways(name: str) -> tuple[str, ...]:
    """How a thing is asked for: by its name, and with an article if it takes one."""
    return tuple(dict.fromkeys([name, article(name)]))


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    """Every row's share, then how far every row's pictures are from the base's."""
    yield from c.count([question for question in asked if question.detector])
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
