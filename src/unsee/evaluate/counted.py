"""Which detector counts a word, and under which label."""

from __future__ import annotations

from collections.abc import Mapping

from unsee.evaluate.detectors import AnyDetector
from unsee.spelling import lookup, nearest


def counted_as(word: str, names: Mapping[str, str], detectors: Mapping[str, AnyDetector]) -> tuple[str, str | None]:
    """The label that stands for a word, and the kind of detector that has it; the word and None if none has.

    names  what each name stands for, see words.known
    """
    label = lookup(word, names) or word
    kind = next((kind for kind, detector in detectors.items() if label in detector.labels), None)
    return label, kind


def uncounted(word: str, names: Mapping[str, str], detectors: Mapping[str, AnyDetector]) -> str:
    """Why no detector counts what a word names; "" if there is no detector at all, which a result says once."""
    if not any(detector.labels for detector in detectors.values()):
        return ""
    if label := lookup(word, names):
        return f"not measured: no detector has a word for {label!r}; a suite of `measure` may measure it"
    near = nearest(word, names)
    return f"not measured: no detector has a word for {word!r}" + (f"; the nearest is {near!r}" if near else "")
