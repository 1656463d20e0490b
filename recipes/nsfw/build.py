"""nsfwjs' MobileNetV2 as a classifier that transformers loads, with the same answers.

nsfwjs (Infinite Red, MIT) has five classes: Drawing, Hentai, Neutral, Porn, Sexy. Its middle model is MobileNetV2
(Sandler et al., 2018) 1.4 wide, with every normalisation folded into the convolution before it:

    w * x + b  =  (w * x - mean) / sqrt(var + eps) * 1 + b      with  mean = 0,  var = 1 - eps

Weights are bytes q, and  w = min + scale q.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, ViTImageProcessor

CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
EXPLICIT = ("Hentai", "Porn", "Sexy")
"""Together they are the label "nudity": more likely than not, or the picture is of none."""
SIDE = 224
HUB = "MobilenetV2/"
PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}


def read(folder: Path) -> dict[str, np.ndarray]:
    """Arrays by their short names, of model.json and weights.bin as `original.cjs unpack` writes them."""
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))["weightsManifest"]
    raw, found, at = np.frombuffer((folder / "weights.bin").read_bytes(), np.uint8), {}, 0
    for spec in (spec for group in manifest for spec in group["weights"]):
        size, scale = prod(spec["shape"]), spec["quantization"]
        if scale["dtype"] != "uint8" or at + size > len(raw):
            raise ValueError(
                f"{spec['name']} is not stored as bytes, or weights.bin is cut: another version of nsfwjs?"
            )
        q = raw[at : at + size].astype(np.float32).reshape(spec["shape"])
        found[spec["name"].rpartition("predict/")[2]] = (scale["min"] + scale["scale"] * q).astype(np.float32)
        at += size
    return found


def states(arrays: Mapping[str, np.ndarray], eps: float) -> dict[str, Tensor]:
    """The weights under the names that transformers gives them. eps: that of its normalisations."""
    layers = {f"{HUB}Conv/Conv2D": "conv_stem.first_conv", f"{HUB}Conv_1/Conv2D": "conv_1x1"}
    for name in arrays:
        if name.startswith(f"{HUB}expanded_conv"):
            block, part, _ = name.removeprefix(HUB).split("/")
            number = int(block.removeprefix("expanded_conv").lstrip("_") or 0)
            where = f"layer.{number - 1}" if number else "conv_stem"
            layers[f"{HUB}{block}/{part}/{'depthwise' if part == 'depthwise' else 'Conv2D'}"] = f"{where}.{PARTS[part]}"
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        w, b = torch.from_numpy(arrays[f"{name}_weights"]), torch.from_numpy(arrays[f"{name}_bn_offset"])
        # (height, width, in, out); of a depthwise one (height, width, channels, 1)
        found[f"mobilenet_v2.{layer}.convolution.weight"] = w.permute(
            *((2, 3) if "depthwise" in name else (3, 2)), 0, 1
        )
        norm = {"weight": torch.ones_like(b), "bias": b, "running_mean": torch.zeros_like(b)}
        norm["running_var"] = torch.full_like(b, 1 - eps)
        found |= {f"mobilenet_v2.{layer}.normalization.{key}": value for key, value in norm.items()}
    w, b = (array for name, array in sorted(arrays.items()) if name.startswith("Func/"))
    return {**found, "classifier.weight": torch.from_numpy(w.T.copy()), "classifier.bias": torch.from_numpy(b)}


def model(arrays: Mapping[str, np.ndarray], **settings: Any) -> MobileNetV2ForImageClassification:
    """The network. settings: of its config, where they are not nsfwjs'."""
    given = {"depth_multiplier": 1.4, "tf_padding": True, "layer_norm_eps": 1e-3, "image_size": SIDE, **settings}
    config = MobileNetV2Config(
        id2label=dict(enumerate(CLASSES)), joined={"nudity": list(EXPLICIT)}, threshold=0.5, **given
    )
    net = MobileNetV2ForImageClassification(config).eval()
    missing, extra = net.load_state_dict(states(arrays, config.layer_norm_eps), strict=False)
    if extra or any("num_batches" not in name for name in missing):
        raise ValueError(f"the weights are of another network: {[*missing, *extra][0]}")
    return net


def processor() -> ViTImageProcessor:
    """Bytes to -1..1, as the network's first layer does it; larger pictures are made 224 pixels wide and high."""
    return ViTImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
