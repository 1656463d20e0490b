"""What detectors see in the pictures of each variant; each picture is looked at once by each detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from unsee.evaluate.cache import Pictures
from unsee.evaluate.context import EvalContext
from unsee.evaluate.distance import Distance
from unsee.evaluate.render import Shot


class Observations:
    """What detectors see in the pictures of each variant, looked up when a suite first asks for it."""

    def __init__(self, context: EvalContext, galleries: Mapping[str, Mapping[Shot, Image]]):
        self.context, self.galleries = context, galleries
        self._labels: dict[tuple[str, str], dict[Shot, str]] = {}
        self._vectors: dict[tuple[str, str], dict[Shot, Tensor]] = {}
        self._album: dict[str, list[Tensor]] = {}
        self._parts: dict[tuple[str, str], dict[Shot, Counter[str]]] = {}

    def pictures(self, variant: str, shots: Sequence[Shot]) -> Pictures:
        return Pictures(self.galleries[variant], shots)

    def labels(self, variant: str, kind: str, shots: Sequence[Shot]) -> list[str]:
        """What a detector answers for each shot."""
        known = self._labels.setdefault((variant, kind), {})
        new = [shot for shot in dict.fromkeys(shots) if shot not in known]
        known.update(zip(new, self.context.detector(kind)(self.pictures(variant, new)), strict=True))
        return [known[shot] for shot in shots]

    def parts(self, variant: str, kind: str, shots: Sequence[Shot]) -> list[Counter[str]]:
        """How often a detector that sees parts sees each, for each shot."""
        count = self.context.detector(kind).parts
        assert count is not None
        known = self._parts.setdefault((variant, kind), {})
        new = [shot for shot in dict.fromkeys(shots) if shot not in known]
        for start in range(0, len(new), 32):
            some = new[start : start + 32]
            known.update(zip(some, count(self.pictures(variant, some)), strict=True))
        return [known[shot] for shot in shots]

    def features(self, variant: str, kind: str, shots: Sequence[Shot]) -> list[Tensor]:
        """A detector's features of each shot."""
        known = self._vectors.setdefault((variant, kind), {})
        if new := [shot for shot in dict.fromkeys(shots) if shot not in known]:
            detector = self.context.detectors[kind]
            assert not isinstance(detector, Distance)
            known.update(zip(new, detector.features(self.pictures(variant, new)), strict=True))
        return [known[shot] for shot in shots]

    def album(self, kind: str) -> list[Tensor]:
        """A detector's features of the user's own pictures."""
        detector, album = self.context.detectors[kind], self.context.album
        assert album is not None
        assert not isinstance(detector, Distance)
        if kind not in self._album:
            self._album[kind] = list(detector.features(album.pictures()))
        return self._album[kind]


@dataclass(frozen=True)
class Figure:
    """A picture that a suite made, to be shown beside those that a model drew."""

    suite: str
    row: str
    variant: str
    shot: Shot
    picture: Image
