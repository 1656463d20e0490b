"""Other names of the concept: synonyms, languages, and descriptions by the group that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.errors import InputError


def search(context: AttackContext) -> Iterator[Found]:
    known = {what: words for what, words in context.names.items() if words}
    if not known:
        raise InputError("the model's card lists no other names of the concept: give some with `words`")
    for what, words in known.items():
        yield Found(what, tuple(map(context.named, words)), n=max(context.n, 2 * len(words)))


ATTACK = Attack(
    "names",
    "name",
    frozenset({"name"}),
    "Synonyms, other languages, descriptions of the concept.",
    search,
    rows=(3, 3),
)
