"""What to ask of a model before and after an edit, and what the answers come to.

A question is a set of prompts, each with the answer that a judge should give if the model still draws what the prompt
says. Asked on equal seeds before and after, the share of such answers should fall for the concept and stay elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from unsee.concepts import Concept
from unsee.denoising.calls import Call
from unsee.denoising.record import conditions
from unsee.denoising.rows import single, tensors
from unsee.evaluate.detectors import Detector, Judge, names_of
from unsee.evaluate.distance import grey_levels
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score, mean, rate
from unsee.evaluate.words import IMAGENETTE, article, known
from unsee.spelling import IRREGULAR, UNCOUNTED, plain, plural, plurals, same, stands_for
from unsee.spelling import nearest as like

T = TypeVar("T")
NEIGHBOURS = 5
STYLED = "{} in {} style"
EVERYTHING_ELSE = "everything else"
MIXED = "{!r} is a thing in a style: its words are erased wherever they are, so the style goes from other things too"
STYLE_FROM = "pictures of {!r} show {!r} only where the prompt names it, so --from erases little here"
MANY = 8
"""More concepts than these are counted together: a row for each kind of judge, not several for each concept."""
PLURAL = "a plural that is not named may stay: --synonym {!r} erases it too"
ONLY = "only {} is erased: --synonym adds other names, such as a plural or another spelling"
NAMED = ", but only the name {!r} is erased: --synonym {!r} erases that name with it"


@dataclass(frozen=True)
class Question:
    """One row of a result.

    name    of the row
    gone    whether the edit means to bring it to zero
    shots   the pictures that it looks at
    judge   the kind of judge that answers; None if there is none
    labels  the answer that counts, for each shot
    reference  drawn by the base model only, for others to be compared with
    note    what a reader should know of this row: why nothing is counted, or what stands for what
    """

    name: str
    gone: bool
    shots: tuple[Shot, ...]
    judge: str | None = None
    labels: tuple[str, ...] = ()
    reference: bool = False
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A question's answers.

    before, after  the share of pictures that show what was asked; None if there was no judge
    changed        how far pictures of one seed differ, see distance.grey_levels
    """

    question: Question
    before: Score | None
    after: Score | None
    changed: Score


