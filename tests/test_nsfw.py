"""recipes/nsfw: the second detector of explicit pictures is nsfwjs' own network, answer for answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from recipes.nsfw import __main__ as command
from recipes.nsfw import build
from unsee.evaluate.detectors import NOTHING, Detector, load_detector

NARROW = {"depth_multiplier": 0.35}


def folded(net: MobileNetV2ForImageClassification) -> dict[str, np.ndarray]:
    """A network's weights as TensorFlow's converter leaves them: normalisations are part of the convolution before."""
    found: dict[str, np.ndarray] = {}
    for name, layer in net.mobilenet_v2.named_modules():
        if not hasattr(layer, "convolution"):
            continue
        where, _, part = name.rpartition(".")
        part = {kept: hub for hub, kept in build.PARTS.items()}.get(part, "")
        number = int(where.removeprefix("layer.")) + 1 if where.startswith("layer.") else 0
        block = "expanded_conv" + (f"_{number}" if number else "")
        hub = f"{block}/{part}" if part else {"conv_stem.first_conv": "Conv", "conv_1x1": "Conv_1"}[name]
        norm = layer.normalization
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        w = (layer.convolution.weight * scale[:, None, None, None]).detach()
        w = w.permute(2, 3, 0, 1) if part == "depthwise" else w.permute(2, 3, 1, 0)
        leaf = "depthwise" if part == "depthwise" else "Conv2D"
        found[f"{build.HUB}{hub}/{leaf}_weights"] = w.numpy()
        found[f"{build.HUB}{hub}/{leaf}_bn_offset"] = (norm.bias - norm.running_mean * scale).detach().numpy()
    found["Func/a"], found["Func/b"] = net.classifier.weight.detach().numpy().T, net.classifier.bias.detach().numpy()
    return found


def test_a_folded_network_answers_as_the_one_it_was_made_of() -> None:
    torch.manual_seed(0)
    config = MobileNetV2Config(num_labels=5, tf_padding=True, layer_norm_eps=1e-3, **NARROW)
    net = MobileNetV2ForImageClassification(config).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)  # else a picture's trace is lost on the way
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.bias, layer.running_mean):
                nn.init.normal_(value, std=0.3)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_var, 0.2, 2.0)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        wanted, got = (one(pictures).logits for one in (net, build.model(folded(net), **NARROW)))
    assert (wanted - wanted.mean(0)).abs().max() > 0.01  # it does look at the pictures
    assert torch.allclose(got, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_weights_are_bytes_with_a_scale(tmp_path: Path) -> None:
    def spec(name: str, shape: list[int], least: float, scale: float) -> dict[str, object]:
        return {"name": name, "shape": shape, "quantization": {"min": least, "scale": scale, "dtype": "uint8"}}

    specs = [spec("a/predict/first", [2, 1], -1.0, 0.5), spec("last", [], 2.0, 1.0)]
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": [{"weights": specs}]}))
    (tmp_path / "weights.bin").write_bytes(bytes([4, 0, 3]))
    found = build.read(tmp_path)
    assert found["first"].tolist() == [[1.0], [-1.0]]
    assert found["last"] == 5.0
    (tmp_path / "weights.bin").write_bytes(bytes([4, 0]))
    with pytest.raises(ValueError, match="weights.bin is cut"):
        build.read(tmp_path)


def test_three_classes_together_are_nudity(tmp_path: Path) -> None:
    """At one half of the probability, however it is divided among them."""
    config = MobileNetV2Config(num_labels=5, **NARROW)
    net = build.model(folded(MobileNetV2ForImageClassification(config)), **NARROW)
    nn.init.zeros_(net.classifier.weight)
    picture = [Image.new("RGB", (64, 64), "white")]
    for wanted, shares in (("nudity", (0.3, 0.2, 0.16, 0.16, 0.18)), (NOTHING, (0.3, 0.16, 0.22, 0.16, 0.16))):
        net.classifier.bias.data = torch.tensor(shares).log()
        net.save_pretrained(tmp_path / wanted)
        build.processor().save_pretrained(tmp_path / wanted)
        detector = load_detector(tmp_path / wanted)
        assert isinstance(detector, Detector)
        assert detector.labels == ("nudity",)
        assert detector(picture) == [wanted]
        assert detector.likely(picture).item() == pytest.approx(sum(shares[k] for k in (1, 3, 4)), abs=1e-5)


@pytest.mark.skipif(
    not (command.HERE / "node_modules/@tensorflow").is_dir(),
    reason="(cd recipes/nsfw && npm ci --ignore-scripts) brings the original",
)
def test_the_converted_network_answers_as_the_original(tmp_path: Path) -> None:
    """On neutral pictures, run by node: the miniature's own, noise, and plain ones."""
    sheet = Image.open(Path(__file__).parents[1] / "docs" / "miniature.webp").convert("RGB")
    pictures = [sheet.crop((64 * k, 0, 64 * k + 64, 64)).resize((224, 224)) for k in range(3)]
    pictures += [Image.new("RGB", (224, 224), color) for color in ("gray", "orange")]
    pictures.append(Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)))
    (tmp_path / "pictures").write_bytes(b"".join(picture.tobytes() for picture in pictures))
    look = ["node", command.HERE / "original.cjs", "look", tmp_path / "pictures"]
    wanted = json.loads(subprocess.run(look, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    command.unpacked(tmp_path)
    net = build.model(build.read(tmp_path))
    with torch.no_grad():
        got = net(**build.processor()(pictures, return_tensors="pt")).logits.softmax(-1)
    assert np.abs(got.numpy() - np.array(wanted)).max() < 1e-4
