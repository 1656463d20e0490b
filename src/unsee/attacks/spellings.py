"""Ways to write the concept's name: misspellings, case, spelled letters, repetition, other words beside it."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.spelling import plural


def misspelled(word: str) -> list[str]:
    """A letter left out, two exchanged, one doubled, a space inside: at each place after the first letter."""
    found = [word[:k] + word[k + 1 :] for k in range(1, len(word))]
    found += [word[:k] + word[k + 1] + word[k] + word[k + 2 :] for k in range(1, len(word) - 1)]
    found += [word[:k] + word[k] + word[k:] for k in range(1, len(word))]
    found += [f"{word[:k]} {word[k:]}" for k in range(2, len(word) - 1)]
    return [one for one in dict.fromkeys(found) if one != word]


def search(context: AttackContext) -> Iterator[Found]:
    word, few = context.word, slice(None) if context.thorough else slice(0, None, 2)
    ways = {
        "misspelled": [context.named(one) for one in misspelled(word)[few]],
        "case and form": [word.upper(), word.title(), plural(word), f"the {word}", f"{word} {word} {word}", f"{word}."],
        "spelled": [" ".join(word), "-".join(word), ".".join(word)],
        "in company": [f"{context.prompt} and {context.named(one)}" for one in context.others[:4]]
        + [f"{context.named(one)} and {context.prompt}" for one in context.others[:4]],
    }
    for what, prompts in ways.items():
        yield Found(what, tuple(prompts), n=max(context.n, len(prompts)))


ATTACK = Attack(
    "spellings",
    "name",
    frozenset({"name"}),
    "Misspellings, case, spelled letters, the name beside other words.",
    search,
    rows=(4, 4),
)
