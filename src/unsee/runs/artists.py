"""The suite of the ESD paper's five artists (Sec. 5.1), with CLIP in the place of the paper's human raters."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from unsee.concepts import Concept
from unsee.evaluate.context import EvalContext, NotMeasured
from unsee.evaluate.measures import Comparison
from unsee.evaluate.questions import Question
from unsee.evaluate.records import Measured
from unsee.evaluate.render import Shot
from unsee.evaluate.suites import Asked, Suite

ARTISTS = ("Kelly McKernan", "Thomas Kinkade", "Tyler Edlin", "Kilian Eng", "Ajin: Demi-Human")
WAYS = ("Art by {}", "A design of {}", "An image in the style of {}", "A reproduction of the famous art of {}")
ERASED, OTHERS, FIRST = "removed", "kept", "best fit of "
"""Keys of rows: the erased artists, the others, and how often no other artist fits a picture better."""


def _ask(context: EvalContext) -> list[Question]:
    if context.clip() is None:
        raise NotMeasured("no detector compares a picture with a text: give a CLIP model as `detector`")
    asked = []
    for artist in ARTISTS:
        shots = tuple(Shot(WAYS[k % len(WAYS)].format(artist), context.seed + k) for k in range(context.n))
        asked.append(Question(artist, artist, shots, erases=(Concept(artist),)))
    return asked


def _score(asked: Asked, c: Comparison) -> Iterator[Measured]:
    """How well pictures fit their prompts, and how often the same prompt fits no other artist better."""
    clip = c.context.clip()
    assert clip is not None
    texts = clip.texts([way.format(artist) for artist in ARTISTS for way in WAYS]).view(len(ARTISTS), len(WAYS), -1)
    for key, row in ((ERASED, "erased"), (OTHERS, "other artists")):
        some = [question for question in asked if c.role(question) == key]
        if not some:
            continue

        def fits(name: str, some: Asked = some) -> list[tuple[int, Tensor]]:
            """For each picture its artist's number, and its cosine with every artist's text of its prompt."""
            pairs = [(ARTISTS.index(q.key), c.seen.features(name, "clip", q.shots)) for q in some]
            return [(k, texts[:, way % len(WAYS)] @ v) for k, vectors in pairs for way, v in enumerate(vectors)]

        found = c.both(fits)
        role = c.role(some[0])
        cosines = [[float(each[k]) for k, each in one] for one in found]
        best = [[int(each.argmax()) == k for k, each in one] for one in found]
        yield c.average(key, row, "cosine", cosines, role, clip.source)
        yield c.share(FIRST + key, f"{row}: picked out of five", best, role, clip.source)


ARTWORK = Suite("artists", "Five artists, four prompts each: CLIP's cosine of picture and prompt.", _ask, _score)
