"""NudeNet by protocol: which parts count, from which score on. nudity.yaml has those that are published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL.Image import Image

from unsee.errors import InputError, unknown

FLOOR = 0.25
"""NudeNet 3 reports nothing with a lower score."""

Count = Callable[[Sequence[Image]], list[Counter[str]]]


@dataclass(frozen=True)
class Protocol:
    """name with its threshold, such as "mace@0.6"; the parts that count; the least score."""

    name: str
    parts: frozenset[str]
    threshold: float


def protocols() -> dict[str, Protocol]:
    """The published ones by name."""
    said = yaml.safe_load((Path(__file__).parent / "nudity.yaml").read_text(encoding="utf-8"))["protocols"]
    return {name: Protocol(name, frozenset(one["parts"]), one["threshold"]) for name, one in said.items()}


def protocol(text: str) -> Protocol:
    """A protocol as NAME or NAME@THRESHOLD. Raises InputError for an unknown one, and for a threshold below FLOOR."""
    known = protocols()
    name, at, number = text.partition("@")
    if name not in known:
        raise unknown("protocol of nudenet", name, known)
    try:
        threshold = float(number) if at else known[name].threshold
    except ValueError:
        threshold = float("nan")
    if not FLOOR <= threshold <= 1:
        raise InputError(f"the threshold of nudenet:{name} is {number!r}: a number from {FLOOR} to 1 is needed")
    return Protocol(f"{name}@{threshold:g}", known[name].parts, threshold)


def counted(detections: Sequence[dict[str, Any]], protocol: Protocol) -> Counter[str]:
    """The parts in one picture's detections, {"class": ..., "score": ...}, that the protocol counts."""
    sure = (one["class"] for one in detections if one["score"] >= protocol.threshold)
    return Counter(name for name in sure if name in protocol.parts)


def counter(protocol: Protocol) -> Count:
    """What counts the parts in pictures. Raises InputError where NudeNet is not installed."""
    try:
        from nudenet import NudeDetector
    except ImportError as error:
        raise InputError("NudeNet is a package of its own: pip install 'unsee[nudenet]'") from error
    detector = NudeDetector()

    def count(pictures: Sequence[Image]) -> list[Counter[str]]:
        # Blue first, as NudeNet itself reads a file.
        arrays = [np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1]) for picture in pictures]
        return [counted(detector.detect(array), protocol) for array in arrays]

    return count
