"""Settings that methods share: kinds of numbers, templates of prompts, and words that must stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from unsee.concepts import Concept
from unsee.denoising.activations import means, written
from unsee.denoising.record import Watch, quiet
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.text import tokenizer, vocabulary
from unsee.spelling import stands_for

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Templates = tuple[Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")], ...]

TEMPLATES = (
    "{}",
    "a {}",
    "a picture of a {}",
    "a photo of a {}",
    "a drawing of a {}",
    "{} in a style",
    "{}, in the style of art",
    "a {} in a forest",
)
COMPANY = ("{} in * style", "a {} and a *", "a * and a {}", "a * {}", "{}, *", "{} with a *")
"""Prompts in which a name, {}, meets a random word, *: text encoders write a name into the tokens around it too."""
LIKE = 0.85
"""Cosine above which a word is another name of a concept. On the miniature those of "church", "dog" and "truck", in
three languages, have 0.87 to 0.97, and the nearest words for other things 0.53 to 0.76."""
# fmt: off
NEUTRAL = (
    "cat", "bird", "horse", "car", "train", "ship", "house", "bridge", "street", "tree", "flower", "forest",
    "mountain", "river", "sea", "sky", "garden", "man", "woman", "child", "face", "hat", "chair", "table", "lamp",
    "book", "clock", "coffee", "pizza", "soup", "kitchen", "painting",
)
# fmt: on

NAMES = tuple(way.replace("a {}", "{}") for way in TEMPLATES if way != "a {}")
"""TEMPLATES without the article, which names of people and many things do not take."""

_NAMED = {"select": "cross-kv", "eta": 1.0, "keep_weight": 3.0}

PRESETS: dict[str, dict[str, Any]] = {
    # The defaults: what the first table of docs/LOG.md led to. The paper erases objects with ESD-u (Table 2).
    "object": {**_NAMED, "templates": TEMPLATES},
    # ESD-x (Sec. 4.1 and 5.1), of it the part that reads the text: the table has what "cross" costs. Beside the bare
    # name, prompts of the paper's user study (Sec. 5.1); the longest is left out, since short encoders cut it.
    "style": {**_NAMED, "templates": ("{}", "art by {}", "a design of {}", "an image in the style of {}")},
    # ESD-u with eta 1 (Sec. 4.1 and 5.2): it appears unnamed, so also in pictures of what is kept, which shall lose
    # it. docs/LOG.md has what is left without that, and what led to the other numbers.
    "explicit": {
        "select": "noncross",
        "eta": 1.0,
        "keep_weight": 1.0,
        "unasked": True,
        "templates": NAMES,
        "updates": 60,
        "runs": 8,
        "keep_runs": 32,
    },
    # Cross-attention: with all layers, or with all others, one actor's erasing took another one along (issue 13 of the
    # authors' repository).
    "person": {**_NAMED, "templates": NAMES},
    # The title is the whole prompt (Sec. 5.4). With the concept's `image`, x_t is that picture, noised, as there. Other
    # pictures that the model knows by heart stay what they were only if their titles are words of `keep`, and are exact
    # only after more updates (docs/LOG.md).
    "memorised": {**_NAMED, "templates": ("{}",), "updates": 60},
}
"""Settings by what is erased, with the source of each number; sections and tables are those of arXiv:2303.07345."""


def staying(concepts: Iterable[Concept], neutral: Iterable[str]) -> list[str]:
    """Words that must stay: what the concepts keep, and neutral ones that none of them erases."""
    concepts = tuple(concepts)
    erased = {name: name for concept in concepts for name in concept.names}
    named = [word for concept in concepts for word in concept.keep]
    return named + [word for word in neutral if stands_for(word, erased) is None]


def random_words(pipe: Pipeline, count: int, concepts: Iterable[Concept], rng: torch.Generator) -> list[str]:
    """At most so many random words of a pipeline's tokenizer that are no part of a concept's name."""
    if not count:
        return []
    erased = {name.lower() for concept in concepts for name in concept.names}
    words = [word for word in vocabulary(pipe) if not any(word in name for name in erased)]
    return [words[k] for k in torch.randperm(len(words), generator=rng)[:count].tolist()]


def spared_words(
    pipe: Pipeline,
    count: int,
    concepts: Sequence[Concept],
    layers: Sequence[str],
    rng: torch.Generator,
    watch: Watch = quiet,
) -> list[str]:
    """At most so many random words, without those that the model reads as it reads a concept: its other names.

    layers  of the denoiser through which the prompt enters. Their outputs are compared, which are the same in whatever
            basis the text is written. Where there are none, no word is left out
    """
    words, names = random_words(pipe, count, concepts, rng), [name for concept in concepts for name in concept.names]
    if not (words and layers):
        return words
    outputs = []
    for layer, x in means(pipe, [f"a {word}" for word in (*words, *names)], layers, watch=watch).items():
        y = written(denoiser(pipe)[1], layer, x)
        y -= y[: len(words)].mean(0)
        outputs.append(y / y[: len(words)].norm().clamp(min=1e-12))
    read = nn.functional.normalize(torch.cat(outputs, -1), dim=-1)
    alike = (read[: len(words)] @ read[len(words) :].T).amax(-1) > LIKE
    return [word for word, same in zip(words, alike.tolist(), strict=True) if not same]


def contexts(
    pipe: Pipeline, templates: Sequence[str], company: int, concepts: Iterable[Concept], rng: torch.Generator
) -> list[str]:
    """The templates, and each prompt of COMPANY with so many random words; {} is left in all."""
    words = random_words(pipe, company * len(COMPANY), concepts, rng)
    return [*templates, *(way.replace("*", word) for way, word in zip(cycle(COMPANY), words))]


def stand_ins(pipe: Pipeline, name: str, count: int, concepts: Iterable[Concept], rng: torch.Generator) -> list[str]:
    """Random words that take a name's place in so many prompts, of as many tokens, so that all others keep theirs."""
    length = len(tokenizer(pipe)(name, add_special_tokens=False).input_ids)
    words = cycle(random_words(pipe, count * length, concepts, rng) or [""])
    return [" ".join(islice(words, length)) for _ in range(count)]


def in_templates(templates: Sequence[str], words: Sequence[str], rng: torch.Generator, *, each: int = 1) -> list[str]:
    """Prompts: each word under so many random templates."""
    words = [word for word in words for _ in range(each)]
    ways = torch.randint(len(templates), (len(words),), generator=rng).tolist()
    return [templates[way].format(word) for way, word in zip(ways, words, strict=True)]


def known_prompts(
    words: Sequence[str], named: int, templates: Sequence[str], ways: Sequence[str], rng: torch.Generator
) -> list[str]:
    """Prompts whose texts are to be left alone, two for each word that must stay: in any of the ways to ask for it.

    The first `named` words are a user's own. They are asked for under the templates too, and come as often as all
    others together: among hundreds of random words a few would not count.
    """
    own, others = words[:named], words[named:]
    own = list(islice(cycle(own), max(len(own), len(others))))
    return [
        *in_templates(templates, own, rng),
        *in_templates(ways, own, rng),
        *in_templates(ways, others, rng, each=2),
    ]
