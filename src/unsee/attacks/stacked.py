"""Another edit on top: another thing is erased from the attacked model, as someone who stacks edits does.

The keys and values, or the embedder that stands before them, learn for the other thing's name what the base predicts
with no prompt, ESD's target with eta = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from unsee.attacks import Attack
from unsee.attacks.context import AttackContext, Found
from unsee.attacks.lessons import RUNS, SEED
from unsee.attacks.tuning import called, tuned
from unsee.denoising.record import Runs, record
from unsee.denoising.rows import single_rows
from unsee.fit.search import ROWS, any_of

UPDATES = 30


def search(context: AttackContext) -> Iterator[Found]:
    looks = [max(1, min(context.passes // ROWS, UPDATES))]
    for thing in context.others[-2:] if context.thorough else context.others[-1:]:
        with context.base():
            steps = record(
                context.pipe,
                [context.named(thing)] * RUNS,
                seeds=range(SEED, SEED + RUNS),
                runs=Runs(context.steps, max(context.guidance_scale, 1.5)),
            )
        rows = [row for step in steps for row in single_rows(replace(step.concept, output=step.null.output))]
        for update in tuned(context, "cross-kv", any_of(rows), looks):
            which = "another thing" if thing == context.others[-1] else "a second thing"
            yield Found(
                f"{which} erased, {called(context, 'cross-kv')}, {update} updates", (context.prompt,), note=thing
            )


ATTACK = Attack(
    "stacked",
    "weights",
    frozenset({"weights", "base"}),
    "Another edit on top, which erases another thing.",
    search,
    rows=(1, 2),
    searches=(1, 2),
)
