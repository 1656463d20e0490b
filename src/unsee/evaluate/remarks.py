"""What a user should know of the names of concepts before these are erased: what counts them, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unsee.concepts import Concept
from unsee.evaluate.counted import counted_as, uncounted
from unsee.evaluate.detectors import AnyDetector, names_of
from unsee.evaluate.suites.many import MANY, pooled
from unsee.evaluate.suites.summary import mixed
from unsee.evaluate.words import article, known
from unsee.spelling import IRREGULAR, UNCOUNTED, plain, plural, plurals

MIXED = "{!r} is a thing in a style: its words are erased everywhere, so other things lose the style too"
STYLE_FROM = "pictures of {!r} show {!r} only where the prompt names it, so `from_` erases little here"
PLURAL = "a plural that is not named may stay: add it with `synonyms` {!r}"
ONLY = "only {} is erased: add other names, such as a plural or another spelling, with `synonyms`"
NAMED = ", but only the name {!r} is erased: add the other with `synonyms` {!r}"


def remarks(
    concepts: Sequence[Concept], detectors: Mapping[str, AnyDetector], words: Mapping[str, Any] | None = None
) -> list[str]:
    """What a user should know of the concepts' names before they are erased: what is counted for them, what is not."""
    names, found = known(words or {}, names_of(detectors)), []
    if len(concepts) > MANY:
        rows = pooled([concept for concept in concepts if not concept.from_], names, detectors, ["thing"])
        return [f"{row.name}: {row.note}" if row.note else row.name for row in rows]
    for concept in concepts:
        for word in (concept.from_,) if concept.from_ else concept.names:
            label, kind = counted_as(word, names, detectors)
            if any(mixed(word, names, detectors, ())):
                found.append("" if concept.from_ else MIXED.format(word))
            elif kind is None:
                found.append(uncounted(word, names, detectors))
            elif kind and plain(label) != plain(word):
                given = concept.from_ or any(plain(label) == plain(name) for name in concept.names)
                found.append(f"{word!r} is counted as {label!r}" + ("" if given else NAMED.format(word, label)))
        if many := _plurals(concept, names, detectors):
            found.append(PLURAL.format(", ".join(many)))
        elif not concept.from_ and not any(detector.labels for detector in detectors.values()):
            found.append(ONLY.format(" and ".join(map(repr, concept.names))))
        if concept.from_ and "styles" in {
            counted_as(name, names, detectors)[1] for name in (concept.erase, concept.from_)
        }:
            found.append(STYLE_FROM.format(concept.from_, concept.erase))
    return [remark for remark in found if remark]


def _plurals(concept: Concept, names: Mapping[str, str], detectors: Mapping[str, AnyDetector]) -> list[str]:
    """The plurals of a thing that is erased under its singular only; of what is no thing, none."""
    given = [plain(name) for name in concept.names]
    things = [name for name in concept.names if counted_as(name, names, detectors)[1] == "objects"]
    single = [name for name in map(plain, things) if article(name) != name and not plurals(name) & {*given}]
    single = [name for name in single if name.split()[-1] not in UNCOUNTED | {*IRREGULAR.values()}]
    return [] if concept.from_ else list(map(plural, single))