def questions(
    pipe: Any,
    concepts: Sequence[Concept],
    judges: Mapping[str, Judge],
    *,
    n: int,
    seed: int,
    kept: Sequence[str],
    words: Mapping[str, Any] | None = None,
) -> list[Question]:
    """The questions for an edit that erases `concepts`: each of them, what is most like it, and everything else.

    judges  by kind: "objects" knows words for things, "styles" words for ways to draw them; any other kind answers
            whether something is in a picture that no prompt need name
    n       pictures a question; "everything else" has one for each object, unless n is so small that 16 n are fewer
    seed    of a question's first picture; the next ones count up
    kept    words that the method was shown as ones to leave alone: objects among them are asked about apart from others
    words   what the model's card says that it knows: other names of the labels; see words.py
    """
    objects = judges["objects"].labels if "objects" in judges else ()
    styles = judges["styles"].labels if "styles" in judges else ()
    names = known(words or {}, names_of(judges))
    erased = {stands_for(name, names) for c in concepts for name in ([c.from_] if c.from_ else c.names)}
    rest = [label for label in objects if label not in erased]
    together = [concept for concept in concepts if not concept.from_] if len(concepts) > MANY else []
    near = {
        label: nearest(pipe, [label], rest)[:NEIGHBOURS]
        for c in concepts
        if c not in together and (label := stands_for(c.from_ or c.erase, names)) in objects and label
    }
    if any_of := [label for c in together if (label := stands_for(c.erase, names)) in objects and label]:
        near["all"] = nearest(pipe, any_of, rest)[:NEIGHBOURS]
    close = {label for labels in near.values() for label in labels}
    named = [label for label in rest if label not in close and set(label.split()) & set(kept)]
    other = [label for label in rest if label not in close and label not in named]
    few = spread(rest or [name for name in (words or {}).get("objects", IMAGENETTE) if name not in erased], n)

    asked: list[Question] = []

    def ask(
        name: str,
        pairs: Sequence[tuple[str, str]],
        judge: str | None,
        gone: bool = False,
        note: str = "",
        count: int = n,
    ) -> None:
        """Add a question of `count` pictures that go through pairs of a prompt and the label that should answer it."""
        if pairs:
            shots = [(Shot(prompt, seed + k), label) for k, (prompt, label) in enumerate(islice(cycle(pairs), count))]
            labels = tuple(label for _, label in shots)
            asked.append(Question(name, gone, tuple(shot for shot, _ in shots), judge, labels, note=note))

    for title, pairs, kind, gone, note in pooled(together, names, judges, few):
        ask(title, pairs, kind, gone, note, max(n, len(pairs)))
    if "all" in near:
        ask(f"their neighbours: {', '.join(near['all'])}", [(article(name), name) for name in near["all"]], "objects")
    for concept in concepts:
        if concept in together:
            continue
        word, gone = concept.from_ or concept.erase, concept.from_ is None
        label, kind = judged(word, names, judges)
        title = f"{word.removesuffix(' style')} style" if kind == "styles" else word
        title += "" if gone else f" without {concept.erase}"
        mixture = list(mixed(word, names, judges, few)) if kind is None else []
        for row in mixture if gone else taken(concept, names, judges, few):
            ask(*row)
        if kind == "objects" or not (kind or mixture):
            own = concept.names if gone else (word,)
            pairs = [(way, judged(name, names, judges)[0]) for name in own for way in _ways(name)]
            ask(title, pairs, kind, gone, "" if kind else uncounted(word, names, judges))
        if kind == "objects":
            if gone and not any(plain(name) == plain(label) for name in concept.names):
                ask(f"{title}, asked for as {label}", [(way, label) for way in _ways(label)], kind, gone)
            ask(f"{title}, in every style", [(STYLED.format(word, style), label) for style in styles], kind, gone)
            ask(f"its neighbours: {', '.join(near[label])}", [(article(name), name) for name in near[label]], kind)
        elif kind == "styles":
            ask(title, [(STYLED.format(name, label), label) for name in few], kind, gone)
            if objects:
                ask(f"what is drawn in {title}", [(STYLED.format(name, label), name) for name in few], "objects")
        elif kind is not None:
            ask(f"{title}, unasked", [(article(name), label) for name in few], kind, gone)
            ask(f"{title}, asked for", [(f"{article(name)} with {article(word)}", label) for name in few], kind, gone)
    ask("shown to the method as ones to keep", [(article(label), label) for label in named], "objects")
    some = spread(other, 16 * n)
    ask(EVERYTHING_ELSE, [(article(label), label) for label in some], "objects", count=max(n, len(some)))
    stay = [style for style in styles if style not in erased]
    pairs = list(zip(islice(cycle(other or few), n if stay else 0), cycle(stay), strict=False))
    title = "styles" if len(stay) == len(styles) else "other styles"
    ask(title, [(STYLED.format(*pair), pair[1]) for pair in pairs], "styles")
    if not objects:
        ask("what must stay", [(prompt, "") for prompt in kept], None)
    return asked


def judged(word: str, names: Mapping[str, str], judges: Mapping[str, Judge]) -> tuple[str, str | None]:
    """The label that stands for a word, and the kind of judge that has it; the word and None if none has.

    names  what each name stands for, see words.known
    """
    label = stands_for(word, names) or word
    kind = next((kind for kind, judge in judges.items() if label in judge.labels), None)
    return label, kind


def uncounted(word: str, names: Mapping[str, str], judges: Mapping[str, Judge]) -> str:
    """Why no judge counts what a word names; "" if there are none at all, of which a result says so once."""
    if not any(judge.labels for judge in judges.values()):
        return ""
    if label := stands_for(word, names):
        return f"not measured: no detector has a word for {label!r}; suites of unsee evaluate may measure it"
    near = like(word, names)
    return f"not measured: no detector has a word for {word!r}" + (f"; the nearest is {near!r}" if near else "")


