"""What to ask of a model before and after an edit, and what the answers come to.

A question is a set of prompts, each with the answer that a judge should give if the model still draws what the prompt
says. Asked on equal seeds before and after, the share of such answers should fall for the concept and stay elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, TypeVar

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from unsee.calls import Call, single, tensors
from unsee.concepts import Concept
from unsee.evaluate.detectors import Detector, Judge
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score, mean, rate
from unsee.recorder import conditions

T = TypeVar("T")
NEIGHBOURS = 5
STYLED = "{} in {} style"
EVERYTHING_ELSE = "everything else"


@dataclass(frozen=True)
class Question:
    """One row of a result.

    name    of the row
    gone    whether the edit means to bring it to zero
    shots   the pictures that it looks at
    judge   the kind of judge that answers; None if there is none
    labels  the answer that counts, for each shot
    reference  drawn by the base model only, for others to be compared with
    """

    name: str
    gone: bool
    shots: tuple[Shot, ...]
    judge: str | None = None
    labels: tuple[str, ...] = ()
    reference: bool = False


@dataclass(frozen=True)
class Row:
    """A question's answers.

    before, after  the share of pictures that show what was asked; None if there was no judge
    changed        how far pictures of one seed differ, mean absolute difference in grey levels, 0 to 255
    """

    question: Question
    before: Score | None
    after: Score | None
    changed: Score


def questions(
    pipe: Any, concepts: Sequence[Concept], judges: Mapping[str, Judge], *, n: int, seed: int, kept: Sequence[str]
) -> list[Question]:
    """The questions for an edit that erases `concepts`: each of them, what is most like it, and everything else.

    judges  by kind: "objects" knows words for things, "styles" words for ways to draw them; any other kind answers
            whether something is in a picture that no prompt need name
    n       pictures a question; "everything else" has one for each object, unless n is so small that 16 n are fewer
    seed    of a question's first picture; the next ones count up
    kept    words that the method was shown as ones to leave alone: objects among them are asked about apart from others
    """
    objects = judges["objects"].labels if "objects" in judges else ()
    styles = judges["styles"].labels if "styles" in judges else ()
    erased = {name for concept in concepts for name in (concept.from_ or concept.erase, *concept.synonyms)}
    rest = [label for label in objects if label not in erased]
    near = {
        c: nearest(pipe, c.from_ or c.erase, rest)[:NEIGHBOURS] for c in concepts if (c.from_ or c.erase) in objects
    }
    close = {label for labels in near.values() for label in labels}
    named = [label for label in rest if label not in close and set(label.split()) & set(kept)]
    other = [label for label in rest if label not in close and label not in named]
    few = spread(rest, n)

    asked: list[Question] = []

    def ask(name: str, pairs: Sequence[tuple[str, str]], judge: str | None, gone: bool = False, count: int = n) -> None:
        """Add a question of `count` pictures that go through pairs of a prompt and the label that should answer it."""
        if pairs:
            shots = [(Shot(prompt, seed + k), label) for k, (prompt, label) in enumerate(islice(cycle(pairs), count))]
            asked.append(
                Question(name, gone, tuple(shot for shot, _ in shots), judge, tuple(label for _, label in shots))
            )

    for concept in concepts:
        word, gone = concept.from_ or concept.erase, concept.from_ is None
        title = word if gone else f"{word} without {concept.erase}"
        kind = next((kind for kind, judge in judges.items() if word in judge.labels), None)
        if kind in ("objects", None):
            names = concept.names if gone else (word,)
            ask(title, [(way.format(name), word) for name in names for way in ("{}", "a {}")], kind, gone)
        if kind == "objects":
            ask(f"{title}, in every style", [(STYLED.format(word, style), word) for style in styles], kind, gone)
            ask(f"its neighbours: {', '.join(near[concept])}", [(f"a {label}", label) for label in near[concept]], kind)
        elif kind == "styles":
            ask(f"{title} style", [(STYLED.format(label, word), word) for label in few], kind, gone)
            ask(f"what is drawn in {title} style", [(STYLED.format(label, word), label) for label in few], "objects")
        elif kind is not None:
            ask(f"{title}, unasked", [(f"a {label}", word) for label in few], kind, gone)
            ask(f"{title}, asked for", [(f"a {label} with a {word}", word) for label in few], kind, gone)
    ask("shown to the method as ones to keep", [(f"a {label}", label) for label in named], "objects")
    some = spread(other, 16 * n)
    ask(EVERYTHING_ELSE, [(f"a {label}", label) for label in some], "objects", count=max(n, len(some)))
    stay = [style for style in styles if style not in erased]
    pairs = list(zip(islice(cycle(other), n if stay else 0), cycle(stay), strict=False))
    title = "styles" if len(stay) == len(styles) else "other styles"
    ask(title, [(STYLED.format(*pair), pair[1]) for pair in pairs], "styles")
    if not objects:
        ask("what must stay", [(prompt, "") for prompt in kept], None)
    return asked


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

    changed = [float(np.abs(_grey(after[shot]) - _grey(before[shot])).mean()) for shot in question.shots]
    return Row(question, share(before), share(after), mean(changed))


def _grey(picture: Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(picture.convert("L"), np.float32)


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, evenly spaced over all."""
    count = min(count, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def nearest(pipe: Any, word: str, labels: Sequence[str]) -> list[str]:
    """Labels by how alike the text encoder finds them to a word, most alike first: cosine of the conditioning."""
    call = conditions(pipe, [word, *labels], answered=False)
    vectors = torch.nn.functional.normalize(_conditioning(call), dim=1)
    order = (vectors[1:] @ vectors[0]).argsort(descending=True).tolist()
    return [labels[k] for k in order]


def _conditioning(call: Call) -> Tensor:
    """The text that a call is conditioned on, as one vector a row: its widest argument of tokens by channels."""

    def text(row: Call) -> Tensor:
        texts = [x for x in tensors(row.arguments) if x.is_floating_point() and x.ndim in (2, 3)]
        return max((x for x in texts if x.numel() > x.shape[-1]), key=lambda x: x.shape[-1]).float()

    texts = [text(row) for row in single(call)]
    alike = len({text.shape for text in texts}) == 1  # else a text is as long as its prompt
    return torch.stack([text.flatten() if alike else text.flatten(0, -2).mean(0) for text in texts])
