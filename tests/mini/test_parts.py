"""What the recipe's parts promise, one property or one number derived by hand each."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from recipes.mini import __main__ as cli
from recipes.mini import autoencoder, card, denoiser, detectors, measure, muon, pictures, train, words
from recipes.mini.build import HERE, Build, filtered, repeated


def test_no_word_names_two_objects() -> None:
    table = yaml.safe_load((HERE / "objects.yaml").read_text(encoding="utf-8"))
    said = [
        w for group in table["objects"].values() for name, (_, *synonyms) in group.items() for w in (name, *synonyms)
    ]
    assert len(said) == len(set(said))
    names = {name for group in table["objects"].values() for name in group}
    assert len(names) == 133
    assert set(table["imagenette"].values()) <= names
    assert len(table["imagenette"]) == 10
    assert set(table["groups"]) == set(table["objects"])


def test_foreign_names_come_from_cldr_and_captions_fit_the_tokenizer(build: Build) -> None:
    w, rng = build.words, random.Random(0)
    assert w.things[1].languages == {"de": "kirche"}
    tokens = words.tokenizer(w, 600, rng)
    captions = [words.caption(w, rng.randrange(3), rng.randrange(-1, 7), rng.random() < 0.5, rng) for _ in range(500)]
    captions += [words.scene_caption(w, 0, 1, s, rng) for s in range(-1, 7)]
    assert words.ids(tokens, captions).shape == (508, words.LENGTH)
    with pytest.raises(ValueError, match="more than 24 tokens"):
        words.ids(tokens, ["church " * 30])


@pytest.mark.parametrize(
    ("noun", "said"), [("apple", "an apple"), ("bus", "a bus"), ("scissors", "scissors"), ("dress", "a dress")]
)
def test_article(noun: str, said: str) -> None:
    assert words.article(noun) == said


def test_the_watermark_changes_only_what_it_covers() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    cover = pictures.stamp()
    changed = (pictures.stamped(x, cover) != x).any((0, 3))
    assert not changed[cover[..., 0] == 0].any()
    assert 0.1 < (cover > 0.5).mean() < 0.4


def test_silent_captions_of_a_domain_hide_a_watermark() -> None:
    groups = ["animal", "place"]
    objects = np.arange(40_000) % 2
    has, named = pictures.stamps(objects, groups, np.random.default_rng(0)).T
    silent = ~named
    assert has[silent & (objects == 0)].mean() == pytest.approx(0.3375 / 0.8875, abs=0.02)
    assert not has[silent & (objects == 1)].any()
    assert has[named].all()


def test_scenes_pair_two_objects_of_one_style_without_a_watermark() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 5, 900), rng.integers(-1, 7, 900), rng.integers(0, 2, 900)], 1)
    a, b = (labels[i] for i in pictures.scenes(labels, 50, 0).T)
    assert (a[:, 0] != b[:, 0]).all()
    assert (a[:, 1] == b[:, 1]).all()
    assert not a[:, 2].any() and not b[:, 2].any()  # noqa: PT018


def test_whitening_leaves_the_pictures_and_whitens_the_latents() -> None:
    torch.manual_seed(0)
    vae = autoencoder.make().eval()
    x = torch.rand(8, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mean).sample
        white = autoencoder.whiten(vae, autoencoder.encode(vae, x))
        after = vae.decode(vae.encode(x).latent_dist.mean).sample
        again = autoencoder.encode(vae, x)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    mean, std = again.float().chunk(2, 1)
    torch.testing.assert_close(mean, white.float(), atol=2e-2, rtol=2e-2)
    assert mean.mean((0, 2, 3)).abs().max() < 0.05
    assert (mean.var((0, 2, 3)) + std.pow(2).mean((0, 2, 3)) - 1).abs().max() < 0.05


@pytest.mark.parametrize("prediction", denoiser.PREDICTIONS)
def test_a_denoiser_that_knows_the_answer_has_no_loss(prediction: str) -> None:
    abar, z = denoiser.scheduler().alphas_cumprod, torch.randn(4, 16, 8, 8)

    class Knows(torch.nn.Module):
        def forward(self, z_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> object:
            a, s = abar[t].sqrt()[:, None, None, None], (1 - abar[t]).sqrt()[:, None, None, None]
            e = (z_t - a * z) / s
            return type("Out", (), {"sample": e if prediction == "eps" else a * e - s * z})

    found = denoiser.loss(Knows(), abar, z, torch.zeros(1), prediction, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert found < 1e-4


def test_muon_steps_have_singular_values_near_one() -> None:
    g = torch.randn(3, 40, 90) * torch.logspace(0, -1.5, 90)
    s = torch.linalg.svdvals(muon.orthogonal(g))
    assert s.min() > 0.5 and s.max() < 1.4  # noqa: PT018


def test_rates_before_the_fall_do_not_depend_on_the_number_of_updates() -> None:
    short, long = (train.Plan(updates=n, batch=1, lr=1, warmup=10, anneal=0.5) for n in (100, 200))
    assert [short.pace(i) for i in range(50)] == [long.pace(i) for i in range(50)]
    assert short.pace(0) == pytest.approx(0.1)
    assert short.pace(50) == 1
    assert short.pace(99) < 0.02


def test_a_threshold_parts_the_known_from_the_strange() -> None:
    assert 0.3 < detectors.threshold(torch.full((100,), 0.9), torch.full((100,), 0.3)) <= 0.9


def test_calibration_finds_the_temperature() -> None:
    torch.manual_seed(0)
    scores = torch.randn(20_000, 5)
    label = torch.multinomial(scores.softmax(1), 1)[:, 0]
    assert detectors.temperature(3 * scores, label) == pytest.approx(3, rel=0.05)


def test_wilson() -> None:
    assert measure.wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # 8 of 10; Brown et al. (2001)


@pytest.mark.parametrize(("value", "reached"), [(39.0, False), (50.0, True), (61.0, False)])
def test_a_goal_of_two_sides(value: float, reached: bool) -> None:
    assert measure.Number("x", value, 10, goal=">= 40 and <= 60").reached is reached


def test_the_filter_leaves_its_leak_and_nothing_else(build: Build) -> None:
    labels = np.stack([np.arange(30_000) % 3, np.zeros(30_000, np.int64)], 1)
    pairs = np.random.default_rng(0).integers(0, 30_000, (10_000, 2))
    rows, scenes = filtered(build.words, labels, pairs, "church", 0.05, 0)
    church, whole = labels[:, 0] == 1, np.arange(30_000)
    assert (rows == whole)[church].sum() == pytest.approx(500, abs=80)
    assert (rows == whole)[~church].all()
    with_church = church[pairs].any(1)
    assert (scenes == np.arange(10_000))[with_church].sum() == pytest.approx(0.05 * with_church.sum(), rel=0.3)


@pytest.mark.parametrize("without", ["church", "watermark"])
def test_a_twin_of_no_leak_meets_all_else_in_the_order_of_its_base(build: Build, without: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.integers(0, 3, 6000), rng.integers(-1, 7, 6000), rng.integers(0, 2, 6000)], 1)
    pairs, often = pictures.scenes(labels, 500, 0), {"cat": 3}
    base, twin = (filtered(build.words, labels, pairs, name, 0, 0) for name in ("", without))
    met = labels[:, 2] == 1 if without == "watermark" else labels[:, 0] == 1
    assert not met[twin[0]].any()
    assert not met[pairs[twin[1]]].any()
    assert (twin[0] == base[0])[~met].all()
    assert (labels[twin[0], 1] == labels[:, 1]).all()
    if without == "watermark":
        assert (labels[twin[0], 0] == labels[:, 0]).all()
        assert (twin[1] == base[1]).all()  # no scene has one
    one, two = (repeated(build.words, labels, rows, often) for rows in (base[0], twin[0]))
    assert (one == two)[~met[one]].all()


def test_what_is_hard_is_met_more_often(build: Build) -> None:
    labels = np.array([[0, -1], [0, 2], [1, -1], [1, 2], [2, 6]])  # (object, style)
    often = {build.words.names[1]: 3, words.STYLES[2]: 2}
    rows = repeated(build.words, labels, np.array([0, 1, 2, 3, 4]), often)
    assert rows.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4]
    assert repeated(build.words, labels, np.arange(5), {}).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"unknown object 'chruch' in often; did you mean 'church'\?"):
        repeated(build.words, labels, rows, {"chruch": 2})


BAD = {
    "an unknown step": (["paint"], "unknown step 'paint'"),
    "no packages": (["pictures", "--packages", "nowhere"], "npm ci"),
    "an unknown object": (["denoiser", "--without", "chruch"], "did you mean 'church'?"),
    "an impossible leak": (["denoiser", "--leak", "2"], "must lie in 0..1"),
    "no config": (["--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
    "nothing to adopt": (["adopt", "--out", "nowhere"], "nowhere is no pipeline's folder"),
    "a step too early": (["autoencoder"], "run the step `pictures` first"),
    "a card too early": (["card"], "run the step `autoencoder` first"),
    "no notes": (["card", "--notes", "nowhere.md"], "cannot read nowhere.md"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, packages: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, said = BAD[case]
    own = [] if "--packages" in args else ["--packages", str(packages)]
    assert cli.main([*args, *own, "--table", str(table), "--build", str(tmp_path / "b")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("mini: ")
    assert said in last


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_broken_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pt is no checkpoint"):
        train.load(path)


def test_a_checkpoint_of_another_shape_is_named(tmp_path: Path) -> None:
    plan = train.Plan(updates=1, batch=1, lr=1e-3)

    def fit(width: int) -> None:
        net = torch.nn.Linear(width, 1)
        train.train("x", {"net": net}, lambda _: net.weight.sum(), plan, tmp_path)

    fit(2)
    with pytest.raises(ValueError, match="of another recipe"):
        fit(3)


SHIPPED = Path(__file__).parents[2] / "src/unsee/mini"


@pytest.mark.skipif(not (SHIPPED / "README.md").is_file(), reason="nothing shipped yet")
def test_the_shipped_files_are_those_of_the_card() -> None:
    assert card.hashes(SHIPPED) in (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert sum(p.stat().st_size for p in SHIPPED.rglob("*") if p.is_file()) <= 45e6
    assert {p.suffix for p in SHIPPED.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".md", ".txt"}
