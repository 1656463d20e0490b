"""The paper's experiments run end to end on Stable Diffusion 1.4's layout with random weights, and say so."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
)

from unsee.cli.main import main
from unsee.concepts import Concept
from unsee.errors import InputError
from unsee.evaluate.context import EvalContext, Variant
from unsee.evaluate.detectors import Clip
from unsee.evaluate.measures import Comparison
from unsee.runs.artists import ARTISTS, ARTWORK
from unsee.runs.reproduce import CLASSES, Experiment, reproduce

SETTINGS = ("updates=1", "record_steps=2", "lr=1e-4")


@pytest.fixture(scope="session")
def small_sd(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SD 1.4 made small: same classes, same blocks, other widths."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    words = tiny.tokenizer
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        eos_token_id=words.eos_token_id,
    )
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=4),
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("small_sd")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of random weights that knows ImageNet's names, as ImageNet's own are written."""
    torch.manual_seed(0)
    labels = {k: f"{name}, another name" for k, name in enumerate((*CLASSES, "goldfish"))}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=labels, label2id={})
    folder = tmp_path_factory.mktemp("detector")
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


def test_objects_from_the_command_line(
    small_sd: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "reproduce",
        "objects",
        "--model",
        small_sd,
        "--judge",
        detector,
        "-n",
        2,
        "--steps",
        1,
        "--only",
        "church",
    ]
    words += ["--only", "French horn", "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    words += [word for pair in SETTINGS for word in ("--set", pair)]
    monkeypatch.setattr(sys, "argv", ["unsee", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert not end.value.code, err
    assert "church, erased" in out
    assert "73.8 -> 54.2" in out
    assert "French horn, all others" in out
    assert "MEANINGLESS" in out
    assert "the paper's is Stable Diffusion 1.4" in out
    assert "not the paper's settings: updates 1" in out
    assert {path.name[:7] for path in (tmp_path / "out" / "edits").iterdir()} == {"church-", "French-"}
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("MEANINGLESS") < page.index(
        "church, erased: the paper claims 73.8 -&gt; 54.2 (per cent); measured"
    )


def test_the_experiment_on_styles_gives_the_papers_lines(small_sd: Path, clip_folder: Path, tmp_path: Path) -> None:
    styles = Experiment(
        "styles",
        str(small_sd),
        ["Kilian Eng"],
        {"updates": 1, "record_steps": 2},
        str(clip_folder),
        pictures=2,
        steps=1,
    )
    found = reproduce(styles, tmp_path, tmp_path / "cache")
    erased, others = found.lines
    assert (erased.claimed, others.claimed) == ((3.21, 1.12), None)
    assert (erased.n, others.n) == (2, 8)
    assert all(-1 <= value <= 1 for line in found.lines for value in line.measured)
    assert any("MEANINGLESS: CLIP picks the right one of five artists for " in warning for warning in found.warnings)
    assert any("compare the directions only" in warning for warning in found.warnings)


def test_the_experiment_on_nudity_gives_the_papers_lines(
    small_sd: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are summed over all pictures; a NudeNet that sees one in each."""
    seen = [{"class": "BELLY_EXPOSED", "score": 0.99, "box": [0, 0, 1, 1]}]
    nudenet = SimpleNamespace(NudeDetector=lambda: SimpleNamespace(detect=lambda picture: seen))
    monkeypatch.setitem(sys.modules, "nudenet", nudenet)
    (tmp_path / "i2p.csv").write_text("prompt,sd_seed,categories\na cat,1,sexual\na dog,2,hate\na hat,3,sexual\n")
    nudity = Experiment(
        "nudity", str(small_sd), settings={"updates": 1, "record_steps": 2}, prompts=tmp_path / "i2p.csv", steps=1
    )
    found = reproduce(nudity, tmp_path, tmp_path / "cache")
    (line,) = found.lines
    assert (line.claimed, line.measured, line.n) == ((796, 134), (3, 3), 3)
    assert "3 prompts were drawn, and the paper has 4703" in found.warnings
    for change, message in (
        ({"pictures": 4}, "leave out `pictures` for nudity"),
        ({"detector": str(detector)}, "counts no parts of the body"),
        ({"prompts": None}, "nudity needs `prompts` .i2p_benchmark.csv"),
    ):
        with pytest.raises(InputError, match=message):
            reproduce(replace(nudity, **change), tmp_path, tmp_path / "cache")  # type: ignore[arg-type]


def test_the_share_of_right_artists_is_that_counted_by_hand() -> None:
    """A detector whose texts of an artist all point one way: of two pictures of each, one is taken for another's."""
    ways = torch.eye(len(ARTISTS))

    @dataclass(frozen=True)
    class Known(Clip):
        def texts(self, texts: Sequence[str], batch: int = 256) -> torch.Tensor:
            return torch.stack([ways[next(k for k, name in enumerate(ARTISTS) if name in text)] for text in texts])

    where = EvalContext(None, {"clip": Known("here", None, None)}, {}, tuple(map(Concept, ARTISTS)), 2, 0)
    look: Any = SimpleNamespace(
        context=where,
        features=lambda variant, kind, shots: [
            ways[(ARTISTS.index(next(a for a in ARTISTS if a in shot.prompt)) + (shot.seed == 1)) % len(ARTISTS)]
            for shot in shots
        ],
    )
    first = Variant("one", "edit", "", (Concept(ARTISTS[0]),), None)
    score = ARTWORK.score(ARTWORK.ask(where), Comparison("artists", where, first, look))
    found = {one.row: one.score for one in score}  # type: ignore[union-attr]
    told = "{}: picked out of five"
    assert [(found[told.format(row)].value, found[told.format(row)].n) for row in ("erased", "other artists")] == [
        (0.5, 2),
        (0.5, 8),
    ]
    assert found["erased"].value == found["other artists"].value == 0.5


def test_styles_need_a_model_that_compares(small_sd: Path, detector: Path, tmp_path: Path) -> None:
    styles = Experiment("styles", str(small_sd), ["Kilian Eng"], detector=str(detector), pictures=2, steps=1)
    with pytest.raises(InputError, match="cannot reproduce styles: no detector compares"):
        reproduce(styles, tmp_path, tmp_path / "cache")


def test_unknown_names_are_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'objects'"):
        reproduce(Experiment("object"), tmp_path, tmp_path)
    with pytest.raises(InputError, match="did you mean 'French horn'"):
        reproduce(Experiment("objects", only=["french horn"]), tmp_path, tmp_path)


def test_the_table_is_the_papers() -> None:
    """Its own averages: 78.2 and 12.6 of the erased, 78.2 and 63.2 of the others."""
    means = [sum(row[k] for row in CLASSES.values()) / 10 for k in range(4)]
    assert means == pytest.approx([78.2, 12.6, 78.2, 63.2], abs=0.06)
