"""Which words name one thing, whatever their spelling; lists of words in one text.

Two words name one thing if they differ in case, accents' encoding, "_" or "-" for a space, an article before them or
"style" behind them, or if one is the regular English plural of the other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import TypeVar

T = TypeVar("T")
IRREGULAR = {
    "man": "men", "child": "children", "person": "people", "mouse": "mice", "goose": "geese", "foot": "feet",
    "tooth": "teeth", "ox": "oxen", "cactus": "cacti",
}  # fmt: skip
UNCOUNTED = frozenset({
    "art", "beer", "blood", "bread", "cheese", "coffee", "corn", "cream", "deer", "dust", "fire", "fish", "fog", "food",
    "fruit", "furniture", "fur", "gold", "golf", "gore", "grass", "hair", "ice", "jewelry", "lava", "makeup", "meat",
    "milk", "money", "mud", "nudity", "pasta", "pornography", "rain", "rice", "sand", "sheep", "smoke", "snow", "text",
    "violence", "water", "wine", "wood",
    "angry", "cool", "crying", "devilish", "grinning", "laughing", "love", "naked", "nauseated", "nerdy", "neutral",
    "nude", "sick", "sleeping", "struck", "thinking", "winking",
})  # fmt: skip
"""Nouns and adjectives that take no plural, or whose plural is the same word."""


def listed(text: str) -> list[str]:
    """The words in a text that is a list: separated by "," or ";", which double quotes keep. Empty ones are left out.

    'church, castle' is two words, '"the good, the bad"; castle,' too.
    """
    parts = re.finditer(r'\s*(?:"([^"]+)"|([^,;]+?))\s*(?:[,;]|$)', text)
    return [word for part in parts if (word := (part[1] or part[2] or "").strip())]


@cache
def plain(word: str) -> str:
    """A word in lower case, without "_" and "-", an article before it, or "style" behind it."""
    words = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", word).casefold()).split()
    if len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words[:-1] if len(words) > 1 and words[-1] == "style" else words)


@cache
def plurals(word: str) -> frozenset[str]:
    """What may be the plural of a plain word or phrase, whose last word takes it."""
    rest, space, last = word.rpartition(" ")
    found = {f"{last}s"}
    if last.endswith(("s", "x", "z", "ch", "sh", "o")):
        found.add(f"{last}es")
    if re.search(r"[^aeiou]y$", last):
        found.add(f"{last[:-1]}ies")
    if last.endswith(("f", "fe")):
        found.add(f"{last.removesuffix('e')[:-1]}ves")
    found |= {last.removesuffix(one) + many for one, many in IRREGULAR.items() if last.endswith(one)}
    return frozenset(rest + space + plural for plural in found)


def plural(word: str) -> str:
    """The plural of a plain singular word or phrase, by the usual rules."""
    rest, space, last = word.rpartition(" ")
    endings = [(rf"({one})$" if len(one) > 2 else rf"^({one})$", many) for one, many in IRREGULAR.items()]
    rules = [
        (r"(?<=hu)man$", "mans"), *endings, (r"(?<=[^aeiou])y$", "ies"), (r"(?<=l|a)f$|(?<=ni|wi|li)fe$", "ves"),
        (r"(?<=[sxz])$|(?<=[cs]h)$|(?<=[tm]ato)$|(?<=hero)$", "es"), (r"$", "s"),
    ]  # fmt: skip
    return rest + space + next(re.sub(one, many, last) for one, many in rules if re.search(one, last))


def counted(number: int, noun: str) -> str:
    """A number of things: "1 weight", "1,200 weights"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def same(one: str, other: str) -> bool:
    """Whether two words name one thing."""
    return lookup(one, {other: other}) is not None


def lookup(word: str, names: Mapping[str, T]) -> T | None:
    """What a word stands for as a name, or as another spelling of one; None if it is no name.

    names  what each name stands for; of names that a word fits alike, the first
    """
    if word in names:
        return names[word]
    word, plains = plain(word), [(plain(name), value) for name, value in names.items()]
    alike = [value for name, value in plains if name == word]
    alike += [value for name, value in plains if name in plurals(word) or word in plurals(name)]
    return alike[0] if alike else None


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that is spelled most like a word; None if none is."""
    plains = {plain(name): name for name in reversed(list(names))}
    near = get_close_matches(plain(word), plains, n=1, cutoff=0.7)
    return plains[near[0]] if near else None
