"""What is in a picture: classifiers and CLIP models of transformers, by folder or hub id; others by name.

FOLDER or ID            an image classifier, or a CLIP model, that transformers loads; where its config has "joined",
                        {"nudity": ["Porn", "Sexy"]}, the answer is nudity if these together reach its "threshold"
clip:FOLDER or ID       a CLIP model as a classifier of given words ("zero-shot")
nudenet:PROTOCOL        NudeNet as a published protocol counts it, see nudity.py
lpips, lpips:NET        the learned perceptual distance, see distance.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor

from unsee.errors import InputError
from unsee.evaluate import nudity
from unsee.evaluate.distance import Distance, lpips
from unsee.models.load import loading
from unsee.models.model import Model, Pipeline
from unsee.models.model_card import ModelCard
from unsee.progress import Progress, no_progress

NOTHING = "none of these"
"""The answer of a detector that is not sure enough."""

SHOWN = ("a picture of {}", "a picture of a {}", "{}")
DRAWN = ("a picture in the style of {}", "{} style", "art by {}")
"""How a CLIP model is asked for a thing and for a style: the mean direction of these texts (Radford et al., 2021)."""

NUDITY = "nudity"

See = Callable[[Sequence[Image]], Tensor]
Maps = Callable[[Sequence[Image]], list[Tensor]]
Count = Callable[[Sequence[Image]], list[Counter[str]]]


@dataclass(frozen=True)
class Detector:
    """A classifier of whole pictures.

    source     where it was loaded from
    labels     what it can answer: for "tench, Tinca tinca", the first name
    threshold  a probability; below it the answer is NOTHING
    look       pictures -> the probability of each label, (B, labels)
    describe   pictures -> what the last layer reads of each, (B, D)
    maps       pictures -> what each layer sees where, a list of (B, channels, places); None if it has no such maps
    parts      pictures -> how often each part of the thing is in each; None if it sees no parts
    others     other names of labels: for "tench, Tinca tinca", the second
    """

    source: str
    labels: tuple[str, ...]
    threshold: float
    look: See
    describe: See
    maps: Maps | None = None
    parts: Count | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image], batch: int = 128, progress: Progress = no_progress) -> list[str]:
        """A label, or NOTHING, for each picture."""
        found: list[str] = []
        for start in range(0, len(pictures), batch):
            sure, label = self.look(pictures[start : start + batch]).max(-1)
            found += [
                self.labels[k] if p >= self.threshold else NOTHING
                for p, k in zip(sure.tolist(), label.tolist(), strict=True)
            ]
            progress("score", len(found), len(pictures))
        return found

    def likely(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """The probability of each label, (N, labels)."""
        return _batched(self.look, pictures, batch)

    def features(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """What the last layer reads of each picture, (N, D)."""
        return _batched(self.describe, pictures, batch)


@dataclass(frozen=True)
class Clip:
    """A model that says how well a text fits a picture. It has no labels of its own.

    source  where it was loaded from
    """

    source: str
    _processor: Any
    _model: Any
    labels: tuple[str, ...] = ()
    _asked: dict[tuple[str, tuple[str, ...]], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def features(self, pictures: Sequence[Image], batch: int = 128) -> Tensor:
        """Directions of pictures, (N, D), each of length one."""
        return _batched(lambda some: _vectors(self._model.get_image_features(**self._inputs(some))), pictures, batch)

    def maps(self, pictures: Sequence[Image]) -> list[Tensor]:
        """The features of each layer by place, (B, channels, places)."""
        return _maps(self._model.vision_model, self._inputs(pictures))

    @torch.no_grad()
    def texts(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Directions of texts, (N, D), each of length one."""
        rows = []
        for start in range(0, len(texts), batch):
            part = list(texts[start : start + batch])
            inputs = self._processor(text=part, return_tensors="pt", padding="max_length", truncation=True)
            rows.append(_vectors(self._model.get_text_features(**inputs.to(self._model.device))))
        return torch.cat(rows)

    def asked(self, words: Sequence[str], ways: Sequence[str] = SHOWN) -> Detector:
        """A classifier of words: the softmax of cosines at the model's own temperature, as it was trained."""
        known, keys = self._asked, [(word, tuple(ways)) for word in words]  # each word is encoded once by a process
        known |= {key: self.texts([way.format(key[0]) for way in ways]).mean(0) for key in keys if key not in known}
        texts = torch.stack([known[key] for key in keys])
        texts = self._model.logit_scale.exp().item() * normalize(texts, dim=1)

        def look(pictures: Sequence[Image]) -> Tensor:
            return torch.mm(self.features(pictures), texts.T).softmax(-1)

        return Detector(f"clip:{self.source}", tuple(words), 0.0, look, self.features, self.maps)

    def _inputs(self, pictures: Sequence[Image]) -> Any:
        return self._processor(images=list(pictures), return_tensors="pt").to(self._model.device)


def of_parts(source: str, label: str, names: Sequence[str], count: Count) -> Detector:
    """A classifier with one label, given to a picture in which any of the parts `names` is counted."""

    def look(pictures: Sequence[Image]) -> Tensor:
        return torch.tensor([[float(bool(found))] for found in count(pictures)])

    def describe(pictures: Sequence[Image]) -> Tensor:
        return torch.tensor([[float(found[name]) for name in names] for found in count(pictures)])

    return Detector(source, (label,), 1.0, look, describe, None, count)