def remarks(
    concepts: Sequence[Concept], judges: Mapping[str, Judge], words: Mapping[str, Any] | None = None
) -> list[str]:
    """What a user should know of the concepts' names before they are erased: what is counted for them, what is not."""
    names, found = known(words or {}, names_of(judges)), []
    if len(concepts) > MANY:
        rows = pooled([concept for concept in concepts if not concept.from_], names, judges, ["thing"])
        return [f"{title}: {note}" if note else title for title, *_, note in rows]
    for concept in concepts:
        for word in (concept.from_,) if concept.from_ else concept.names:
            label, kind = judged(word, names, judges)
            if any(mixed(word, names, judges, ())):
                found.append("" if concept.from_ else MIXED.format(word))
            elif kind is None:
                found.append(uncounted(word, names, judges))
            elif kind and plain(label) != plain(word):
                given = concept.from_ or any(plain(label) == plain(name) for name in concept.names)
                found.append(f"{word!r} is counted as {label!r}" + ("" if given else NAMED.format(word, label)))
        if many := _plurals(concept, names, judges):
            found.append(PLURAL.format(", ".join(many)))
        elif not concept.from_ and not any(judge.labels for judge in judges.values()):
            found.append(ONLY.format(" and ".join(map(repr, concept.names))))
        if concept.from_ and "styles" in {judged(name, names, judges)[1] for name in (concept.erase, concept.from_)}:
            found.append(STYLE_FROM.format(concept.from_, concept.erase))
    return [remark for remark in found if remark]


def _plurals(concept: Concept, names: Mapping[str, str], judges: Mapping[str, Judge]) -> list[str]:
    """The plurals of a thing that is erased under its singular only; of what is no thing, none."""
    given = [plain(name) for name in concept.names]
    things = [name for name in concept.names if judged(name, names, judges)[1] == "objects"]
    single = [name for name in map(plain, things) if article(name) != name and not plurals(name) & {*given}]
    single = [name for name in single if name.split()[-1] not in UNCOUNTED | {*IRREGULAR.values()}]
    return [] if concept.from_ else list(map(plural, single))


Rows = Iterator[tuple[str, list[tuple[str, str]], str | None, bool, str]]
"""Name, pairs of a prompt and its label, kind of judge, whether it is meant to go, and a note."""


def taken(concept: Concept, names: Mapping[str, str], judges: Mapping[str, Judge], some: Sequence[str]) -> Rows:
    """Whether a concept is gone from `from_`, and whether it stays elsewhere.

    some  labels of objects on which it is looked for elsewhere
    """
    c, b = (name.removesuffix(" style") for name in (concept.erase, str(concept.from_)))
    if parts := re.fullmatch(STYLED.replace("{}", "(.+)"), str(concept.from_)):  # "church in neon style" holds it
        b = next((part for part in parts.groups() if not same(part, c)), b)
    (label, kind), (_, place) = judged(c, names, judges), judged(b, names, judges)
    if kind == "styles":
        yield f"{c} style on {b}", [(STYLED.format(b, c), label)], kind, True, ""
        yield f"{c} style elsewhere", [(STYLED.format(name, c), label) for name in some], kind, False, ""
    elif place == "styles":
        note = "" if kind else uncounted(c, names, judges)
        yield f"{c} in {b} style", [(STYLED.format(c, b), label)], kind, True, note
        yield f"{c} elsewhere", [(way, label) for way in _ways(c)], kind, False, note
    elif kind not in ("objects", None):
        yield f"{c} on {b}", [(article(b), label), (f"{article(b)} with {article(c)}", label)], kind, True, ""
        yield f"{c} elsewhere", [(f"{article(name)} with {article(c)}", label) for name in some], kind, False, ""
    else:
        note = f"no detector sees whether {c!r} is part of {b!r}: compare the pictures and their change"
        yield f"{c} on {b}", [(f"{article(b)} with {article(c)}", label)], None, True, note
        if kind:
            yield f"{c} elsewhere", [(way, label) for way in _ways(c)], kind, False, ""


