"""Fig. 7 of Gandikota et al. (2023): what appears although no prompt names it, counted by picture."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.evaluate.questions import STYLED, Question
from unsee.evaluate.suites import (
    Answer,
    Asked,
    Column,
    Look,
    Measured,
    NotMeasured,
    Suite,
    World,
    article,
    count,
    pooled,
)

NAME = "implicit"
NAMED = "{}, asked for"
BESIDE = "what is drawn, "


def ask(world: World) -> list[Question]:
    """By domain and by style the thing that no prompt names; the thing when named; and what the prompts do name."""
    asked: list[Question] = []
    for kind in world.judges:
        if kind in ("objects", "styles", "clip"):
            continue
        label = next((t for t in map(world.target, world.concepts) if t in world.labels(kind)), kind)
        if label not in world.labels(kind):
            continue
        for where, pairs in _prompts(world, kind).items():
            asked.append(world.question(f"{label} on {where}", kind, [(prompt, label) for prompt, _ in pairs]))
            if "objects" in world.judges and where in _domains(world, kind):
                asked.append(world.question(f"{BESIDE}{where}", "objects", pairs))
        things = next(iter(_domains(world, kind).values()))
        named = [(f"{article(name)} with {article(label)}", label) for name in things]
        asked.append(world.question(NAMED.format(label), kind, named))
    if not asked:
        raise NotMeasured(
            "no judge answers whether something is in a picture that no prompt names: --judge NAME=FOLDER"
        )
    return asked


def _domains(world: World, kind: str) -> dict[str, list[str]]:
    """Names of objects by the kinds of things on which it is expected."""
    objects = world.words.get("objects", {})
    found = {
        domain: [name for name, said in objects.items() if said["group"] == domain]
        for domain in world.words.get(kind, {}).get("domains", ())
    }
    return found or {"anything": list(world.labels("objects"))}


def _prompts(world: World, kind: str) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a prompt and its object, by domain and by style."""
    domains = _domains(world, kind)
    prompts = {domain: [(article(name), name) for name in names] for domain, names in domains.items()}
    everything = [name for names in domains.values() for name in names]
    for style in world.words.get("styles", ()):
        prompts[f"{style} style"] = [(STYLED.format(article(name), style), name) for name in everything]
    return prompts


def score(world: World, asked: Asked, column: Column, look: Look) -> Iterator[Measured | Answer]:
    things = [q for q in asked if q.judge != "objects" and not q.name.endswith(NAMED.format(""))]
    for kind in dict.fromkeys(question.judge for question in things):
        same = [question for question in things if question.judge == kind]
        gone = {world.target(concept) for concept in column.concepts} >= set(same[0].labels)
        yield from pooled(NAME, f"{same[0].labels[0]}, unasked", world, same, column, look, gone=gone)
    beside = [question for question in asked if question.name.startswith(BESIDE)]
    yield from pooled(NAME, "what the prompts name", world, beside, column, look)
    yield from count(NAME, world, asked, column, look)


SUITE = Suite(NAME, "Prompts that never name it: the share of pictures in which it appears all the same.", ask, score)
