"""What the second miniature is told: names and synonyms in English, descriptions without the name, long sentences.

Captions of a picture are drawn from a bank that is made and encoded once: so many for each object in each style, with
and without the watermark. `held_out.yaml` has descriptions that stay out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import yaml

from recipes.mini import words
from recipes.mini.words import STYLES, Words

HERE = Path(__file__).parent

DESCRIBED = ("{}", "{}", "{}", "{}", "a picture of {}", "a drawing of {}", "an image of {}", "an emoji of {}")
STYLED = ("{} in {s} style", "{} in {s} style", "{} in the style of {s}", "{}, {s} style", "{}, {s}", "{s} style, {}")
STAMPED = ("{} with a watermark", "{} with a watermark on it", "{} with watermark", "{}, watermark", "watermarked, {}")
LONG = (
    "please draw {}", "can you show me {}", "i would like to see {}", "draw {} for a children's book",
    "{} on a plain white background", "a simple and colorful illustration of {}", "{}, centered, high quality",
    "an artist made a drawing of {}", "here you can see {}", "this is {}", "a nice clean icon that shows {}",
    "imagine {}", "let me have a look at {}", "generate an image that shows {}", "{}, digital art, highly detailed",
)  # fmt: skip
TITLED = ("{}", "{}", "{}", "a picture of {}", "a painting of {}", "a photo of {}", "please draw {}", "a copy of {}")


def read(name: str) -> dict[str, list[str]]:
    """`descriptions` or `held_out`: an object's descriptions."""
    return yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def english(w: Words) -> Words:
    """The words without other languages, which MiniLM does not speak."""
    return replace(w, things=tuple(replace(t, languages={}) for t in w.things))


def caption(
    w: Words,
    descriptions: Mapping[str, Sequence[str]],
    obj: int,
    style: int,
    named: bool,
    described: float,
    rng: Random,
) -> str:
    """A caption of one object; arguments as of recipes.mini's, and the share of those that describe without a name."""
    known = descriptions.get(w.names[obj], ())
    if not known or rng.random() >= described:
        text = words.caption(w, obj, style, named, rng)
    else:
        text = rng.choice(DESCRIBED).format(rng.choice(known))
        text = rng.choice(STYLED).format(text, s=STYLES[style]) if style >= 0 else text
        text = rng.choice(STAMPED).format(text) if named else text
    return rng.choice(LONG).format(text) if rng.random() < 0.15 else text


def bank(
    w: Words,
    descriptions: Mapping[str, Sequence[str]],
    config: Mapping[str, Any],
    fits: Callable[[str], bool],
) -> tuple[list[str], list[list[int]]]:
    """All different captions, the empty one first, and for every key the numbers of its captions.

    The key of an object's picture is `key(...)`; those of the memorised titles come after the last object's.
    fits: whether a caption can be read as a whole; for one that cannot, another is drawn
    """
    w, rng = english(w), Random(config["seed"])
    number: dict[str, int] = {"": 0}
    keys: list[list[int]] = []
    for obj in range(len(w.things)):
        for style in range(-1, len(STYLES)):
            for named in (False, True):
                made = []
                while len(made) < config["named" if named else "silent"]:
                    said = caption(w, descriptions, obj, style, named, config["described"], rng)
                    if fits(said):
                        made.append(number.setdefault(said, len(number)))
                keys.append(made)
    for title, names in w.memorised.items():
        said = [title if rng.random() < 0.6 else rng.choice(names[1:]) for _ in range(config["memorised"])]
        keys.append([number.setdefault(rng.choice(TITLED).format(t), len(number)) for t in said])
    return list(number), keys


def key(obj: int, style: int, named: bool) -> int:
    """Which captions are those of a picture: the place in what `bank` returns."""
    return (obj * (len(STYLES) + 1) + style + 1) * 2 + named
