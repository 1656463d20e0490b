"""Many concepts in the suite "summary": a row for each with a few pictures, a row for all of them, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, groupby, islice

from unsee.concepts import Concept
from unsee.evaluate.context import BASE, EvalContext
from unsee.evaluate.counted import counted_as
from unsee.evaluate.detectors import AnyDetector
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import STYLED, Question, Row
from unsee.evaluate.render import Shot
from unsee.evaluate.words import article, ways

MANY = 8
"""More concepts than this have one row each, and one together for each kind of detector. Fewer have several each."""
ALL, FEW = 4, 4
"""Pictures of many rows: ALL times those of one row for all of them together, and at least FEW for each."""
NEAREST = 20
"""Objects with the nearest texts that have a row each."""
TOGETHER = "removed together/"
"""How the key of all concepts that a kind of detector knows begins."""
NEAR, NEAR_TOGETHER = "neighbour/", "neighbours/all"
"""Keys of one of the nearest texts, and of all of them."""
ONE = ("removed/", "removed asked/")
"""How the key of one concept begins."""


def each(n: int, rows: int) -> int:
    """Pictures for each of so many rows: n where that is affordable."""
    return min(n, max(FEW, ALL * n // max(1, rows)))


def drawn(row: Row, count: int, seed: int, erases: Sequence[Concept] = ()) -> Question:
    """A row of `count` pictures that go through its pairs."""
    some = list(islice(cycle(row.pairs), count))
    shots = tuple(Shot(prompt, seed + k) for k, (prompt, _) in enumerate(some))
    labels, gone = tuple(label for _, label in some), tuple(erases) if row.role == "removed" else ()
    return Question(row.key, row.name, shots, row.detector, labels, row.role, gone, note=row.note)


def pooled(
    concepts: Sequence[Concept],
    names: Mapping[str, str],
    detectors: Mapping[str, AnyDetector],
    some: Sequence[str],
) -> Iterator[Row]:
    """Rows for many concepts: of each kind of detector those that it knows, each asked for once.

    names  what each name stands for, see words.known
    some   labels of objects on which a style, or what appears unasked, is looked for
    """
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
        yield Row(f"{TOGETHER}{kind or 'names'}", title, pairs, kind, "removed", note)


def alone(concept: Concept, label: str, kind: str, some: Sequence[str]) -> Row:
    """The one row of one concept among many; its key is that of the first row that it has among few."""
    word = concept.erase
    if kind == "objects":
        pairs = [(way, label) for name in concept.names for way in ways(name)]
        return Row(f"removed/{word}", word, pairs, kind, "removed")
    if kind == "styles":
        pairs = [(STYLED.format(thing, label), label) for thing in some]
        return Row(f"removed/{word}", f"{word.removesuffix(' style')} style", pairs, kind, "removed")
    pairs = [(f"{article(thing)} with {article(label)}", label) for thing in some]
    return Row(f"removed asked/{word}", f"{word}, asked for", pairs, kind, "removed")


def for_each(context: EvalContext, concepts: Sequence[Concept], some: Sequence[str]) -> Iterator[Question]:
    """The rows of many concepts: for each kind of detector all that it knows together, then one by one.

    some  labels of objects on which a style, or what appears unasked, is looked for
    What no detector knows has one row together, with each name once: nothing would be said of it one by one.
    """
    n, seed = context.n, context.seed
    count, counted = each(n, len(concepts)), [counted_as(c.erase, context.known, context.detectors) for c in concepts]
    for whole in pooled(concepts, context.known, context.detectors, some):
        kind = whole.detector
        own = [(c, label) for c, (label, by) in zip(concepts, counted, strict=True) if by == kind]
        if kind is None:
            yield drawn(whole, max(n, len(own)), seed, [c for c, _ in own])
        else:
            rows = [drawn(alone(c, label, kind, some), count, seed, [c]) for c, label in own]
            yield from (joined(whole.key, whole.name, rows), *rows)


def nearest_texts(context: EvalContext, labels: Sequence[str]) -> Iterator[Question]:
    """The objects whose texts are most like any of many concepts: all together, then one by one."""
    rows = [Row(f"{NEAR}{name}", f"{name} (near)", [(article(name), name)], "objects", "neighbour") for name in labels]
    found = [drawn(row, each(context.n, len(rows)), context.seed) for row in rows]
    if found:
        yield joined(NEAR_TOGETHER, f"the {len(rows)} objects with the nearest texts, together", found)
        yield from found


def joined(key: str, name: str, rows: Sequence[Question]) -> Question:
    """Rows of one detector and one role as one: of the same pictures, which are drawn once."""
    shots = tuple(shot for row in rows for shot in row.shots)
    labels = tuple(label for row in rows for label in row.labels)
    gone = tuple(concept for row in rows for concept in row.erases)
    return Question(key, name, shots, rows[0].detector, labels, rows[0].role, gone)


def worst_first(asked: Sequence[Question], c: Comparison) -> list[Question]:
    """The rows of a variant, those of single concepts and of single neighbours in order: worst first, ties by name.

    Worst is what is most still seen of what must go, and what loses most of what must stay.
    """
    if c.variant.kind == BASE:
        return list(asked)

    def badness(question: Question) -> tuple[float, str]:
        base, now = c.hits(question)
        seen = sum(now) / len(now)
        return (-seen if c.role(question) == "removed" else seen - sum(base) / len(base)), question.name

    found: list[Question] = []
    for key, group in groupby(asked, key=lambda row: kind_of(row.key) if row.detector else ""):
        rows = list(group)
        found += sorted(rows, key=badness) if key else rows
    return found


def kind_of(key: str) -> str:
    """What kind of single row has a key, of those that stand in order; "" for any other."""
    return next((start for start in (*ONE, NEAR) if key.startswith(start)), "")


def is_whole(key: str) -> bool:
    """Whether a row is many rows together."""
    return key.startswith(TOGETHER) or key == NEAR_TOGETHER
