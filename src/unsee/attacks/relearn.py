"""Relearning: fine-tune the attacked model on a few pictures of the concept under its name.

Few updates, small pictures sets: 50 to 300 steps in Meta-Unlearning (arXiv:2410.12777), 10 to 500 with LoRA in MemoRa.
The control "taught" is how fast a model learns what it never knew, under a word that it never knew.
"""

from __future__ import annotations

from collections.abc import Iterator

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import from_pictures
from unsee.attacks.tuning import LORA, called, tuned
from unsee.fit.search import ROWS

LOOKS = (5, 15, 50)
CASES = ((8, "all"), (8, "cross-kv"), (8, LORA))
"""Pictures, and the weights that learn."""
MORE = ((1, "all"), (1, "cross-kv"))
"""Also tried with a full budget."""


def search(context: AttackContext) -> Iterator[Found]:
    looks = {one for one in LOOKS if one * ROWS <= context.passes}
    looks |= {context.passes // ROWS} if context.thorough or not looks else set()
    for k, group in (*CASES, *(MORE if context.thorough else ())):
        rows = from_pictures(context, k, context.prompt)
        for update in tuned(context, group, rows, sorted(looks)):
            what = f"{k} picture{'s' if k > 1 else ''}, {called(context, group)}, {update} updates"
            yield Found(what, (context.prompt,))


ATTACK = Attack(
    "relearn",
    "weights",
    frozenset({"name", "weights", "pictures"}),
    "Fine-tuning on pictures of the concept.",
    search,
    taught=True,
    rows=(9, 20),
    searches=(3, 5),
)
