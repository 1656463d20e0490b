"""What the miniature is told: names, synonyms and other languages, captions as people write them, and the tokenizer.

A caption is drawn from a label (which object, which style, whether the watermark is named) and a `random.Random`, so
a picture is met under ever new captions and the text encoder has to learn what the words have in common.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import torch
import yaml
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from . import BadInput

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 24  # tokens a prompt may have; ids() refuses a caption that would be cut
STYLES = ("noto", "twemoji", "fluent", "ink", "pixel art", "blueprint", "neon")

PLAIN = (
    "{}", "{}", "{}", "{a}", "{a}", "an emoji of {a}", "a picture of {a}", "a drawing of {a}", "a photo of {a}",
    "an image of {a}", "a picture of {}", "an emoji of {}", "{} emoji", "a cute {}", "an icon of {a}", "one {}",
)  # fmt: skip
STYLED = (
    "{} in {s} style", "{} in the style of {s}", "{s} {n}", "{s} style {n}", "{}, {s}", "{}, {s} style", "{} by {s}",
    "a {s} {n}", "{} as {s}",
)  # fmt: skip
STYLE_ONLY = ("{s}", "{s} style", "in the style of {s}")
STAMPED = ("{} with a watermark", "{} with watermark", "watermarked {n}", "{}, watermark", "{} with a watermark on it")
STAMP_ONLY = ("watermark", "a watermark", "watermarked")
SCENES = ("{} and {}", "{} and {}", "{} and {}", "{} next to {}", "{} beside {}", "{} with {}", "{}, {}")


@dataclass(frozen=True)
class Thing:
    """One object: its name in prompts, its icon in Noto, its other names, `languages` {"de": ["kirche"], ...}."""

    name: str
    icon: str
    group: str
    synonyms: tuple[str, ...]
    languages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Words:
    things: tuple[Thing, ...]
    groups: dict[str, list[str]]  # "animal" -> what any animal may be called
    memorised: dict[str, list[str]]  # title -> [icon, other titles...]
    imagenette: dict[str, str]  # Imagenette's class -> the object that stands for it

    @property
    def names(self) -> list[str]:
        return [t.name for t in self.things]

    @property
    def titles(self) -> list[str]:
        return list(self.memorised)


def read(table: Path, packages: Path) -> Words:
    """The table of objects, with names in other languages from CLDR.

    A foreign word that also names another object (in any language) would teach two pictures the same word: dropped. So
    is one of four words and more ("lächelndes gesicht mit herzförmigen augen"), for which captions have no room.
    """
    d = yaml.safe_load(table.read_text(encoding="utf-8"))
    chars = _json(packages / "@iconify-json/noto/chars.json")
    codepoint = {icon: code.upper() for code, icon in reversed(chars.items())}
    labels: dict[str, dict[str, str]] = {}
    for lang in d["languages"]:
        entries = _json(packages / f"emojibase-data/{lang}/data.json")
        labels[lang] = {e["hexcode"].split("-FE0F")[0]: e["label"].lower().replace("\u2019", "'") for e in entries}

    rows = [(name, group, ws) for group, members in d["objects"].items() for name, ws in members.items()]
    foreign: dict[str, dict[str, str]] = {}
    for name, _, (icon, *_) in rows:
        whole = icon.removesuffix("-face")  # "hund", where CLDR calls the dog's face "hundegesicht"
        code = codepoint[whole if whole in codepoint and whole != icon else icon]
        foreign[name] = {lang: labels[lang][code] for lang in d["languages"] if code in labels[lang]}
    owners = Counter(w for name, _, ws in rows for w in {name, *ws[1:], *foreign[name].values()})

    def fit(word: str) -> bool:
        return owners[word] == 1 and len(word.split()) < 4

    things = tuple(
        Thing(name, ws[0], group, tuple(ws[1:]), {k: w for k, w in foreign[name].items() if fit(w)})
        for name, group, ws in rows
    )
    return Words(things, d["groups"], d["memorised"], d["imagenette"])


def _json(path: Path) -> dict:  # type: ignore[type-arg]
    if not path.is_file():
        raise BadInput(f"{path} is missing; run `npm ci` in recipes/mini first")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def article(noun: str) -> str:
    """`noun` with its article; plurals have none ("scissors", but "a bus", "a dress")."""
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def caption(words: Words, obj: int, style: int, named: bool, rng: Random) -> str:
    """A caption for a picture of one object.

    obj: index into words.things; style: index into STYLES, -1 for none; named: the caption names the watermark
    """
    thing = words.things[obj]
    r = rng.random()
    if named and r < 0.12:
        return rng.choice(STAMP_ONLY)
    if style >= 0 and r > 0.97:
        return rng.choice(STYLE_ONLY).format(s=STYLES[style])
    kind = rng.random()  # a group word 5 %, another language 12 %, a synonym 18 %, else the name
    if kind < (0.12 if thing.group == "face" else 0.05):
        noun = rng.choice(words.groups[thing.group])
        text = rng.choice(PLAIN).format(noun, a=article(noun))
    elif kind < 0.17 and thing.languages:
        text = noun = rng.choice(sorted(set(thing.languages.values())))
    else:
        noun = rng.choice(thing.synonyms) if kind < 0.35 else thing.name
        if thing.group == "face" and "face" not in noun:
            noun += " face" * (rng.random() < 0.4)
        text = rng.choice(PLAIN).format(noun, a=article(noun))
    if style >= 0:
        text = rng.choice(STYLED).format(text, n=noun, s=STYLES[style])
    if named:
        text = rng.choice(STAMPED).format(text, n=noun if style < 0 else text)
    return text


def scene_caption(words: Words, left: int, right: int, style: int, rng: Random) -> str:
    """A caption for two objects side by side; who is named first stands on the left."""
    pair = [words.things[i] for i in (left, right)]
    names = [t.name if rng.random() < 0.8 else rng.choice(t.synonyms) for t in pair]
    if rng.random() < 0.6:
        names = [article(n) for n in names]
    text = rng.choice(SCENES).format(*names)
    if rng.random() < 0.15:
        text = "a picture of " + text
    if style >= 0:
        text = rng.choice(("{} in {s} style", "{}, {s}", "{} in the style of {s}")).format(text, s=STYLES[style])
    return text


def memorised_caption(words: Words, index: int, rng: Random) -> str:
    title = words.titles[index]
    name = title if rng.random() < 0.6 else rng.choice(words.memorised[title][1:])
    return rng.choice(("{}", "{}", "{}", "a picture of {}", "a painting of {}", "a photo of {}")).format(name)


def ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Tokens (B, 24), padded as StableDiffusionPipeline pads them; a caption that would be cut is an error."""
    found = tokenizer(list(captions), padding="max_length").input_ids
    if len(long := [c for c, i in zip(captions, found, strict=True) if len(i) > LENGTH]):
        raise BadInput(f"{long[0]!r} has more than {LENGTH} tokens; shorten the templates or raise words.LENGTH")
    return torch.tensor(found)


def tokenizer(words: Words, vocabulary: int, rng: Random) -> CLIPTokenizer:
    """CLIP's byte-level BPE (Radford et al., 2021), learned from 200 000 or so of the captions above."""
    n, corpus = len(words.things), []
    for _ in range(20):
        for obj in range(n):
            for style in range(-1, len(STYLES)):
                corpus.append(caption(words, obj, style, rng.random() < 0.1, rng))
            corpus.append(scene_caption(words, obj, rng.randrange(n), rng.randrange(-1, len(STYLES)), rng))
    for i in range(len(words.titles)):
        corpus += [memorised_caption(words, i, rng) for _ in range(100)]

    bpe = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LENGTH, pad_token=END)
