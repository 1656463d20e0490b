"""The prompts of every method: those that name a concept, and preservation prompts, which name what must stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle, islice

import torch
from torch import nn

from unsee.concepts import Concept, to_keep
from unsee.denoising.activations import means, written
from unsee.models.denoisers import denoiser
from unsee.models.model import Pipeline
from unsee.models.text import tokenizer, vocabulary
from unsee.models.words import listed, words_of
from unsee.progress import Progress, no_progress
from unsee.spelling import lookup

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
CONTEXTS = ("{} in * style", "a {} and a *", "a * and a {}", "a * {}", "{}, *", "{} with a *")
"""Prompts that put a context word, *, beside a name, {}: text encoders write a name into the tokens around it too."""
WITH = "{} with a {}"
"""The prompt for a thing with the part that is erased from it (`from_`)."""
SYNONYM = 0.85
"""Cosine above which a word is another name of a concept. On the miniature those of "church", "dog" and "truck", in
three languages, have 0.87 to 0.97, and the nearest words for other things 0.53 to 0.76."""
# fmt: off
NEUTRAL = (
    "cat", "bird", "horse", "car", "train", "ship", "house", "bridge", "street", "tree", "flower", "forest",
    "mountain", "river", "sea", "sky", "garden", "man", "woman", "child", "face", "hat", "chair", "table", "lamp",
    "book", "clock", "coffee", "pizza", "soup", "kitchen", "painting",
)
# fmt: on


def preserved_words(concepts: Iterable[Concept], neutral: Iterable[str]) -> list[str]:
    """Words that must stay: `keep` of each concept first, then the neutral words that no concept erases."""
    concepts = tuple(concepts)
    erased = {name: name for concept in concepts for name in concept.names}
    return to_keep(concepts) + [word for word in neutral if lookup(word, erased) is None]


def known_words(pipe: Pipeline, concepts: Iterable[Concept]) -> list[str]:
    """What the model's card lists as known (models.words.listed), without the names of concepts."""
    erased = {name: name for concept in concepts for name in concept.names}
    return [
        word for word, others in listed(words_of(pipe)).items() if not any(lookup(w, erased) for w in (word, *others))
    ]


def random_words(pipe: Pipeline, count: int, concepts: Iterable[Concept], rng: torch.Generator) -> list[str]:
    """Up to `count` random words of a pipeline's tokenizer that are no part of a concept's name."""
    if not count:
        return []
    erased = {name.lower() for concept in concepts for name in concept.names}
    words = [word for word in vocabulary(pipe) if not any(word in name for name in erased)]
    return [words[k] for k in torch.randperm(len(words), generator=rng)[:count].tolist()]


def other_words(
    pipe: Pipeline,
    count: int,
    concepts: Sequence[Concept],
    layers: Sequence[str],
    rng: torch.Generator,
    progress: Progress = no_progress,
) -> list[str]:
    """Up to `count` random words of a pipeline's tokenizer that are no names of a concept (`unlike`)."""
    return unlike(pipe, random_words(pipe, count, concepts, rng), concepts, layers, progress)


def unlike(
    pipe: Pipeline,
    words: Sequence[str],
    concepts: Sequence[Concept],
    layers: Sequence[str],
    progress: Progress = no_progress,
) -> list[str]:
    """The words without those that the model reads like a concept (cosine above SYNONYM): its synonyms.

    layers  layers of the denoiser through which the prompt enters. Their outputs are compared, which do not depend on
            the basis of the text features. Without layers, no word is left out
    """
    names = [name for concept in concepts for name in concept.names]
    if not (words and layers):
        return list(words)
    outputs = []
    for layer, x in means(pipe, [f"a {word}" for word in (*words, *names)], layers, progress=progress).items():
        y = written(denoiser(pipe)[1], layer, x)
        y -= y[: len(words)].mean(0)
        outputs.append(y / y[: len(words)].norm().clamp(min=1e-12))
    read = nn.functional.normalize(torch.cat(outputs, -1), dim=-1)
    alike = (read[: len(words)] @ read[len(words) :].T).amax(-1) > SYNONYM
    return [word for word, same in zip(words, alike.tolist(), strict=True) if not same]


def with_contexts(
    pipe: Pipeline,
    templates: Sequence[str],
    count: int,
    concepts: Iterable[Concept],
    rng: torch.Generator,
    contexts: Sequence[str] = CONTEXTS,
) -> list[str]:
    """The templates, then each prompt of `contexts` with `count` random context words; {} is left in all of them."""
    words = random_words(pipe, count * len(contexts), concepts, rng)
    return [*templates, *(way.replace("*", word) for way, word in zip(cycle(contexts), words))]


def stand_ins(pipe: Pipeline, name: str, count: int, concepts: Iterable[Concept], rng: torch.Generator) -> list[str]:
    """`count` strings of random words, as many tokens long as `name`, so that all other tokens keep their places."""
    length = len(tokenizer(pipe)(name, add_special_tokens=False).input_ids)
    words = cycle(random_words(pipe, count * length, concepts, rng) or [""])
    return [" ".join(islice(words, length)) for _ in range(count)]


def in_templates(templates: Sequence[str], words: Sequence[str], rng: torch.Generator, *, each: int = 1) -> list[str]:
    """Prompts: each word under `each` random templates."""
    words = [word for word in words for _ in range(each)]
    ways = torch.randint(len(templates), (len(words),), generator=rng).tolist()
    return [templates[way].format(word) for way, word in zip(ways, words, strict=True)]


def preservation_prompts(
    words: Sequence[str], named: int, templates: Sequence[str], contexts: Sequence[str], rng: torch.Generator
) -> list[str]:
    """Prompts whose text features must stay: two for each word, under random `contexts`.

    The first `named` words are a user's own `keep`. They come under the templates too, and as often as all others
    together: among hundreds of random words a few would not count.
    """
    own, others = words[:named], words[named:]
    own = list(islice(cycle(own), max(len(own), len(others))))
    return [
        *in_templates(templates, own, rng),
        *in_templates(contexts, own, rng),
        *in_templates(contexts, others, rng, each=2),
    ]