def pooled(
    concepts: Sequence[Concept], names: Mapping[str, str], judges: Mapping[str, Judge], some: Sequence[str]
) -> Rows:
    """Rows for many concepts: of each kind of judge those that it knows, each asked for once."""
    kinds: dict[str | None, list[tuple[str, str]]] = {}
    for concept, thing in zip(concepts, cycle(some), strict=False):
        label, kind = judged(concept.erase, names, judges)
        way = {"styles": STYLED.format(thing, label), "objects": _ways(concept.erase)[-1], None: concept.erase}
        kinds.setdefault(kind, []).append((way.get(kind, f"{article(thing)} with {article(label)}"), label))
    for kind, pairs in kinds.items():
        if kind:
            yield f"{len(pairs)} erased {kind}, together", pairs, kind, True, ""
        else:
            first = "; ".join(word for word, _ in pairs[:3])
            counted = any(judge.labels for judge in judges.values())
            note = f"not measured: no detector has a word for {first} ..." if counted else ""
            yield f"{len(pairs)} erased names, together", pairs, None, True, note


def mixed(word: str, names: Mapping[str, str], judges: Mapping[str, Judge], some: Sequence[str]) -> Rows:
    """Rows for a thing in a style, "church in neon style", of which detectors know both; none for any other word."""
    parts = re.fullmatch(STYLED.replace("{}", "(.+)"), word)
    thing, style = (judged(part, names, judges) for part in parts.groups()) if parts else (("", None), ("", None))
    if (thing[1], style[1]) != ("objects", "styles"):
        return
    for label, kind in (thing, style):
        yield f"{word}, seen as {label}", [(word, label)], kind, True, "it is gone if the thing or the style is"
    elsewhere = [(STYLED.format(name, style[0]), style[0]) for name in some]
    yield f"{style[0]} style elsewhere", elsewhere, "styles", False, ""
    yield f"{thing[0]} in no style", [(way, thing[0]) for way in _ways(thing[0])], "objects", False, ""


def _ways(name: str) -> tuple[str, ...]:
    """How a thing is asked for: by its name, and with an article if it takes one."""
    return tuple(dict.fromkeys([name, article(name)]))


def answer(
    question: Question, before: Mapping[Shot, Image], after: Mapping[Shot, Image], judges: Mapping[str, Judge]
) -> Row:
    """Count a question's answers in the pictures of both models."""

    def share(pictures: Mapping[Shot, Image]) -> Score | None:
        if question.judge is None:
            return None
        judge = judges[question.judge]
        assert isinstance(judge, Detector)  # questions() names only judges with labels
        found = judge([pictures[shot] for shot in question.shots])
        return rate([label == wanted for label, wanted in zip(found, question.labels, strict=True)])

    changed = [grey_levels(before[shot], after[shot]) for shot in question.shots]
    return Row(question, share(before), share(after), mean(changed))


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spaced over all."""
    count = min(count, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def nearest(pipe: Any, words: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Labels by how alike the text encoder finds them to any of some words: cosine of the conditioning, most first."""
    call = conditions(pipe, [*words, *labels], answered=False)
    vectors = torch.nn.functional.normalize(_conditioning(call), dim=1)
    order = (vectors[len(words) :] @ vectors[: len(words)].T).amax(1).argsort(descending=True).tolist()
    return [labels[k] for k in order]


def _conditioning(call: Call) -> Tensor:
    """The text that a call is conditioned on, as one vector a row: its widest argument of tokens by channels."""

    def text(row: Call) -> Tensor:
        texts = [x for x in tensors(row.arguments) if x.is_floating_point() and x.ndim in (2, 3)]
        return max((x for x in texts if x.numel() > x.shape[-1]), key=lambda x: x.shape[-1]).float()

    texts = [text(row) for row in single(call)]
    alike = len({text.shape for text in texts}) == 1  # else a text is as long as its prompt
    return torch.stack([text.flatten() if alike else text.flatten(0, -2).mean(0) for text in texts])
