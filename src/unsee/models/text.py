"""A pipeline's tokenizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from unsee.errors import InputError
from unsee.models.model import Pipeline, kind

_WORDS: WeakKeyDictionary[Any, tuple[int, list[str]]] = WeakKeyDictionary()
"""What `vocabulary` found, with the number of tokens that it was found among."""


def tokenizer(pipe: Pipeline) -> Any:
    """A pipeline's first tokenizer. Raises InputError if it has none."""
    found = next((part for part in pipe.components.values() if hasattr(part, "get_vocab")), None)
    if found is None:
        raise InputError(f"{kind(pipe).__name__} has no tokenizer to take words from")
    return found


def vocabulary(pipe: Pipeline) -> list[str]:
    """The words of three letters and more for which a pipeline's first tokenizer has a token of its own, sorted."""
    own = tokenizer(pipe)
    tokens = own.get_vocab()
    known = _WORDS.get(own)
    if known is None or known[0] != len(tokens):  # tokens were added
        known = _WORDS[own] = len(tokens), _words(tokens)
    return known[1]


def _words(tokens: Mapping[str, int]) -> list[str]:
    # CLIP marks the end of a word, sentencepiece and byte-level BPE its beginning, WordPiece all but its beginning.
    often = [
        mark for mark in ("</w>", "\u2581", "\u0120", "##") if sum(mark in token for token in tokens) > len(tokens) / 8
    ]
    words = {token.replace(mark, "").lower() for mark in often if mark != "##" for token in tokens if mark in token}
    words |= {token.lower() for token in tokens if "##" in often and not token.startswith("##")}
    return sorted(word for word in words if word.isalpha() and len(word) > 2)


def check_prompts(pipe: Pipeline, prompts: Iterable[str]) -> None:
    """Raise InputError for a prompt that is longer than every text encoder of the pipeline reads; say what is cut."""
    tokenizers = [part for part in pipe.components.values() if hasattr(part, "model_max_length")]
    for prompt in prompts:
        cut = []
        for tokenizer in tokenizers:
            ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
            # The end mark takes the last place that is read.
            cut.append(tokenizer.decode(ids[tokenizer.model_max_length - 1 :], skip_special_tokens=True).strip())
        if cut and all(cut):
            lost = _brief(min(cut, key=len))
            raise InputError(f"{_brief(prompt)!r} is longer than the text encoder reads: {lost!r} would be cut off")


def _brief(text: str) -> str:
    """A text of one line: of a long one its beginning and its end."""
    return text if len(text) <= 80 else f"{text[:40]} ... {text[-35:]}"
