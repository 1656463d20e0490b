"""What is in a picture: image classifiers of transformers, by folder or hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from unsee.errors import InputError
from unsee.recorder import Watch, quiet

NOTHING = "none of these"
"""The answer of a detector that is less sure than its threshold."""


@dataclass(frozen=True)
class Detector:
    """A classifier of whole pictures.

    source     where it was loaded from
    labels     what it can answer: for "tench, Tinca tinca", the first name
    threshold  a probability; below it the answer is NOTHING
    """

    source: str
    labels: tuple[str, ...]
    threshold: float
    _processor: Any
    _model: Any

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image], batch: int = 128, watch: Watch = quiet) -> list[str]:
        """A label, or NOTHING, for each picture."""
        found: list[str] = []
        for start in range(0, len(pictures), batch):
            inputs = self._processor(images=list(pictures[start : start + batch]), return_tensors="pt")
            sure, label = self._model(**inputs.to(self._model.device)).logits.softmax(-1).max(-1)
            found += [
                self.labels[k] if p >= self.threshold else NOTHING
                for p, k in zip(sure.tolist(), label.tolist(), strict=True)
            ]
            watch("score", len(found), len(pictures))
        return found


def load_detector(source: str | Path) -> Detector:
    """An image classifier that transformers' Auto classes can read. Raises InputError if there is none at `source`."""
    try:
        model = AutoModelForImageClassification.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32
        ).eval()
        processor = AutoImageProcessor.from_pretrained(source)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the judge {source}: {' '.join(str(error).split())[:300]}") from error
    labels = tuple(model.config.id2label[k].split(",")[0] for k in range(model.config.num_labels))
    return Detector(str(source), labels, float(getattr(model.config, "threshold", 0.0)), processor, model)
