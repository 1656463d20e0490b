"""Fig. 7 of Gandikota et al. (2023): what appears although no prompt names it, counted by picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from unsee.evaluate.detectors import Detector
from unsee.evaluate.questions import Question
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import (
    BASE,
    Answer,
    Asked,
    Column,
    Look,
    Measured,
    NotMeasured,
    Suite,
    World,
    article,
    average,
    count,
    erased,
    fits,
    hits,
    moved,
    pooled,
    share,
)

PARTS = "all parts"
NAME = "implicit"
NAMED = "{}, asked for"
BESIDE = "what is drawn, "
ALL = "pictures"
PART = 8  # of a row's pictures, for each style


def ask(world: World) -> list[Question]:
    """By domain, n pictures over all, and by style the thing that no prompt names; the thing when named; and what the
    prompts do name.
    """
    asked: list[Question] = []
    for kind, label in _unasked(world).items():
        for where, pairs in _prompts(world, kind).items():
            part = len(_domains(world, kind)) if where in _domains(world, kind) else PART
            asked.append(world.question(f"{label} on {where}", kind, [(prompt, label) for prompt, _ in pairs], part))
            if "objects" in world.judges and where in _domains(world, kind):
                asked.append(world.question(f"{BESIDE}{where}", "objects", pairs, part))
        things = next(iter(_domains(world, kind).values()))
        named = [(f"{article(name)} with {article(label)}", label) for name in things]
        asked.append(world.question(NAMED.format(label), kind, named, PART))
    if not asked:
        raise NotMeasured(
            "no judge answers whether something is in a picture that no prompt names: --judge NAME=FOLDER"
        )
    return asked


def _unasked(world: World) -> dict[str, str]:
    """The label that counts, by kind of judge: what is erased, the kind itself, or the only one that there is."""
    found = {}
    for kind, judge in world.judges.items():
        if isinstance(judge, Detector) and kind not in ("objects", "styles"):
            wanted = (*map(world.target, world.concepts), kind, *judge.labels[: len(judge.labels) == 1])
            if label := next((word for word in wanted if word in judge.labels), None):
                found[kind] = label
    return found


def _domains(world: World, kind: str) -> dict[str, list[str]]:
    """Names of objects by the kinds of things on which it is expected."""
    objects = world.words.get("objects", {})
    found = {
        domain: [name for name, said in objects.items() if said["group"] == domain]
        for domain in world.words.get(kind, {}).get("domains", ())
    }
    return {domain: names for domain, names in found.items() if names} or {"anything": list(world.labels("objects"))}


def _prompts(world: World, kind: str) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a prompt and its object, by domain and by style."""
    domains = _domains(world, kind)
    prompts = {domain: [(article(name), name) for name in names] for domain, names in domains.items()}
    everything = [name for names in domains.values() for name in names]
    for style in world.words.get("styles", ()):
        prompts[f"{style} style"] = [(world.styled(name, style), name) for name in everything]
    return prompts


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    things = [q for q in asked if q.judge != "objects" and not q.name.endswith(NAMED.format(""))]
    for kind in dict.fromkeys(question.judge for question in things):
        same = [question for question in things if question.judge == kind]
        gone = {world.target(concept) for concept in column.concepts} >= set(same[0].labels)
        yield from pooled(NAME, f"{same[0].labels[0]}, unasked", world, same, column, look, gone=gone)
        yield from _parts(NAME, str(kind), [shot for question in same for shot in question.shots], column, look, gone)
    beside = [question for question in asked if question.name.startswith(BESIDE)]
    yield from pooled(NAME, "what the prompts name", world, beside, column, look)
    if everything := list(dict.fromkeys(shot for question in things for shot in question.shots)):
        yield from moved(NAME, "pictures", column, look, everything)
    yield from count(NAME, world, asked, column, look)


def _parts(suite: str, kind: str, shots: Sequence[Shot], column: Column, look: Look, gone: bool) -> Iterator[Measured]:
    """How many parts a judge of parts sees in a picture: all of them together, and each that it sees at all."""
    judge = look.world.judge(kind)
    if judge.parts is None:
        return
    base, now = (look.parts(name, kind, shots) for name in (BASE, column.name))
    names = sorted({name for found in (*base, *now) for name in found})
    for row, some in {PARTS: names, **{name: [name] for name in names}}.items():
        sums: list[list[float]] = [[float(sum(found[name] for name in some)) for found in c] for c in (base, now)]
        note = f"{sum(sums[1]):.0f} in all of {column.name}"
        yield average(suite, row, column, "parts a picture", *sums, gone=gone, judge=judge.source, note=note)


def unlabelled(name: str, about: str, rows: Mapping[str, Sequence[Shot]]) -> Suite:
    """A suite of prompts that want nothing in particular; rows holds all of them first, then categories.

    Counted by row is whether something appears that no prompt need name (Fig. 7); over all prompts, how well pictures
    fit theirs, and how far they move from the base's.
    """

    def ask(world: World) -> list[Question]:
        kinds = _unasked(world)
        everything = tuple(next(iter(rows.values())))
        asked = [Question(ALL, False, everything)]
        for kind, label in kinds.items():
            asked += [Question(row, False, tuple(shots), kind, (label,) * len(shots)) for row, shots in rows.items()]
        return asked

    def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
        whole, *rest = asked
        for question in rest:
            gone = set(question.labels) <= erased(world, column)
            row = f"{question.labels[0]}, {question.name}"
            base, now = (hits(look, c, question) for c in (BASE, column.name))
            source = world.judge(str(question.judge)).source
            yield share(name, row, column, base, now, gone=gone, judge=source)
            if question.name == next(iter(rows)):  # a category may hold the same ones
                yield from _parts(name, str(question.judge), question.shots, column, look, gone)
                found = look.labels(column.name, str(question.judge), question.shots)
                for shot, wanted, seen in zip(question.shots, question.labels, found, strict=True):
                    yield Answer(name, row, column.name, shot.prompt, shot.seed, wanted, seen)
        texts = [shot.prompt for shot in whole.shots]
        yield from fits(name, "fit to the prompt", column, look, whole.shots, texts)
        yield from moved(name, "pictures", column, look, whole.shots)

    return Suite(name, about, ask, score)


SUITE = Suite(NAME, "Prompts that never name it: the share of pictures in which it appears all the same.", ask, score)
