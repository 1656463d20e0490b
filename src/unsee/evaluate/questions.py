"""What to ask of a model before and after an edit, and what the answers come to.

A question is a set of prompts, each with the answer that a judge should give if the model still draws what the prompt
says. Asked on equal seeds before and after, the share of such answers should fall for the concept and stay for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from unsee.concepts import Concept
from unsee.evaluate.detectors import Detector
from unsee.evaluate.render import Shot
from unsee.evaluate.statistics import Score, mean, rate
from unsee.recorder import Call, conditions

NEIGHBOURS = 5
STYLED = "{} in {} style"


@dataclass(frozen=True)
class Question:
    """One row of a result.

    name    of the row
    gone    whether the edit means to bring it to zero
    shots   the pictures that it looks at
    judge   the kind of judge that answers; None if there is none
    labels  the answer that counts, for each shot
    """

    name: str
    gone: bool
    shots: tuple[Shot, ...]
    judge: str | None = None
    labels: tuple[str, ...] = ()


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
    pipe: Any, concepts: Sequence[Concept], judges: Mapping[str, Detector], *, n: int, seed: int, kept: Sequence[str]
) -> list[Question]:
    """The questions for an edit that erases `concepts`: each of them, its neighbours, and everything else.

    judges  by kind: "objects" and "styles" know the words for things and for ways to draw them; any other kind answers
            whether something is in a picture that no prompt need name
    n       pictures a question
    seed    of its first picture; the next ones count up
    kept    prompts that were named to be kept: objects among them are asked about apart from those that were not
    """
    objects = list(judges["objects"].labels) if "objects" in judges else []
    styles = list(judges["styles"].labels) if "styles" in judges else []
    erased = {name for concept in concepts for name in concept.names}
    named = [label for label in objects if any(label in prompt.split(" a ")[-1].removeprefix("a ") for prompt in kept)]
    rest = [label for label in objects if label not in erased]
    asked: list[Question] = []

    def ask(name: str, prompts: Sequence[str], judge: str | None = None, labels: Sequence[str] = (), gone: bool = False,
            count: int = n) -> None:
        if prompts:
            shots = tuple(Shot(prompt, seed + k) for k, prompt in enumerate(islice(cycle(prompts), count)))
            asked.append(Question(name, gone, shots, judge, tuple(islice(cycle(labels), count))))

    near: list[str] = []
    for concept in concepts:
        word = concept.from_ or concept.erase
        plain = [way.format(name) for name in ([word] if concept.from_ else concept.names) for way in ("{}", "a {}")]
        title = f"{word} without {concept.erase}" if concept.from_ else word
        gone = concept.from_ is None
        if word in objects:
            ask(title, plain, "objects", [word], gone)
            ask(f"{title}, in every style", [STYLED.format(word, s) for s in styles], "objects", [word], gone)
            nearest = _nearest(pipe, word, rest)[:NEIGHBOURS]
            ask(f"its neighbours: {', '.join(nearest)}", [f"a {label}" for label in nearest], "objects", nearest)
            near += nearest
        elif word in styles:
            some = _spread(rest, n)
            ask(f"{title} style", [STYLED.format(label, word) for label in some], "styles", [word], gone)
            ask(f"what is drawn in {title} style", [STYLED.format(label, word) for label in some], "objects", some)
        else:
            kind = next((kind for kind, judge in judges.items() if word in judge.labels), None)
            if kind:
                some = _spread(rest, n)
                ask(f"{title}, unasked", [f"a {label}" for label in some], kind, [word], gone)
                ask(f"{title}, asked for", [f"a {label} with a {word}" for label in some], kind, [word], gone)
            else:
                ask(title, plain, gone=gone)
    other = [label for label in rest if label not in near and label not in named]
    kept_labels = [label for label in rest if label in named and label not in near]
    others_count = max(n, min(len(other), 2 * n))
    ask("named to be kept", [f"a {label}" for label in kept_labels], "objects", kept_labels)
    ask("everything else", [f"a {label}" for label in _spread(other, others_count)], "objects",
        _spread(other, others_count), count=others_count)
    pairs = [(label, style) for style in styles if style not in erased for label in _spread(other, max(1, n // len(styles)))]
    ask("styles", [STYLED.format(*pair) for pair in pairs], "styles", [style for _, style in pairs])
    if not objects:
        ask("what must stay", list(kept))
    return asked


def answer(
    question: Question, before: Mapping[Shot, Image], after: Mapping[Shot, Image], judges: Mapping[str, Detector]
) -> Row:
    """Count a question's answers in the pictures of both models."""

    def share(pictures: Mapping[Shot, Image]) -> Score | None:
        if question.judge is None:
            return None
        found = judges[question.judge]([pictures[shot] for shot in question.shots])
        return rate([label == wanted for label, wanted in zip(found, question.labels, strict=True)])

    changed = [float(np.abs(_grey(after[shot]) - _grey(before[shot])).mean()) for shot in question.shots]
    return Row(question, share(before), share(after), mean(changed))


def _grey(picture: Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(picture.convert("L"), np.float32)


def _spread(labels: Sequence[str], count: int) -> list[str]:
    """At most `count` labels, evenly spaced over all."""
    return [labels[k * len(labels) // min(count, len(labels))] for k in range(min(count, len(labels)))]


def _nearest(pipe: Any, word: str, labels: Sequence[str]) -> list[str]:
    """Labels by how alike the text encoder finds them to a word, most alike first: cosine of the conditioning."""
    call = conditions(pipe, [word, *labels])
    vectors = torch.nn.functional.normalize(_conditioning(call), dim=1)
    order = (vectors[1:] @ vectors[0]).argsort(descending=True).tolist()
    return [labels[k] for k in order]


def _conditioning(call: Call) -> Tensor:
    """The text that a call is conditioned on, as one vector a row: its widest argument of tokens by channels."""
    rows = call.output.shape[0]
    texts = [v for v in call.arguments.values() if isinstance(v, Tensor) and v.ndim == 3 and v.shape[0] == rows]
    return max(texts, key=lambda text: text.shape[-1]).float().flatten(1)
