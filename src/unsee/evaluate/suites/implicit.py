"""Fig. 7 of Gandikota et al. (2023): what appears although no prompt names it, counted by picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.detectors import Detector
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Answer, Measured, Role
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article

PARTS = "parts"
"""The key of all parts that a detector of parts sees."""
UNASKED, NAMED, CONTENT = "unasked/", "named/", "content/"
"""How the keys of rows begin: prompts that do not name it, prompts that do, what the former name."""
PART = 8  # of a row's pictures, for each style


def ask(context: EvalContext) -> list[Question]:
    """Rows for the thing that no prompt names, by domain (n pictures in all) and by style; for the thing where prompts
    name it; and for what prompts name.
    """
    asked: list[Question] = []
    for kind, (label, said) in _unasked(context).items():
        domains = _domains(context, kind)
        for where, pairs in _prompts(context, kind).items():
            part = len(domains) if where in domains else PART
            unnamed = [(prompt, label) for prompt, _ in pairs]
            key, title = f"{UNASKED}{said}/{where}", f"{said} on {where}"
            asked.append(context.question(key, title, kind, unnamed, part))
            if "objects" in context.detectors and where in domains:
                key, title = f"{CONTENT}{said}/{where}", f"what is drawn, {where}"
                asked.append(context.question(key, title, "objects", pairs, part))
        named = [(f"{article(name)} with {article(label)}", label) for name in next(iter(domains.values()))]
        asked.append(context.question(f"{NAMED}{said}", f"{said}, asked for", kind, named, PART))
    if not asked:
        raise NotMeasured("no detector sees an implicit concept: give one as `detectors` NAME=FOLDER")
    return asked


def _unasked(context: EvalContext) -> dict[str, tuple[str, str]]:
    """By kind of detector the label that counts, and what rows call it.

    The label is what is erased, the kind itself, or the only one that there is. Where a detector of another kind counts
    the same, rows name the kind too.
    """
    found: dict[str, tuple[str, str]] = {}
    for kind, detector in context.detectors.items():
        if isinstance(detector, Detector) and kind not in ("objects", "styles"):
            wanted = (*map(context.target, context.concepts), kind, *detector.labels[: len(detector.labels) == 1])
            if label := next((word for word in wanted if word in detector.labels), None):
                again = any(label == other for other, _ in found.values())
                found[kind] = label, f"{label} by {kind}" if again else label
    return found


def _domains(context: EvalContext, kind: str) -> dict[str, list[str]]:
    """Names of objects by the kinds of things on which it is expected."""
    objects = context.words.get("objects", {})
    found = {
        domain: [name for name, said in objects.items() if said["group"] == domain]
        for domain in context.words.get(kind, {}).get("domains", ())
    }
    return {domain: names for domain, names in found.items() if names} or {"anything": list(context.labels("objects"))}


def _prompts(context: EvalContext, kind: str) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a prompt and its object, by domain and by style."""
    domains = _domains(context, kind)
    prompts = {domain: [(article(name), name) for name in names] for domain, names in domains.items()}
    everything = [name for names in domains.values() for name in names]
    for style in context.words.get("styles", ()):
        prompts[f"{style} style"] = [(context.styled(name, style), name) for name in everything]
    return prompts


def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
    things = [question for question in asked if question.key.startswith(UNASKED)]
    for kind in dict.fromkeys(question.detector for question in things):
        same = [question for question in things if question.detector == kind]
        (_, said), role = _unasked(c.context)[str(kind)], c.role(same[0])
        yield from c.pooled(f"{UNASKED}{said}", f"{said}, unasked", same, role)
        yield from _parts(str(kind), [shot for question in same for shot in question.shots], c, role)
    yield from _disagreements(things, c)
    content = [question for question in asked if question.key.startswith(CONTENT)]
    yield from c.pooled("content", "what the prompts name", content)
    if everything := list(dict.fromkeys(shot for question in things for shot in question.shots)):
        yield from c.changes("pictures", "pictures", everything)
    yield from c.count(asked)


def _parts(kind: str, shots: Sequence[Shot], c: Comparison, role: Role) -> Iterator[Measured]:
    """How many parts a detector of parts sees in a picture: all of them together, and each that it sees at all."""
    detector = c.context.detector(kind)
    if detector.parts is None:
        return
    base, now = c.both(lambda name: c.seen.parts(name, kind, shots))
    names = sorted({name for found in (*base, *now) for name in found})
    rows = {PARTS: ("all parts", names), **{f"{PARTS}/{name}": (name, [name]) for name in names}}
    for key, (row, some) in rows.items():
        sums: list[list[float]] = [[float(sum(found[name] for name in some)) for found in each] for each in (base, now)]
        note = f"{sum(sums[1]):.0f} in all of {c.variant.name}"
        yield c.average(key, row, "parts a picture", sums, role, detector.source, note)


def _disagreements(asked: Sequence[Question], c: Comparison) -> Iterator[Measured]:
    """In how many pictures one detector sees the thing and the next does not, for each two that were asked the same."""
    for k, first in enumerate(asked):
        for second in asked[k + 1 :]:
            if (first.shots, first.labels) == (second.shots, second.labels) and first.detector != second.detector:
                hits = zip(c.hits(first), c.hits(second), strict=True)
                pair = [[a != b for a, b in zip(*one, strict=True)] for one in hits]
                kinds = f"{first.detector} and {second.detector}"
                yield c.share(f"disagree/{second.key}", f"{kinds} disagree: {second.name}", pair, "other")


def unlabelled(name: str, about: str, rows: Mapping[str, Sequence[Shot]]) -> Suite:
    """A suite of prompts that want nothing in particular; rows holds all of them first, then categories.

    Counted by row is whether something appears that no prompt need name (Fig. 7); over all prompts, how well pictures
    fit theirs, and how far they move from the base's.
    """

    def ask(context: EvalContext) -> list[Question]:
        asked = [Question("pictures", "pictures", tuple(next(iter(rows.values()))), role="other")]
        for kind, (label, said) in _unasked(context).items():
            for row, shots in rows.items():
                labels = (label,) * len(shots)
                asked.append(Question(f"{said}/{row}", f"{said}, {row}", tuple(shots), kind, labels))
        return asked

    def score(asked: Asked, c: Comparison) -> Iterator[Measured | Answer]:
        whole, *rest = asked
        for question in rest:
            kind, role = str(question.detector), c.role(question)
            yield c.share(question.key, question.name, c.hits(question), role, c.context.detector(kind).source)
            if question.shots == whole.shots and question.key.endswith(
                f"/{next(iter(rows))}"
            ):  # categories repeat them
                yield from _parts(kind, question.shots, c, role)
                yield from c.answers(question, c.seen.labels(c.variant.name, kind, question.shots))
        yield from _disagreements(rest, c)
        texts = [shot.prompt for shot in whole.shots]
        yield from c.fits("fit", "fit to the prompt", whole.shots, texts)
        yield from c.changes("pictures", "pictures", whole.shots)

    return Suite(name, about, ask, score)


SUITE = Suite(
    "implicit", "Prompts that do not name the concept: the share of pictures in which it appears.", ask, score
)
