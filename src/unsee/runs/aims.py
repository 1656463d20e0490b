"""The aim of an attack, and how its findings are drawn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from unsee.attacks.context import Found
from unsee.concepts import Concept
from unsee.denoising.guidance import for_pictures, unguided
from unsee.errors import Unsupported
from unsee.evaluate.counted import counted_as
from unsee.evaluate.detectors import AnyDetector, names_of
from unsee.evaluate.questions import STYLED, nearest, spread
from unsee.evaluate.render import Sampling, sliced
from unsee.evaluate.words import known
from unsee.models.model import Pipeline, call_options, kind
from unsee.models.sampling import draw, sampled_by
from unsee.spelling import same

UNKNOWN = "zyxo"
"""A word that no model knows, for the concept of the control `taught`."""
THINGS = ("dog", "car", "tree", "house", "cat", "ship", "flower", "chair", "bird", "book")
PICTURES = 100_000
"""First seed of the pictures that attacks learn from; what they found is drawn from seeds below."""


@dataclass(frozen=True)
class Aim:
    """What an attack is aimed at.

    word, template  "church" and "a {}"
    names           other names of it, by what they are
    others          other things that the model knows
    turned          whether its pictures are upside down, and are counted turned back
    """

    word: str
    template: str = "a {}"
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = THINGS
    turned: bool = False


def aims_of(
    pipe: Pipeline, concept: Concept, words: Mapping[str, Any], detectors: Mapping[str, AnyDetector]
) -> tuple[dict[str, Aim], str, str | None]:
    """The aims "attacked", "neighbour" and "another concept"; the label that counts; and the kind of its detector."""
    label, kind = counted_as(concept.erase, known(words, names_of(detectors)), detectors)
    objects: Mapping[str, Any] = words.get("objects", {})
    things = [one for one in objects or THINGS if one != label and not same(one, concept.erase)]
    word = concept.from_ or concept.erase
    template = "a {}"
    if kind == "styles":
        template = str(words.get("styled", STYLED)).replace("{}", f"a {things[0]}", 1)
    elif kind not in ("objects", None):
        groups = words.get(kind, {}).get("domains", ())
        thing = next((one for one in things if objects.get(one, {}).get("group") in groups), things[0])
        template = f"a {thing} with a {{}}"
    near = nearest(pipe, [word], things) if kind == "objects" or kind is None else things
    others = tuple(dict.fromkeys([*near[:2], *spread(things, 8)]))[:8]
    aim = Aim(word, template, _names(label, objects, words), others)
    found = {"attacked": aim}
    if len(near) > 2 and kind in ("objects", None):
        far = near[len(near) // 2]
        for name, other in {"neighbour": near[0], "another concept": far}.items():
            rest = tuple(one for one in others if one != other)
            found[name] = Aim(other, template, _names(other, objects, words), rest)
    return found, label, kind


def _names(label: str, objects: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    said = objects.get(label, {})
    parts, group = tuple(said.get("parts", ())), said.get("group", "")
    groups = tuple(words.get("groups", {}).get(group, (group,) if group else ()))
    described = groups + tuple(f"{one} with a {part}" for one in groups for part in parts)
    found = {
        "synonyms": tuple(said.get("synonyms", ())),
        "languages": tuple(said.get("languages", {}).values()),
        "descriptions": described,
    }
    return {what: some for what, some in found.items() if some}


class Album:
    """Pictures that the base draws, each once."""

    def __init__(self, pipe: Pipeline, sampling: Sampling, batch: int):
        self._pipe, self._sampling, self._batch = pipe, sampling, batch
        self._pictures: dict[str, list[Image.Image]] = {}

    def draw(
        self, prompt: str, k: int, base: Callable[[], AbstractContextManager[None]], upside_down: bool
    ) -> list[Image.Image]:
        """k pictures of a prompt; with the base's weights, which `base` puts in place."""
        have = self._pictures.setdefault(prompt, [])
        if len(have) < k:
            with base():
                missing = k - len(have)
                have += drawn(
                    self._pipe,
                    Found("", (prompt,), n=missing),
                    self._sampling,
                    PICTURES + len(have),
                    missing,
                    self._batch,
                )
        return [turned(one) for one in have[:k]] if upside_down else have[:k]


def turned(picture: Image.Image) -> Image.Image:
    """A picture upside down."""
    return picture.transpose(Image.Transpose.ROTATE_180)


def drawn(pipe: Pipeline, found: Found, sampling: Sampling, seed: int, n: int, batch: int = 32) -> list[Image.Image]:
    """The pictures of what an attack found, n of them unless it says otherwise, on the seeds seed, seed + 1, ..."""
    with_, n = found.pipe or pipe, found.n or n
    steps = found.steps or sampling.steps
    scale = sampling.guidance_scale if found.guidance_scale is None else found.guidance_scale
    pictures: list[Image.Image] = []
    with sampled_by(with_, found.sampler), found.applied():
        # Guidance is found out by runs that have no picture to begin with, so it is asked of the model's own pipeline.
        guidance = for_pictures(pipe, scale) if scale > 1 else {**call_options(pipe), **unguided(pipe)}
        taken = inspect.signature(kind(with_).__call__).parameters
        options = {**{name: value for name, value in guidance.items() if name in taken}, **found.options}
        for start in range(0, n, batch):
            rows = range(start, min(start + batch, n))
            prompts = [found.prompts[k % len(found.prompts)] for k in rows]
            each = {name: values[rows.start : rows.stop] for name, values in found.each.items()}
            with sliced(with_):
                result = draw(with_, prompts, [seed + k for k in rows], steps, **options, **each)
            if not hasattr(result, "images"):
                raise Unsupported(f"{kind(with_).__name__} draws no pictures, and only pictures can be counted")
            pictures += result.images
    return pictures
