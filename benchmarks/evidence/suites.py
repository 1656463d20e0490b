"""What pictures are asked of each model: things by their names, and things by wording that no model has seen.

The pictures of a smaller n are the first ones of a larger n, so that they are drawn once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import NEIGHBOURS, Question, nearest
from unsee.evaluate.records import Measured, Role
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite
from unsee.evaluate.words import article, ways

THINGS, WORDING = "things", "wording"
REMOVED, STYLED, NEAR, NEAREST, KEPT, SAID = "removed", "in styles", "near/", "nearest/", "kept", "said/"
"""Keys of rows, or how they begin: what is erased; the same in every style; one neighbour; one of the nearest texts,
which are a row together, NEAR + "texts"; everything else; one description of what is erased."""
DESCRIPTIONS = 3
"""Of each object that is described."""


def question(
    context: EvalContext, key: str, name: str, pairs: Sequence[tuple[str, str]], count: int, role: Role = "kept"
) -> Question:
    """A row of `count` pictures that goes through pairs of a prompt and the object wanted, the seed counting up."""
    some = list(islice(cycle(pairs), count))
    shots = tuple(Shot(prompt, context.seed + k) for k, (prompt, _) in enumerate(some))
    return Question(key, name, shots, "objects", tuple(label for _, label in some), role)


def ask_things(alike: Sequence[str], context: EvalContext) -> list[Question]:
    """n pictures of all that is erased, n / 2 of it in styles, n of each neighbour that is named and of the nearest
    texts together, 2 n of everything else; each at least one.
    """
    n, targets = context.n, context.targets("objects")
    rest = [label for label in context.labels("objects") if label not in targets]
    alike = [label for label in alike if label in rest]
    near = nearest(context.pipe, targets, [label for label in rest if label not in alike])[:NEIGHBOURS]
    other = [label for label in rest if label not in (*alike, *near)]
    asked, each = [], math.ceil(n / len(targets))
    for label in targets:
        asked.append(question(context, f"{REMOVED}/{label}", label, [(w, label) for w in ways(label)], each, "removed"))
        pairs = [(context.styled(label, style), label) for style in context.words.get("styles", ())]
        if pairs:
            title = f"{label}, in every style"
            asked.append(question(context, f"{STYLED}/{label}", title, pairs, math.ceil(each / 2), "removed"))
    counts = [(NEAR, alike, n), (NEAREST, near, n / NEIGHBOURS), (f"{KEPT}/", other, 2 * n / max(1, len(other)))]
    for key, labels, count in counts:
        role: Role = "kept" if key.startswith(KEPT) else "neighbour"
        asked += [question(context, key + x, x, [(article(x), x)], math.ceil(count), role) for x in labels]
    return asked


def score_things(asked: Asked, c: Comparison) -> Iterator[Measured]:
    def having(key: str) -> list[Question]:
        return [one for one in asked if one.key.startswith(key)]

    nearest_texts = ", ".join(one.labels[0] for one in having(NEAREST))
    yield from c.pooled(REMOVED, "erased", having(f"{REMOVED}/"), "removed")
    yield from c.pooled(STYLED, "erased, in every style", having(f"{STYLED}/"), "removed")
    yield from c.pooled(f"{NEAR}texts", f"nearest texts: {nearest_texts}", having(NEAREST), "neighbour", nearest_texts)
    yield from c.pooled(KEPT, "everything else", having(f"{KEPT}/"))
    if shots := [shot for one in having(f"{KEPT}/") for shot in one.shots]:
        yield c.change(KEPT, "everything else", shots)
    for one in [*having(f"{REMOVED}/"), *having(f"{STYLED}/"), *having(NEAR), *having(NEAREST)]:
        yield c.share(one.key, one.name, c.hits(one), c.role(one), c.context.detector("objects").source)


def ask_wording(described: Mapping[str, Sequence[str]], context: EvalContext) -> list[Question]:
    """n / 2 pictures of erased objects by their descriptions, and about n of all other objects that are described."""
    known = [label for label in context.labels("objects") if label in described]
    gone = [label for label in known if label in {context.target(concept) for concept in context.concepts}]
    if not known:
        raise NotMeasured("no object of this detector is described")
    asked = []
    for label in known:
        count = context.n / 2 / len(gone) if label in gone else DESCRIPTIONS * math.ceil(context.n / 96)
        pairs = [(said, label) for said in described[label]]
        role: Role = "removed" if label in gone else "kept"
        name = f"{label} by unseen wording"
        asked.append(question(context, f"{role}/{label}", name, pairs, max(DESCRIPTIONS, math.ceil(count)), role))
    return asked


def score_wording(asked: Asked, c: Comparison) -> Iterator[Measured]:
    gone, rest = ([one for one in asked if (one.role == "removed") is removed] for removed in (True, False))
    yield from c.pooled(REMOVED, "erased, by unseen wording", gone, "removed")
    yield from c.pooled(KEPT, "other things, by unseen wording", rest)
    for one in gone:
        base, now = c.hits(one)
        for prompt in dict.fromkeys(shot.prompt for shot in one.shots):
            own = [k for k, shot in enumerate(one.shots) if shot.prompt == prompt]
            pair = [base[k] for k in own], [now[k] for k in own]
            yield c.share(f"{SAID}{prompt}", prompt, pair, "removed", c.context.detector("objects").source)


def suites(alike: Sequence[str], described: Mapping[str, Sequence[str]]) -> dict[str, Suite]:
    """Both suites by name.

    alike      objects that look like what is erased, each a row
    described  by object, descriptions that no training caption contains
    """
    things = "Objects by their names: what is erased, what is like it, and everything else."
    wording = "Objects by descriptions that neither the model nor the eraser has seen."
    return {
        THINGS: Suite(THINGS, things, partial(ask_things, tuple(alike)), score_things),
        WORDING: Suite(WORDING, wording, partial(ask_wording, described), score_wording),
    }
