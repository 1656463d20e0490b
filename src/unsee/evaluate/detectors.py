"""What is in a picture: image classifiers and CLIP models of transformers, by folder or hub id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor

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
        for inputs in self._batches(pictures, batch):
            sure, label = self._model(**inputs).logits.softmax(-1).max(-1)
            found += [
                self.labels[k] if p >= self.threshold else NOTHING
                for p, k in zip(sure.tolist(), label.tolist(), strict=True)
            ]
            watch("score", len(found), len(pictures))
        return found

    @torch.no_grad()
    def likely(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """The probability of each label, (N, labels)."""
        return torch.cat([self._model(**inputs).logits.softmax(-1).cpu() for inputs in self._batches(pictures, batch)])

    @torch.no_grad()
    def features(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """What the last layer reads of each picture, (N, D)."""
        rows = []
        for inputs in self._batches(pictures, batch):
            out = self._model.base_model(**inputs)
            pooled = getattr(out, "pooler_output", None)
            rows.append((out.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1).float().cpu())
        return torch.cat(rows)

    def _batches(self, pictures: Sequence[Image], batch: int) -> Iterator[Any]:
        for start in range(0, len(pictures), batch):
            inputs = self._processor(images=list(pictures[start : start + batch]), return_tensors="pt")
            yield inputs.to(self._model.device)


@dataclass(frozen=True)
class Clip:
    """A model that says how well a text fits a picture. It has no labels of its own.

    source  where it was loaded from
    """

    source: str
    _processor: Any
    _model: Any
    labels: tuple[str, ...] = ()

    @torch.no_grad()
    def features(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """Directions of pictures, (N, D), each of length one."""
        rows = []
        for start in range(0, len(pictures), batch):
            inputs = self._processor(images=list(pictures[start : start + batch]), return_tensors="pt")
            rows.append(_vectors(self._model.get_image_features(**inputs.to(self._model.device))))
        return torch.cat(rows)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Directions of texts, (N, D), each of length one."""
        rows = []
        for start in range(0, len(texts), batch):
            part = list(texts[start : start + batch])
            inputs = self._processor(text=part, return_tensors="pt", padding="max_length", truncation=True)
            rows.append(_vectors(self._model.get_text_features(**inputs.to(self._model.device))))
        return torch.cat(rows)


Judge = Detector | Clip


def _vectors(found: Any) -> Tensor:
    return normalize((found if isinstance(found, Tensor) else found.pooler_output).float().cpu(), dim=1)


def load_detector(source: str | Path) -> Judge:
    """A classifier or a CLIP model that transformers can read. Raises InputError if there is none at `source`."""
    try:
        config = AutoConfig.from_pretrained(source)
        # transformers would put an untrained classifier on top of a model that only compares texts with pictures.
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            compare = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32).eval()
            return Clip(str(source), AutoProcessor.from_pretrained(source), compare)  # type: ignore[no-untyped-call]
        model = AutoModelForImageClassification.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32
        ).eval()
        processor = AutoImageProcessor.from_pretrained(source)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the judge {source}: {' '.join(str(error).split())[:300]}") from error
    labels = tuple(model.config.id2label[k].split(",")[0] for k in range(model.config.num_labels))
    return Detector(str(source), labels, float(getattr(model.config, "threshold", 0.0)), processor, model)