AnyDetector = Detector | Clip | Distance


def names_of(detectors: Mapping[str, AnyDetector]) -> dict[str, str]:
    """The label that each name stands for, of all detectors: labels themselves, then their other names."""
    found = {label: label for detector in detectors.values() for label in detector.labels}
    for detector in detectors.values():
        if isinstance(detector, Detector):
            found = {**detector.others, **found}
    return found


@torch.no_grad()
def _batched(look: See, pictures: Sequence[Image], batch: int) -> Tensor:
    parts = [pictures[start : start + batch] for start in range(0, len(pictures), batch)]
    return torch.cat([look(part).float().cpu() for part in parts])


def _vectors(found: Any) -> Tensor:
    return normalize((found if isinstance(found, Tensor) else found.pooler_output).float().cpu(), dim=1)


def _maps(net: Any, inputs: Any) -> list[Tensor]:
    """Every hidden state of a network as (B, channels, places): (B, C, H, W), or (B, tokens, C) turned round."""
    states = net(**inputs, output_hidden_states=True).hidden_states
    return [state.flatten(2) if state.ndim == 4 else state.transpose(1, 2) for state in states]


def load_detector(source: str | Path, kind: str = "objects", words: Sequence[str] = ()) -> AnyDetector:
    """A detector by folder, hub id or name, see the top of this file.

    kind   what it is to answer; a CLIP model is asked otherwise for "styles" than for things
    words  what a CLIP model that classifies can answer
    A model of transformers is read once by a process.
    Raises InputError if there is none at `source`.
    """
    name, _, rest = str(source).partition(":")
    if name == "nudenet":
        protocol = nudity.protocol(rest)
        return of_parts(f"nudenet:{protocol.name}", NUDITY, sorted(protocol.parts), nudity.counter(protocol))
    if name == "lpips":
        return lpips(rest or "alex")
    if name == "clip" and rest:
        model = _load(rest)
        if not isinstance(model, Clip):
            raise InputError(f"{rest} compares no texts with pictures: it is no CLIP model; leave out 'clip:'")
        if kind == "clip":
            return model
        if len(words) < 2:
            raise InputError(f"{source} needs words to choose among: list {kind} in `words`")
        return model.asked(words, DRAWN if kind == "styles" else SHOWN)
    return _load(str(source))


def detectors_of(
    model: Pipeline | ModelCard,
    given: Mapping[str, str] | None = None,
    kinds: Collection[str] | None = None,
    *,
    choices: Callable[[str], Sequence[str]] = lambda kind: (),
) -> dict[str, AnyDetector]:
    """Detectors by kind: those that a model's card names, and the given ones in their place or beside them.

    kinds    which to load; None is all
    choices  what a CLIP model has to choose among as a detector of a kind
    """
    card = model if isinstance(model, ModelCard) else Model.of(model).card
    sources = {**card.detectors, **(given or {})}
    wanted = {kind: str(source) for kind, source in sources.items() if kinds is None or kind in kinds}
    return {kind: load_detector(source, kind, choices(kind)) for kind, source in wanted.items()}


@cache  # many evaluations of one process look with the same detector
def _load(source: str) -> Detector | Clip:
    with loading(source):
        return _read(source)


def _read(source: str) -> Detector | Clip:
    try:
        config = AutoConfig.from_pretrained(source)
        # transformers would put an untrained classifier on top of a model that only compares texts with pictures.
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            compare = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32).eval()
            return Clip(source, AutoProcessor.from_pretrained(source), compare)  # type: ignore[no-untyped-call]
        model = AutoModelForImageClassification.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32
        ).eval()
        processor = AutoImageProcessor.from_pretrained(source)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot load the detector {source}: {' '.join(str(error).split())[:300]}; give another with `detectors`"
        ) from error
    joined: Mapping[str, list[str]] = getattr(model.config, "joined", {})
    names = [str(model.config.id2label[k]).split(",") for k in range(model.config.num_labels)]
    labels = tuple(first for first, *_ in names)
    others = {other.strip(): first for first, *rest in names for other in rest if other.strip() not in labels}
    if wrong := next((one for some in joined.values() for one in some if one not in labels), None):
        raise InputError(f'"joined" in the config of {source} names {wrong!r}; its labels are {", ".join(labels)}')
    columns = [[labels.index(one) for one in some] for some in joined.values()]

    def inputs(pictures: Sequence[Image]) -> Any:
        return processor(images=list(pictures), return_tensors="pt").to(model.device)

    def look(pictures: Sequence[Image]) -> Tensor:
        each: Tensor = model(**inputs(pictures)).logits.softmax(-1)
        if not columns:
            return each
        return torch.stack([each[:, some].sum(1) for some in columns], 1)

    def describe(pictures: Sequence[Image]) -> Tensor:
        out = model.base_model(**inputs(pictures))
        pooled = getattr(out, "pooler_output", None)
        last = out.last_hidden_state  # (B, C, H, W) of convolutions, (B, places, C) of transformers
        mean = last.mean((2, 3) if last.dim() == 4 else 1)
        return (mean if pooled is None else pooled).flatten(1)  # type: ignore[no-any-return]

    threshold = float(getattr(model.config, "threshold", 0.0))

    def maps(pictures: Sequence[Image]) -> list[Tensor]:
        return _maps(model.base_model, inputs(pictures))

    return Detector(source, tuple(joined) or labels, threshold, look, describe, maps, None, {} if joined else others)
