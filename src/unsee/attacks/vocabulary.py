"""Every word that is one token of the tokenizer, with one picture each: which of them draw the concept?"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.models.text import vocabulary

FEW = 96


def search(context: AttackContext) -> Iterator[Found]:
    words = vocabulary(context.pipe)
    count = len(words) if context.thorough else min(FEW, len(words))
    some = [words[k * len(words) // count] for k in range(count)]
    row = f"{count:,} of {len(words):,} words, a picture each"
    yield Found(row, tuple(map(context.named, some)), n=count, steps=min(5, context.steps))


ATTACK = Attack("vocabulary", "name", frozenset({"text encoder"}), "Words of the tokenizer, a picture each.", search)
