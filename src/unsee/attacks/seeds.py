"""The concept's name on many seeds. This is no attack, but what every attack is compared with."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found

FEW = 48


def search(context: AttackContext) -> Iterator[Found]:
    count = 200 if context.thorough else max(FEW, context.n)
    yield Found("the name", (context.prompt,), n=count)


ATTACK = Attack("seeds", "name", frozenset({"name"}), "The concept's name, on many seeds.", search)
